package inventory

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	semver "k8s.io/apimachinery/pkg/util/version"
)

// ServerVersion returns the version of the API server: what a live cluster
// says, else that of the oldest kube-apiserver pod. It is nil if neither shows
// it, as in files.
func (inv *Inventory) ServerVersion() *semver.Version {
	if v, err := semver.ParseGeneric(inv.server); err == nil {
		return v
	}
	var oldest *semver.Version
	for _, w := range inv.workloads {
		if inv.Origin != Cluster || w.GetNamespace() != "kube-system" {
			continue
		}
		for _, c := range w.Template.Spec.Containers {
			if v := apiServer(c); v != nil && (oldest == nil || v.LessThan(oldest)) {
				oldest = v
			}
		}
	}
	return oldest
}

// apiServer returns the version of a container that is an API server, or nil.
func apiServer(c corev1.Container) *semver.Version {
	image, _, _ := strings.Cut(c.Image, "@")
	name, tag, _ := strings.Cut(image[strings.LastIndex(image, "/")+1:], ":")
	if name != "kube-apiserver" {
		return nil
	}
	v, err := semver.ParseGeneric(tag)
	if err != nil {
		return nil
	}
	return v
}

// ServerAtLeast returns the oldest version that the API server can have: its
// own where that is known, else the newest of the kubelets, which may not be
// newer than it. It is nil if neither is known.
func (inv *Inventory) ServerAtLeast() *semver.Version {
	if v := inv.ServerVersion(); v != nil {
		return v
	}
	var newest *semver.Version
	for _, o := range inv.Kind("", "Node") {
		text, _, _ := unstructured.NestedString(o.Object, "status", "nodeInfo", "kubeletVersion")
		if v, err := semver.ParseGeneric(text); err == nil && (newest == nil || newest.LessThan(v)) {
			newest = v
		}
	}
	return newest
}
