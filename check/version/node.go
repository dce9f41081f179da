package version

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// maxSkew is by how many minors a kubelet may lag behind the API server.
// Source: https://kubernetes.io/releases/version-skew-policy/
const maxSkew = 3

// Nodes says for each node whether its Kubernetes is still mended and fits the
// API server.
func Nodes(inv *inventory.Inventory, now time.Time) []finding.Verdict {
	return each(inv, func(o *inventory.Object) finding.Verdict {
		text := info(o, "kubeletVersion")
		kubelet, err := version.ParseGeneric(text)
		if err != nil {
			return finding.Verdict{Status: finding.Unknown, Reason: "the node reports no version of its kubelet"}
		}
		f := skew(kubelet, inv.ServerVersion(), inv.ServerAtLeast())
		if f.Status != finding.Fail {
			if g := supported(kubelet, text, now); g.Status != finding.Pass || f.Status == finding.Pass {
				f = g
			}
		}
		if f.Evidence == "" && f.Status != finding.Unknown {
			f.Evidence = "kubelet " + text
		}
		return f
	})
}

func each(inv *inventory.Inventory, judge func(*inventory.Object) finding.Verdict) []finding.Verdict {
	var out []finding.Verdict
	for _, o := range inv.Kind("", "Node") {
		f := judge(o)
		f.Subject = o.Subject()
		out = append(out, f)
	}
	return out
}

func info(o *inventory.Object, field string) string {
	s, _, _ := unstructured.NestedString(o.Object, "status", "nodeInfo", field)
	return s
}

// skew compares a kubelet with the API server, whose version may be known only
// from below.
func skew(kubelet, server, atLeast *version.Version) finding.Verdict {
	known := server != nil
	if !known {
		server = atLeast
	}
	evidence := fmt.Sprintf("kubelet %s, API server %s", minor(kubelet), minor(server))
	switch behind := int(server.Minor()) - int(kubelet.Minor()); {
	case behind > maxSkew:
		return finding.Verdict{Status: finding.Fail, Message: fmt.Sprintf("its kubelet is %d minors behind the API server; %d are supported", behind, maxSkew), Evidence: evidence}
	case behind < 0:
		return finding.Verdict{Status: finding.Fail, Message: "its kubelet is newer than the API server", Evidence: evidence}
	case !known:
		return finding.Verdict{Status: finding.Unknown, Reason: "the version of the API server is not known"}
	}
	return finding.Verdict{Status: finding.Pass}
}

func minor(v *version.Version) string { return fmt.Sprintf("%d.%d", v.Major(), v.Minor()) }

// supported says whether a release of Kubernetes is still mended. Some
// providers mend theirs for longer.
func supported(v *version.Version, text string, now time.Time) finding.Verdict {
	releases := tables().Kubernetes
	newest := version.MustParseGeneric(releases[len(releases)-1].Minor)
	if newest.LessThan(version.MajorMinor(v.Major(), v.Minor())) {
		return finding.Verdict{Status: finding.Pass, Evidence: "Kubernetes " + minor(v) + " is newer than all that this program knows of"}
	}
	end := time.Time{}
	for _, r := range releases {
		if r.Minor == minor(v) {
			end = r.End
		}
	}
	switch {
	case now.Before(end.AddDate(0, 0, 1)):
		return finding.Verdict{Status: finding.Pass}
	case strings.Contains(text, "-eks-") || strings.Contains(text, "-gke."):
		return finding.Verdict{Status: finding.Unknown, Reason: "Kubernetes " + minor(v) + " is no longer mended by the project; attest that your provider still does"}
	}
	message := "Kubernetes " + minor(v) + " is no longer mended"
	if !end.IsZero() {
		message += " since " + end.Format(time.DateOnly)
	}
	return finding.Verdict{Status: finding.Fail, Message: message}
}

// Runtimes says for each node whether its container runtime has a known escape.
// The API does not show the version of runc, which runtimes call.
func Runtimes(inv *inventory.Inventory) []finding.Verdict {
	return each(inv, func(o *inventory.Object) finding.Verdict {
		name, text, ok := strings.Cut(info(o, "containerRuntimeVersion"), "://")
		v, err := version.ParseGeneric(text)
		if !ok || err != nil {
			return finding.Verdict{Status: finding.Unknown, Reason: "the node reports no version of its container runtime"}
		}
		known := false
		for _, f := range tables().Runtimes {
			known = known || f.Name == name
			if f.Name == name && f.in(v) {
				return finding.Verdict{
					Status: finding.Fail, Message: fmt.Sprintf("%s %s lets containers escape: %s", name, text, f.CVE),
					Evidence: "fixed in " + strings.Join(f.Fixed, ", ") + "; " + f.Source,
				}
			}
		}
		if !known {
			return finding.Verdict{Status: finding.Unknown, Reason: "no escapes of the runtime " + name + " are recorded; attest its version"}
		}
		return finding.Verdict{Status: finding.Pass, Evidence: name + " " + text + "; the API does not show the version of runc"}
	})
}
