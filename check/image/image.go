// Package image says what scanners, SBOMs, signatures and provenance show of the
// images that workloads run.
//
// What was seen of an image counts for a container that runs it: by digest, or
// by the same name and tag where one of the two sides has no digest. A tag can
// be pushed again, so that is the weaker evidence, and findings say so. A
// report on another digest behind the same tag is of another image.
//
// What a digest holds, who built it and who signed it never changes: such
// evidence does not age. What is known of weaknesses does, and ages.
package image

import (
	"cmp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// Images are the images of the workloads of one inventory, with what is known
// of them. It is safe for concurrent use.
type Images struct {
	inv      *inventory.Inventory
	set      *evidence.Set
	exposure func(*inventory.Workload) finding.Exposure
	now      time.Time

	byDigest    map[string][]*evidence.ImageReport
	byTag       map[string][]*evidence.ImageReport
	provenances map[string][]*evidence.Provenance // by digest
	signatures  map[string][]*evidence.Signature  // by digest
	running     map[runs]map[string]bool          // digests
	known       map[string]*knowledge             // by image and digests
	containers  map[*inventory.Workload][]*container
	demands     []demand // of signatures, by admission
}

// A runs is a container of a workload with the image that it asks for.
type runs struct {
	workload        *inventory.Workload
	container, from string
}

// A container is one of a workload, whether it starts, runs or debugs.
type container struct {
	workload *inventory.Workload
	name     string
	image    evidence.Reference
	context  *corev1.SecurityContext
	digests  []string // asked for, or seen to run
	*knowledge
}

// A knowledge is what is known of an image. Containers of the same image share
// it: a cluster has many of them.
type knowledge struct {
	reports []report // newest first
	other   string   // the source of a report on another image of the same tag
	facts   facts    // of the scans
}

// A report is one on a container's image.
type report struct {
	*evidence.ImageReport
	tagOnly bool // the digests could not be compared
}

// New joins the workloads of inv with the evidence of set, which may be nil.
// exposure says from where a workload can be reached.
func New(inv *inventory.Inventory, set *evidence.Set, exposure func(*inventory.Workload) finding.Exposure, now time.Time) *Images {
	if set == nil {
		set = &evidence.Set{}
	}
	im := &Images{
		inv: inv, set: set, exposure: exposure, now: now,
		byDigest: map[string][]*evidence.ImageReport{}, byTag: map[string][]*evidence.ImageReport{},
		provenances: map[string][]*evidence.Provenance{}, signatures: map[string][]*evidence.Signature{},
		known: map[string]*knowledge{}, containers: map[*inventory.Workload][]*container{},
		running: running(inv), demands: demandsOf(inv),
	}
	im.index()
	for _, w := range inv.Workloads() {
		im.containers[w] = im.containersOf(w)
	}
	return im
}

func (im *Images) index() {
	for i := range im.set.Images {
		r := &im.set.Images[i]
		for _, digest := range append(unique(r.Digests), r.ID) {
			im.byDigest[digest] = append(im.byDigest[digest], r)
		}
		var tags []string
		for _, ref := range r.Refs {
			if p := evidence.ParseReference(ref); p.Tag != "" {
				tags = append(tags, p.Name+":"+p.Tag)
			}
		}
		for _, tag := range unique(tags) {
			im.byTag[tag] = append(im.byTag[tag], r)
		}
	}
	for i := range im.set.Provenances {
		p := &im.set.Provenances[i]
		for _, digest := range unique(p.Digests) {
			im.provenances[digest] = append(im.provenances[digest], p)
		}
	}
	for i := range im.set.Signatures {
		s := &im.set.Signatures[i]
		im.signatures[s.Digest] = append(im.signatures[s.Digest], s)
	}
}

func unique(s []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(s)))
}

