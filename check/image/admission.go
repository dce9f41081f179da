package image

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// A demand is a rule of an admission controller by which images must be signed.
type demand struct {
	by         string          // the object that has it
	namespace  string          // that it is for, "" for all
	namespaces []string        // patterns, empty for all
	selector   labels.Selector // of namespaces, nil for all
	images     []*regexp.Regexp
	except     []*regexp.Regexp
	doubt      string // why nobody can say from here whether it bites; "" if it does
}

// demandsOf reads the rules of the admission controllers that are known:
// KubeGuardian, Kyverno, sigstore's policy-controller, Ratify and Connaisseur.
func demandsOf(inv *inventory.Inventory) []demand {
	var out []demand
	for _, o := range inv.Objects() {
		switch o.GroupVersionKind().Group + "/" + o.GetKind() {
		case "kubeguardian.dev/ImagePolicy":
			out = append(out, imagePolicy(o))
		case "kyverno.io/ClusterPolicy", "kyverno.io/Policy":
			out = append(out, kyverno(inv, o)...)
		case "policies.kyverno.io/ImageValidatingPolicy":
			out = append(out, imageValidating(o))
		case "policy.sigstore.dev/ClusterImagePolicy":
			out = append(out, clusterImagePolicy(o))
		case "constraints.gatekeeper.sh/RatifyVerification":
			out = append(out, ratify(inv, o))
		case "admissionregistration.k8s.io/MutatingWebhookConfiguration":
			if strings.HasPrefix(o.GetName(), "connaisseur") {
				out = append(out, demand{by: o.Subject().String(), images: everything, doubt: "Connaisseur guards admission, and what it demands stands in its own configuration"})
			}
		}
	}
	return out
}

// demanded returns the object that demands a signature of a container's image,
// else why that is not known of an object that may.
func (im *Images) demanded(c *container) (by, doubt string) {
	ns := im.inv.NamespaceOf(c.workload.Object)
	if im.exposure(c.workload) == finding.System {
		return "", "" // left out by all of these controllers unless told otherwise
	}
	for _, d := range im.demands {
		if d.namespace != "" && d.namespace != ns || len(d.namespaces) > 0 && !matchesAny(globs(d.namespaces), []string{ns}) || !d.covers(c.image) {
			continue
		}
		reason := d.doubt
		if reason == "" && d.selector != nil {
			reason = im.selected(ns, d.selector)
		}
		if reason == "" {
			return d.by, ""
		}
		doubt = d.by + ": " + reason
	}
	return "", doubt
}

// selected returns why a namespace may not be selected by its labels, or "".
func (im *Images) selected(ns string, selector labels.Selector) string {
	set := labels.Set{corev1.LabelMetadataName: ns} // as the API server sets it
	o := im.inv.Get("", "Namespace", "", ns)
	if o != nil {
		set = labels.Merge(o.GetLabels(), set)
	}
	switch {
	case o == nil && !onlyNames(selector):
		return "the labels of its namespace are not known, which must be " + selector.String()
	case !selector.Matches(set):
		return "the labels of its namespace are not " + selector.String()
	}
	return ""
}

// onlyNames reports whether a selector of namespaces asks for nothing but their
// names.
func onlyNames(selector labels.Selector) bool {
	requirements, _ := selector.Requirements()
	return !slices.ContainsFunc(requirements, func(r labels.Requirement) bool { return r.Key() != corev1.LabelMetadataName })
}

// covers reports whether a rule is about an image, however its name is written.
func (d *demand) covers(image evidence.Reference) bool {
	names := []string{image.Name, image.String()}
	if rest, ok := strings.CutPrefix(image.Name, "docker.io/"); ok {
		full := strings.TrimPrefix(image.String(), "docker.io/")
		names = append(names, "index.docker.io/"+rest, "index.docker.io/"+full)
	}
	return matchesAny(d.images, names) && !matchesAny(d.except, names)
}

