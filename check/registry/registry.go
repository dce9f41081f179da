// Package registry says which images come from registries that are allowed.
package registry

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// Allowed says for each workload whether all its images, those of volumes
// included, come from the registries on the allow lists among the evidence.
func Allowed(inv *inventory.Inventory, set *evidence.Set) []finding.Verdict {
	var allow []string
	for _, list := range set.Registries {
		allow = append(allow, list.Allow...)
	}
	var out []finding.Verdict
	for _, w := range inv.Workloads() {
		f, containers := judge(&w.Template.Spec, allow)
		f.Subject = w.Subject()
		f.Subject.Container = strings.Join(containers, ",")
		out = append(out, f)
	}
	return out
}

// judge also returns the containers that a failure speaks of.
func judge(spec *corev1.PodSpec, allow []string) (finding.Verdict, []string) {
	if len(allow) == 0 {
		return finding.Verdict{Status: finding.Unknown, Reason: "no allow list: name the registries that you trust under allow in a file with apiVersion " +
			evidence.RegistriesVersion + ", and give it by --evidence"}, nil
	}
	var strangers, containers, without []string
	for _, image := range images(spec) {
		switch {
		case image.reference == "":
			without = append(without, image.of)
		case !slices.ContainsFunc(allow, func(prefix string) bool { return covers(prefix, Repository(image.reference)) }):
			strangers = append(strangers, image.reference)
			if image.container {
				containers = append(containers, image.of)
			}
		}
	}
	switch {
	case len(strangers) > 0:
		slices.Sort(strangers)
		return finding.Verdict{
			Status:   finding.Fail,
			Message:  "images from registries outside the allow list: " + strings.Join(slices.Compact(strangers), ", "),
			Evidence: "allowed are " + strings.Join(allow[:min(len(allow), 10)], ", "),
		}, containers
	case len(without) > 0:
		return finding.Verdict{Status: finding.Unknown, Reason: fmt.Sprintf("no image is given for %s", strings.Join(without, ", "))}, nil
	}
	return finding.Verdict{Status: finding.Pass}, nil
}

// An image is what a container or a volume of a pod is made of.
type image struct {
	of, reference string
	container     bool
}

func images(spec *corev1.PodSpec) []image {
	var out []image
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		out = append(out, image{c.Name, c.Image, true})
	}
	for _, c := range spec.EphemeralContainers {
		out = append(out, image{c.Name, c.Image, true})
	}
	for _, v := range spec.Volumes {
		if v.Image != nil {
			out = append(out, image{"volume " + v.Name, v.Image.Reference, false})
		}
	}
	return out
}

// Repository returns where a reference to an image points: the registry and the
// repository in it, spelled out as a container runtime does it. The first part
// of a reference is a registry only if it looks like a host.
func Repository(reference string) string {
	name, _, _ := strings.Cut(reference, "@")
	if tag := strings.LastIndexByte(name, ':'); tag > strings.LastIndexByte(name, '/') {
		name = name[:tag]
	}
	host, path, ok := strings.Cut(name, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" && host == strings.ToLower(host) {
		host, path = "docker.io", name
	}
	host = strings.ToLower(host)
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		host = "docker.io"
	}
	if host == "docker.io" && !strings.Contains(path, "/") {
		path = "library/" + path
	}
	return host + "/" + path
}

// covers reports whether a repository is at or under a prefix. A prefix ends
// with a whole part of the path: ghcr.io/example does not cover
// ghcr.io/example-of-mine/app.
func covers(prefix, repository string) bool {
	if domain, ok := strings.CutPrefix(prefix, "*."); ok {
		host, path, _ := strings.Cut(repository, "/")
		wanted, under, _ := strings.Cut(domain, "/")
		if !strings.HasSuffix(host, "."+wanted) {
			return false
		}
		return under == "" || strings.HasPrefix(path+"/", under+"/")
	}
	return strings.HasPrefix(repository+"/", prefix+"/")
}
