package secret

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// stores are the kinds of objects by which a store feeds a namespace.
var stores = []schema.GroupKind{
	{Group: "bitnami.com", Kind: "SealedSecret"},
	{Group: "external-secrets.io", Kind: "ExternalSecret"},
	{Group: "secrets-store.csi.x-k8s.io", Kind: "SecretProviderClass"},
	{Group: "secrets.hashicorp.com", Kind: "VaultStaticSecret"},
	{Group: "secrets.hashicorp.com", Kind: "VaultDynamicSecret"},
	{Group: "secrets.hashicorp.com", Kind: "VaultPKISecret"},
	{Group: "isindir.github.com", Kind: "SopsSecret"},
	{Group: "onepassword.com", Kind: "OnePasswordItem"},
	{Group: "secrets.infisical.com", Kind: "InfisicalSecret"},
}

// Stores says for each namespace that uses Secrets whether an external or
// sealed store feeds it.
func Stores(inv *inventory.Inventory) []finding.Verdict {
	fed := feeds(inv)
	needs := needs(inv)
	var out []finding.Verdict
	sources := namespaces(inv)
	for _, ns := range slices.Sorted(maps.Keys(sources)) {
		f := store(inv, ns, fed[ns], needs[ns])
		f.Subject = finding.Subject{APIVersion: "v1", Kind: "Namespace", Name: ns, Source: sources[ns]}
		if o := inv.Get("", "Namespace", "", ns); o != nil {
			f.Subject = o.Subject()
		}
		out = append(out, f)
	}
	return out
}

func store(inv *inventory.Inventory, ns, feed, need string) finding.Verdict {
	switch {
	case ns == "kube-system" || ns == "kube-public" || ns == "kube-node-lease":
		return finding.Verdict{Status: finding.NotApplicable, Reason: "namespace of Kubernetes itself"}
	case feed != "":
		return finding.Verdict{Status: finding.Pass, Evidence: feed}
	}
	for _, gk := range stores {
		if reason := inv.Gap(gk.Group, gk.Kind); reason != "" && need != "" {
			return finding.Verdict{Status: finding.Unknown, Reason: gk.Kind + " objects could not be read: " + reason}
		}
	}
	switch {
	case inv.Origin == inventory.Files && inv.Get("", "Namespace", "", ns) == nil:
		return finding.Verdict{Status: finding.Unknown, Reason: "the Namespace is not among the files; what feeds it may be elsewhere"}
	case need == "":
		return finding.Verdict{Status: finding.NotApplicable, Reason: "the namespace uses no Secret"}
	}
	return finding.Verdict{Status: finding.Fail, Message: "Secrets are written by hand: no external or sealed store feeds the namespace", Evidence: need}
}

// namespaces returns the namespaces that have an object, a workload or a
// Secret, and where that stands.
func namespaces(inv *inventory.Inventory) map[string]string {
	found := map[string]string{}
	note := func(ns, source string) { found[ns] = cmp.Or(found[ns], source) }
	for _, o := range inv.Kind("", "Namespace") {
		note(o.GetName(), o.Source)
	}
	for _, w := range inv.Workloads() {
		note(inv.NamespaceOf(w.Object), w.Source)
	}
	for _, o := range inv.Kind("", "Secret") {
		note(inv.NamespaceOf(o), o.Source)
	}
	return found
}

// feeds says for each namespace which store feeds it.
func feeds(inv *inventory.Inventory) map[string]string {
	out := map[string]string{}
	note := func(ns, text string) { out[ns] = cmp.Or(out[ns], text) }
	for _, gk := range stores {
		for _, o := range inv.Kind(gk.Group, gk.Kind) {
			note(inv.NamespaceOf(o), o.Subject().String())
		}
	}
	for _, o := range inv.Kind("", "Secret") {
		if _, ok := o.Object["sops"].(map[string]any); ok {
			note(inv.NamespaceOf(o), o.Subject().String()+" is encrypted by SOPS")
		}
		for _, ref := range o.GetOwnerReferences() {
			if ref.Kind == "ExternalSecret" || ref.Kind == "SealedSecret" {
				note(inv.NamespaceOf(o), fmt.Sprintf("%s %s makes %s", ref.Kind, ref.Name, o.Subject()))
			}
		}
	}
	for _, w := range inv.Workloads() {
		if by := injected(w); by != "" {
			note(inv.NamespaceOf(w.Object), fmt.Sprintf("%s of %s", by, w.Subject()))
		}
	}
	return out
}

// injected says what puts secrets into the pods of a workload without a Secret.
func injected(w *inventory.Workload) string {
	for _, mark := range []string{"vault.hashicorp.com/agent-inject", "openbao.org/agent-inject"} {
		if w.Template.Annotations[mark] == "true" {
			return "annotation " + mark
		}
	}
	for _, v := range w.Template.Spec.Volumes {
		if v.CSI != nil && v.CSI.Driver == "secrets-store.csi.k8s.io" {
			return "volume " + v.Name
		}
	}
	return ""
}

// needs says for each namespace what uses or holds a Secret.
func needs(inv *inventory.Inventory) map[string]string {
	out := map[string]string{}
	for _, w := range inv.Workloads() {
		ns := inv.NamespaceOf(w.Object)
		for _, name := range slices.Sorted(maps.Keys(Names(w.Object))) {
			out[ns] = cmp.Or(out[ns], fmt.Sprintf("%s uses Secret %s", w.Subject(), name))
		}
	}
	for _, o := range inv.Kind("", "Secret") {
		ns := inv.NamespaceOf(o)
		if !automatic(o) {
			out[ns] = cmp.Or(out[ns], o.Subject().String())
		}
	}
	return out
}
