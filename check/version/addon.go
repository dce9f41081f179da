package version

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// Addons says for each workload whether it is an add-on of the cluster that
// nobody mends, or that has a known critical flaw.
func Addons(inv *inventory.Inventory, now time.Time) []finding.Verdict {
	var out []finding.Verdict
	for _, w := range inv.Workloads() {
		f := finding.Verdict{Status: finding.NotApplicable, Reason: "none of its images is of an add-on that this program knows"}
		for _, c := range slices.Concat(w.Template.Spec.Containers, w.Template.Spec.InitContainers) {
			if a := addonOf(c.Image); a != nil {
				if g := a.judge(c, now); order(g.Status) > order(f.Status) {
					f = g
				}
			}
		}
		f.Subject = w.Subject()
		out = append(out, f)
	}
	return out
}

func order(s finding.Status) int {
	return slices.Index([]finding.Status{finding.NotApplicable, finding.Pass, finding.Unknown, finding.Fail}, s)
}

// addonOf returns the add-on that an image is of, or nil.
func addonOf(image string) *addon {
	repository, _ := split(image)
	for i, a := range tables().Addons {
		for _, name := range a.Images {
			if repository == name || strings.HasSuffix(repository, "/"+name) {
				return &tables().Addons[i]
			}
		}
	}
	return nil
}

// split returns the repository and the tag of an image.
func split(image string) (repository, tag string) {
	image, _, _ = strings.Cut(image, "@")
	if at := strings.LastIndex(image, ":"); at > strings.LastIndex(image, "/") {
		return image[:at], image[at+1:]
	}
	return image, ""
}

func (a *addon) judge(c corev1.Container, now time.Time) finding.Verdict {
	if !a.Ended.IsZero() && now.After(a.Ended) {
		return finding.Verdict{
			Status: finding.Fail, Message: fmt.Sprintf("%s has been without security fixes since %s", a.Name, a.Ended.Format(time.DateOnly)),
			Evidence: "image " + c.Image + "; " + a.Source,
		}
	}
	_, tag := split(c.Image)
	v, err := version.ParseGeneric(tag)
	if err != nil {
		return finding.Verdict{Status: finding.Unknown, Reason: fmt.Sprintf("the image %s does not show the version of %s", cmp.Or(c.Image, "without name"), a.Name)}
	}
	for _, f := range a.CVEs {
		if f.in(v) {
			return finding.Verdict{
				Status: finding.Fail, Message: fmt.Sprintf("%s %s has a critical flaw: %s", a.Name, tag, f.CVE),
				Evidence: "fixed in " + strings.Join(f.Fixed, ", ") + "; " + f.Source,
			}
		}
	}
	return finding.Verdict{Status: finding.Pass, Evidence: a.Name + " " + tag}
}