func matchesAny(patterns []*regexp.Regexp, names []string) bool {
	return slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool { return slices.ContainsFunc(names, p.MatchString) })
}

var everything = []*regexp.Regexp{regexp.MustCompile("")}

// globs compiles patterns in which * stands for anything and ? for one letter.
func globs(patterns []string) []*regexp.Regexp {
	var out []*regexp.Regexp
	for _, p := range patterns {
		expr := strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(p))
		if compiled, err := regexp.Compile("^" + expr + "$"); err == nil {
			out = append(out, compiled)
		}
	}
	return out
}

// slashGlobs compiles patterns in which ** stands for anything, and * for
// anything but a slash.
func slashGlobs(patterns []string) []*regexp.Regexp {
	var out []*regexp.Regexp
	for _, p := range patterns {
		expr := strings.NewReplacer(`\*\*`, ".*", `\*`, "[^/]*").Replace(regexp.QuoteMeta(p))
		if compiled, err := regexp.Compile("^" + expr + "$"); err == nil {
			out = append(out, compiled)
		}
	}
	return out
}

// kyverno reads the rules with verifyImages of a policy of Kyverno.
func kyverno(inv *inventory.Inventory, o *inventory.Object) []demand {
	var out []demand
	spec, _ := o.Object["spec"].(map[string]any)
	for _, rule := range list(spec["rules"]) {
		namespaces, doubt := matched(rule)
		for _, verify := range list(rule["verifyImages"]) {
			d := demand{
				by: o.Subject().String(), namespaces: namespaces, doubt: doubt,
				images: globs(append(texts(verify["imageReferences"]), texts(verify["image"])...)),
				except: globs(texts(verify["skipImageReferences"])),
			}
			if o.GetKind() == "Policy" {
				d.namespace = inv.NamespaceOf(o)
			}
			action := text(verify, "failureAction")
			if action == "" {
				action = text(spec, "validationFailureAction")
			}
			switch {
			case !strings.EqualFold(action, "Enforce"):
				d.doubt = "it only audits"
			case verify["required"] == false:
				d.doubt = "it does not require a signature"
			case len(list(verify["attestors"]))+len(list(verify["attestations"])) == 0 && verify["key"] == nil:
				d.doubt = "it names nobody whose signature counts"
			}
			out = append(out, d)
		}
	}
	return out
}

// matched reads which pods a rule is for; what narrows it further than to
// namespaces is not understood.
func matched(rule map[string]any) (namespaces []string, doubt string) {
	match, _ := rule["match"].(map[string]any)
	filters := append(list(match["any"]), list(match["all"])...)
	if resources := match["resources"]; resources != nil {
		filters = append(filters, map[string]any{"resources": resources})
	}
	switch {
	case rule["exclude"] != nil || rule["preconditions"] != nil || rule["celPreconditions"] != nil:
		return nil, "it leaves some pods out"
	case len(filters) != 1:
		return nil, "it selects pods by several conditions"
	}
	resources, _ := filters[0]["resources"].(map[string]any)
	isPod := func(kind string) bool { return kind == "*" || kind == "Pod" || strings.HasSuffix(kind, "/Pod") }
	if !slices.ContainsFunc(texts(resources["kinds"]), isPod) {
		return nil, "it is not for pods"
	}
	for _, key := range slices.Sorted(maps.Keys(resources)) {
		if key != "kinds" && key != "namespaces" {
			return nil, "it selects pods by " + key
		}
	}
	return texts(resources["namespaces"]), ""
}

// imageRules returns the rules of Kyverno that verify images, as "policy/rule".
func (im *Images) imageRules() map[string]bool {
	out := map[string]bool{}
	for _, kind := range []string{"ClusterPolicy", "Policy"} {
		for _, o := range im.inv.Kind("kyverno.io", kind) {
			for _, rule := range mappings(o, "spec", "rules") {
				if rule["verifyImages"] == nil {
					continue
				}
				out[o.GetName()+"/"+text(rule, "name")] = true
				out[o.GetName()+"/autogen-"+text(rule, "name")] = true
				out[o.GetName()+"/autogen-cronjob-"+text(rule, "name")] = true
			}
		}
	}
	return out
}

