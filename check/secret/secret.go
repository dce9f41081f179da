// Package secret judges how Secrets are kept: whether a store feeds them,
// whether something uses them, how old they are and who shares them. It never
// reads a value.
//
// The Secrets of a live cluster are not read. Those in files are judged; a file
// inventory speaks for a namespace only if it holds the Namespace object.
package secret

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// Annotations of ours on a Secret.
const (
	RotatedMark  = "kubeguardian.dev/rotated"  // the day of the last rotation, as 2026-11-26
	RotationMark = "kubeguardian.dev/rotation" // "external" where something else rotates it
)

// Period is after how long a Secret should have been replaced.
const Period = 90 * 24 * time.Hour

// each judges every Secret that people keep: not those that Kubernetes and Helm
// make for themselves.
func each(inv *inventory.Inventory, judge func(o *inventory.Object) finding.Verdict) []finding.Verdict {
	var out []finding.Verdict
	for _, o := range inv.Kind("", "Secret") {
		f := finding.Verdict{Status: finding.NotApplicable, Reason: "made and used by Kubernetes or Helm itself"}
		if !automatic(o) {
			f = judge(o)
		}
		f.Subject = o.Subject()
		out = append(out, f)
	}
	return out
}

func automatic(o *inventory.Object) bool {
	kind, _ := o.Object["type"].(string)
	return strings.HasPrefix(kind, "bootstrap.kubernetes.io/") || strings.HasPrefix(kind, "helm.sh/") ||
		kind == "kubernetes.io/service-account-token"
}

// Unused says for each Secret whether something uses it: a workload, a service
// account, an entry point, a role that names it, or any other object that has
// its name where it speaks of a secret.
func Unused(inv *inventory.Inventory) []finding.Verdict {
	used := uses(inv)
	return each(inv, func(o *inventory.Object) finding.Verdict {
		ns := inv.NamespaceOf(o)
		if by := used[key{ns, o.GetName()}]; by != nil {
			return finding.Verdict{Status: finding.Pass, Evidence: "used by " + by.Subject().String()}
		}
		if reason := silent(inv, ns); reason != "" {
			return finding.Verdict{Status: finding.Unknown, Reason: reason}
		}
		return finding.Verdict{Status: finding.Fail, Message: "nothing uses this Secret"}
	})
}

// silent says why an inventory does not speak for a whole namespace, or "".
func silent(inv *inventory.Inventory, ns string) string {
	if inv.Origin == inventory.Files && inv.Get("", "Namespace", "", ns) == nil {
		return "the Namespace is not among the files; what uses the Secret may be elsewhere"
	}
	return ""
}

type key struct{ namespace, name string }

// uses returns for each name of a Secret an object that uses it.
func uses(inv *inventory.Inventory) map[key]*inventory.Object {
	out := map[key]*inventory.Object{}
	for _, o := range inv.Objects() {
		if o.GetKind() == "Secret" {
			continue
		}
		ns, names := inv.NamespaceOf(o), Names(o)
		for name := range names {
			out[key{ns, name}] = o
		}
		if ns == "" && len(names) > 0 { // a cluster-wide object may mean any namespace
			for _, s := range inv.Kind("", "Secret") {
				if names[s.GetName()] {
					out[key{inv.NamespaceOf(s), s.GetName()}] = o
				}
			}
		}
	}
	return out
}

// maxDepth bounds how deep an object is searched.
const maxDepth = 32

// Names returns the names of Secrets that an object uses: the texts below a key
// that speaks of secrets, those that a volume or a variable refers to among
// them, and the objects that a rule on Secrets names.
func Names(o *inventory.Object) map[string]bool {
	found := map[string]bool{}
	for _, field := range slices.Sorted(maps.Keys(o.Object)) {
		if field != "metadata" && field != "status" {
			search(o.Object[field], speaks(field) || field == "imagePullSecrets", 0, found)
		}
	}
	return found
}

func speaks(field string) bool {
	field = strings.ToLower(field)
	return strings.Contains(field, "secret") || strings.Contains(field, "certificateref") || field == "credentialname"
}

func search(node any, secret bool, depth int, found map[string]bool) {
	if depth > maxDepth {
		return
	}
	switch v := node.(type) {
	case string:
		if secret {
			found[v] = true
		}
	case []any:
		for _, item := range v {
			search(item, secret, depth+1, found)
		}
	case map[string]any:
		rule := lists(v["resources"], "secrets")
		for field, child := range v {
			search(child, secret || speaks(field) || rule && field == "resourceNames", depth+1, found)
		}
	}
}