// running returns the digests of the images that the pods of a cluster run.
func running(inv *inventory.Inventory) map[runs]map[string]bool {
	out := map[runs]map[string]bool{}
	for _, pod := range inv.Kind("", "Pod") {
		w := inv.Owner(pod)
		if w == nil {
			continue
		}
		asked := map[string]string{}
		for _, list := range []string{"initContainers", "containers", "ephemeralContainers"} {
			for _, c := range mappings(pod, "spec", list) {
				asked[text(c, "name")] = text(c, "image")
			}
		}
		for _, list := range []string{"initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"} {
			for _, c := range mappings(pod, "status", list) {
				key := runs{w, text(c, "name"), asked[text(c, "name")]}
				digest := evidence.ParseReference(text(c, "imageID")).Digest
				if digest == "" {
					continue
				}
				if out[key] == nil {
					out[key] = map[string]bool{}
				}
				out[key][digest] = true
			}
		}
	}
	return out
}

func mappings(o *inventory.Object, path ...string) []map[string]any {
	value, _, _ := unstructured.NestedFieldNoCopy(o.Object, path...)
	return list(value)
}

// list returns the mappings in a list.
func list(v any) []map[string]any {
	items, _ := v.([]any)
	var out []map[string]any
	for _, item := range items {
		if m, ok := item.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}

func text(m map[string]any, key string) string {
	s, _ := m[key].(string)
	return s
}

func (im *Images) containersOf(w *inventory.Workload) []*container {
	var out []*container
	add := func(name, image string, context *corev1.SecurityContext) {
		c := &container{workload: w, name: name, image: evidence.ParseReference(image), context: context}
		if c.image.Digest != "" {
			c.digests = []string{c.image.Digest}
		} else {
			for digest := range im.running[runs{w, name, image}] {
				c.digests = append(c.digests, digest)
			}
			slices.Sort(c.digests)
		}
		im.match(c)
		out = append(out, c)
	}
	spec := w.Template.Spec
	for _, c := range spec.InitContainers {
		add(c.Name, c.Image, c.SecurityContext)
	}
	for _, c := range spec.Containers {
		add(c.Name, c.Image, c.SecurityContext)
	}
	for _, c := range spec.EphemeralContainers {
		add(c.Name, c.Image, c.SecurityContext)
	}
	return out
}

// match gives a container what is known of its image.
func (im *Images) match(c *container) {
	key := c.image.String() + " " + strings.Join(c.digests, " ")
	c.knowledge = im.known[key]
	if c.knowledge == nil {
		c.knowledge = im.learn(c.image, c.digests)
		im.known[key] = c.knowledge
	}
}

// learn finds the reports on an image: those of its digests, and if there are
// none those of its tag that do not contradict them.
func (im *Images) learn(image evidence.Reference, digests []string) *knowledge {
	k := &knowledge{}
	seen := map[*evidence.ImageReport]bool{}
	for _, digest := range digests {
		for _, r := range im.byDigest[digest] {
			if !seen[r] {
				seen[r] = true
				k.reports = append(k.reports, report{r, false})
			}
		}
	}
	if len(k.reports) == 0 && image.Tag != "" {
		for _, r := range im.byTag[image.Name+":"+image.Tag] {
			if len(digests) > 0 && len(r.Digests) > 0 {
				k.other = r.Source
				continue
			}
			k.reports = append(k.reports, report{r, true})
		}
	}
	slices.SortStableFunc(k.reports, func(a, b report) int {
		return cmp.Or(b.SeenAt.Compare(a.SeenAt), cmp.Compare(a.Source, b.Source))
	})
	k.reports = current(k.reports)
	k.facts = factsOf(k.of(scanned))
	return k
}

// current leaves out reports on images that stood behind a tag before: what the
// newest report speaks of is what the tag points to.
func current(reports []report) []report {
	newest := slices.IndexFunc(reports, func(r report) bool { return r.tagOnly && len(r.Digests) > 0 })
	if newest < 0 {
		return reports
	}
	digests := reports[newest].Digests
	return slices.DeleteFunc(reports, func(r report) bool {
		return r.tagOnly && len(r.Digests) > 0 && !slices.ContainsFunc(r.Digests, func(d string) bool { return slices.Contains(digests, d) })
	})
}

// of returns the newest report of each tool that has what is asked for.
func (k *knowledge) of(has func(report) bool) []report {
	var out []report
	tools := map[string]bool{}
	for _, r := range k.reports {
		name, _, _ := strings.Cut(r.Tool, " ")
		if has(r) && !tools[name] {
			tools[name] = true
			out = append(out, r)
		}
	}
	return out
}