// imageValidating reads an ImageValidatingPolicy of Kyverno.
func imageValidating(o *inventory.Object) demand {
	spec, _ := o.Object["spec"].(map[string]any)
	d := demand{by: o.Subject().String()}
	for _, m := range list(spec["matchImageReferences"]) {
		if glob := text(m, "glob"); glob != "" {
			d.images = append(d.images, globs([]string{glob})...)
			continue
		}
		d.images, d.doubt = everything, "it selects images by an expression"
	}
	constraints, _ := spec["matchConstraints"].(map[string]any)
	switch {
	case !slices.Contains(texts(spec["validationActions"]), "Deny"):
		d.doubt = "it does not deny"
	case len(list(spec["attestors"])) == 0 || len(list(spec["validations"])) == 0:
		d.doubt = "it names nobody whose signature counts"
	case len(list(spec["matchConditions"])) > 0 || constraints["namespaceSelector"] != nil || constraints["objectSelector"] != nil:
		d.doubt = "it leaves some pods out"
	}
	return d
}

// clusterImagePolicy reads a policy of sigstore's policy-controller, which looks
// at the namespaces that ask for it.
func clusterImagePolicy(o *inventory.Object) demand {
	spec, _ := o.Object["spec"].(map[string]any)
	d := demand{by: o.Subject().String(), selector: labels.SelectorFromSet(labels.Set{"policy.sigstore.dev/include": "true"})}
	for _, image := range list(spec["images"]) {
		d.images = append(d.images, slashGlobs([]string{text(image, "glob")})...)
	}
	switch {
	case text(spec, "mode") == "warn":
		d.doubt = "it only warns"
	case len(list(spec["match"])) > 0:
		d.doubt = "it is for some kinds of object only"
	case len(list(spec["authorities"])) == 0:
		d.doubt = "it names nobody whose signature counts"
	}
	for _, authority := range list(spec["authorities"]) {
		if static, ok := authority["static"].(map[string]any); ok && text(static, "action") == "pass" {
			d.doubt = "it lets images pass without a signature"
		}
	}
	return d
}

// ratify reads the constraint by which Gatekeeper asks Ratify, which needs a
// Verifier of signatures.
func ratify(inv *inventory.Inventory, o *inventory.Object) demand {
	spec, _ := o.Object["spec"].(map[string]any)
	match, _ := spec["match"].(map[string]any)
	d := demand{by: o.Subject().String(), images: everything, namespaces: texts(match["namespaces"])}
	verifier := slices.ContainsFunc(slices.Concat(inv.Kind("config.ratify.deislabs.io", "Verifier"), inv.Kind("config.ratify.deislabs.io", "NamespacedVerifier")),
		func(v *inventory.Object) bool {
			s, _ := v.Object["spec"].(map[string]any)
			return text(s, "name") == "notation" || text(s, "name") == "cosign"
		})
	action := text(spec, "enforcementAction")
	switch {
	case action != "" && action != "deny":
		d.doubt = "it does not deny"
	case !verifier:
		d.doubt = "no Verifier of signatures is in the input"
	}
	for _, key := range slices.Sorted(maps.Keys(match)) {
		if key != "kinds" && key != "namespaces" {
			d.doubt = "it selects pods by " + key
		}
	}
	return d
}

// texts returns the texts in a list, or the text that v is.
func texts(v any) []string {
	if s, ok := v.(string); ok {
		return []string{s}
	}
	items, _ := v.([]any)
	var out []string
	for _, item := range items {
		if s, ok := item.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

func groupOf(apiVersion string) string {
	group, _, ok := strings.Cut(apiVersion, "/")
	if !ok {
		return ""
	}
	return group
}