func lists(node any, item string) bool {
	list, _ := node.([]any)
	return slices.Contains(list, any(item))
}

// Age says for each Secret whether it was replaced within [Period]. Files tell
// that by [RotatedMark], or by what the API server notes in what it returns.
func Age(inv *inventory.Inventory, now time.Time) []finding.Verdict {
	return each(inv, func(o *inventory.Object) finding.Verdict {
		if by := rotator(o); by != "" {
			return finding.Verdict{Status: finding.NotApplicable, Reason: "rotated by " + by}
		}
		at, exact, err := changed(o)
		switch age := now.Sub(at); {
		case err != nil:
			return finding.Verdict{Status: finding.Unknown, Reason: err.Error()}
		case at.IsZero(), !exact && age > Period:
			return finding.Verdict{Status: finding.Unknown, Reason: "when it was last replaced is not known; note the day in the annotation " + RotatedMark}
		case age > Period:
			return finding.Verdict{Status: finding.Fail, Message: fmt.Sprintf("not replaced for %d days", int(age.Hours()/24)), Evidence: "last on " + at.Format(time.DateOnly)}
		case at.After(now):
			return finding.Verdict{Status: finding.Unknown, Reason: "its last replacement is dated " + at.Format(time.DateOnly) + ", which is in the future"}
		default:
			return finding.Verdict{Status: finding.Pass, Evidence: "last on " + at.Format(time.DateOnly)}
		}
	})
}

// rotator says what replaces a Secret without people, or "".
func rotator(o *inventory.Object) string {
	if o.GetAnnotations()[RotationMark] == "external" {
		return "what its annotation speaks of"
	}
	for _, ref := range o.GetOwnerReferences() {
		if ref.Kind == "ExternalSecret" || ref.Kind == "Certificate" {
			return ref.Kind + " " + ref.Name
		}
	}
	if o.Object["type"] == "kubernetes.io/tls" {
		return "whoever issues the certificate, see APP-TLS-01"
	}
	return ""
}

// changed returns when a Secret was last changed; if that is not exact it may
// have been later.
func changed(o *inventory.Object) (at time.Time, exact bool, err error) {
	if day := o.GetAnnotations()[RotatedMark]; day != "" {
		at, err = time.Parse(time.DateOnly, day)
		if err != nil {
			return at, false, fmt.Errorf("annotation %s is no day as 2026-11-26", RotatedMark)
		}
		return at, true, nil
	}
	for _, m := range o.GetManagedFields() {
		if m.Time != nil && m.Time.After(at) {
			at, exact = m.Time.Time, true
		}
	}
	if at.IsZero() {
		at = o.GetCreationTimestamp().Time
	}
	return at, exact, nil
}

// Shared says for each Secret whether workloads of one application only can
// read it, mounted or through the API, as readers knows. An application is what
// app.kubernetes.io/part-of names, else the namespace.
func Shared(inv *inventory.Inventory, readers func(namespace, name string) []*inventory.Workload) []finding.Verdict {
	mounts := map[key][]*inventory.Workload{}
	for _, w := range inv.Workloads() {
		for name := range Names(w.Object) {
			at := key{inv.NamespaceOf(w.Object), name}
			mounts[at] = append(mounts[at], w)
		}
	}
	return each(inv, func(o *inventory.Object) finding.Verdict {
		ns, applications, how := inv.NamespaceOf(o), map[string]bool{}, []string{}
		for _, w := range slices.Concat(mounts[key{ns, o.GetName()}], readers(ns, o.GetName())) {
			if app := application(inv, w); !applications[app] {
				applications[app] = true
				how = append(how, w.Subject().String())
			}
		}
		slices.Sort(how)
		if len(applications) > 1 {
			return finding.Verdict{
				Status: finding.Fail, Message: fmt.Sprintf("workloads of %d applications can read it", len(applications)),
				Evidence: strings.Join(how[:min(len(how), 4)], ", "),
			}
		}
		if reason := silent(inv, ns); reason != "" {
			return finding.Verdict{Status: finding.Unknown, Reason: reason}
		}
		return finding.Verdict{Status: finding.Pass}
	})
}

func application(inv *inventory.Inventory, w *inventory.Workload) string {
	const partOf = "app.kubernetes.io/part-of"
	for _, of := range []map[string]string{w.Template.Labels, w.GetLabels()} {
		if of[partOf] != "" {
			return "application " + of[partOf]
		}
	}
	return "namespace " + inv.NamespaceOf(w.Object)
}
