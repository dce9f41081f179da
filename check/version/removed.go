package version

import (
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// lastApplied is the annotation in which kubectl keeps what was applied.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// Removed says for each object of Kubernetes whether the API version that it is
// written in is served by the next minor of Kubernetes. Where the version of
// the API server is not known, that is the minor after the newest this program
// knows. The API server hands out a live object in the version asked for, so
// that only what kubectl applied shows what its authors wrote.
func Removed(inv *inventory.Inventory) []finding.Verdict {
	next := nextMinor(inv.ServerVersion())
	var out []finding.Verdict
	for _, o := range inv.Objects() {
		gvk := o.GroupVersionKind()
		if inv.Origin == inventory.Cluster {
			gvk = applied(o)
		}
		in, known := removedIn(gvk)
		if !known {
			continue
		}
		f := finding.Verdict{Status: finding.Pass, Subject: o.Subject()}
		if in != nil && !next.LessThan(in) {
			f.Status = finding.Fail
			f.Message = fmt.Sprintf("%s of %s is not served from Kubernetes %s on", gvk.Kind, gvk.GroupVersion(), minor(in))
			f.Evidence = "apiVersion: " + gvk.GroupVersion().String()
		}
		out = append(out, f)
	}
	if len(out) == 0 && inv.Origin == inventory.Cluster {
		return []finding.Verdict{{
			Status: finding.Unknown, Subject: finding.Subject{Kind: "Cluster"},
			Reason: "no live object shows the version it was written in: scan the manifests",
		}}
	}
	return out
}

func nextMinor(server *version.Version) *version.Version {
	if server == nil {
		releases := tables().Kubernetes
		server = version.MustParseGeneric(releases[len(releases)-1].Minor)
	}
	return version.MajorMinor(server.Major(), server.Minor()+1)
}

// applied returns the kind and version that kubectl applied, or nothing.
func applied(o *inventory.Object) schema.GroupVersionKind {
	var head struct{ APIVersion, Kind string }
	if json.Unmarshal([]byte(o.GetAnnotations()[lastApplied]), &head) != nil {
		return schema.GroupVersionKind{}
	}
	return schema.FromAPIVersionAndKind(head.APIVersion, head.Kind)
}

// removedIn returns the minor that no longer serves a kind, nil for none, and
// whether the kind is one of Kubernetes.
func removedIn(gvk schema.GroupVersionKind) (in *version.Version, known bool) {
	for _, r := range tables().Removed {
		if r.APIVersion == gvk.GroupVersion().String() && r.Kind == gvk.Kind {
			return version.MustParseGeneric(r.In), true
		}
	}
	object, err := scheme.Scheme.New(gvk)
	if err != nil {
		return nil, false
	}
	if ends, ok := object.(interface{ APILifecycleRemoved() (major, minor int) }); ok {
		major, minor := ends.APILifecycleRemoved()
		return version.MajorMinor(uint(major), uint(minor)), true
	}
	return nil, true
}
