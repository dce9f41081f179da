package fix

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/fix/edit"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// digestForm is what a digest that may be written into a manifest looks like.
var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// pinned adds digests to images, if all of them are known.
func pinned(p *pod) (ops []edit.Op, err error) {
	for _, c := range p.named() {
		image, _ := c.fields["image"].(string)
		if strings.Contains(image, "@") {
			return nil, fmt.Errorf("%s has a digest that is none", image)
		}
		digest, ok := p.digest(image)
		if !ok {
			return nil, fmt.Errorf("%w: the digest of %s", errValue, image)
		}
		ops = append(ops, edit.Set(image+"@"+digest, c.at("image")...))
	}
	return ops, nil
}

// pulled has images that can change pulled each time.
func pulled(p *pod) (ops []edit.Op, err error) {
	for _, c := range p.named() {
		if image, _ := c.fields["image"].(string); strings.Contains(image, "@") {
			continue
		}
		op := edit.Set("Always", c.at("imagePullPolicy")...)
		op.After = "image"
		ops = append(ops, op)
	}
	return ops, nil
}

// digest returns the digest of an image that evidence or another manifest
// gives.
func (j *job) digest(image string) (string, bool) {
	if digest := seen(j.in.Evidence, image, j.in.Now); digest != "" {
		return digest, true
	}
	digest := j.pins[image]
	return digest, digest != ""
}

// seen returns the digest that the newest report on an image gives it, if that
// is still good and gives one only.
func seen(set *evidence.Set, image string, now time.Time) string {
	if set == nil {
		return ""
	}
	wanted := evidence.ParseReference(image)
	var newest *evidence.ImageReport
	for i := range set.Images {
		r := &set.Images[i]
		about := slices.ContainsFunc(r.Refs, func(name string) bool {
			ref := evidence.ParseReference(name)
			return ref.Name == wanted.Name && ref.Tag == wanted.Tag
		})
		if about && len(r.Digests) > 0 && (newest == nil || r.SeenAt.After(newest.SeenAt)) {
			newest = r
		}
	}
	if newest == nil || len(newest.Digests) != 1 || now.Sub(newest.SeenAt) > newest.Kind.Lifetime() || !digestForm.MatchString(newest.Digests[0]) {
		return ""
	}
	return newest.Digests[0]
}

// pins returns the digests of the images that manifests pin with their tag, by
// the reference without the digest; "" where they disagree.
func pins(inv *inventory.Inventory) map[string]string {
	out := map[string]string{}
	for _, w := range inv.Workloads() {
		spec := w.Template.Spec
		for _, c := range append(spec.InitContainers, spec.Containers...) {
			image, digest, ok := strings.Cut(c.Image, "@")
			if !ok || !digestForm.MatchString(digest) || !strings.Contains(image[strings.LastIndexByte(image, '/')+1:], ":") {
				continue
			}
			if have, known := out[image]; known && have != digest {
				digest = ""
			}
			out[image] = digest
		}
	}
	return out
}
