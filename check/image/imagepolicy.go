package image

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubeguardian/kubeguardian/inventory"
)

// An imagePolicySpec is what an ImagePolicy of KubeGuardian says about whose
// signatures it demands. Its fields are those of docs/images.md.
type imagePolicySpec struct {
	FailurePolicy     string   `json:"failurePolicy"`
	ValidationActions []string `json:"validationActions"`
	Match             struct {
		NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector"`
		ObjectSelector    *metav1.LabelSelector `json:"objectSelector"`
		Images            []string              `json:"images"`
		ExcludeImages     []string              `json:"excludeImages"`
	} `json:"match"`
	Rules struct {
		RequiredSignatures *int `json:"requiredSignatures"`
	} `json:"rules"`
	Attestors    []any `json:"attestors"`
	Attestations []any `json:"attestations"`
}

// imagePolicy reads an ImagePolicy of KubeGuardian.
func imagePolicy(o *inventory.Object) demand {
	d := demand{by: o.Subject().String()}
	var policy struct {
		Spec imagePolicySpec `json:"spec"`
	}
	err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &policy)
	spec := policy.Spec
	if err == nil {
		d.selector, err = metav1.LabelSelectorAsSelector(cmp.Or(spec.Match.NamespaceSelector, &metav1.LabelSelector{}))
	}
	if err != nil {
		d.images, d.doubt = everything, "it cannot be read: "+err.Error()
		return d
	}
	d.images, d.except = repositories(spec.Match.Images), repositories(spec.Match.ExcludeImages)
	d.doubt = spec.doubt()
	return d
}

// doubt returns why a policy may let images without a signature in, or "".
func (s *imagePolicySpec) doubt() string {
	signed := s.Rules.RequiredSignatures == nil || *s.Rules.RequiredSignatures > 0 || len(s.Attestations) > 0
	pods := s.Match.ObjectSelector
	switch {
	case !slices.Contains(s.ValidationActions, "Deny"):
		return "it does not deny"
	case len(s.Attestors) == 0:
		return "it names nobody whose signature counts"
	case !signed:
		return "it does not require a signature"
	case cmp.Or(s.FailurePolicy, "Fail") != "Fail":
		return "it lets images in that cannot be verified"
	case pods != nil && len(pods.MatchLabels)+len(pods.MatchExpressions) > 0:
		return "it selects pods by labels"
	}
	return ""
}

// repositories compiles patterns of names in full, without tags and digests: *
// stands for any text without a slash, ** for any path.
func repositories(patterns []string) []*regexp.Regexp {
	var out []*regexp.Regexp
	for _, p := range patterns {
		host, path, ok := strings.Cut(p, "/")
		if !ok {
			if p == "**" {
				out = append(out, everything...)
			}
			continue // no pattern
		}
		if host = strings.ToLower(host); host == "index.docker.io" || host == "registry-1.docker.io" {
			host = "docker.io"
		}
		if host == "docker.io" && path != "**" && !strings.Contains(path, "/") {
			path = "library/" + path
		}
		expr := strings.NewReplacer(`\*\*`, ".*", `\*`, "[^/:@]*").Replace(regexp.QuoteMeta(host + "/" + path))
		if compiled, err := regexp.Compile("^" + expr + "$"); err == nil {
			out = append(out, compiled)
		}
	}
	return out
}
