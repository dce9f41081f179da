package inventory

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/finding"
)

const (
	maxErrors     = 100  // errors that are reported one by one
	maxUnreadable = 1000 // parts that are told apart
)

// fileKind is the kind of an unreadable subject of which no more is known.
const fileKind = "File"

// An Unreadable is a part of the input that could not be read or rendered.
// Whatever it may hold is unknown.
type Unreadable struct {
	Subject finding.Subject // the object, if that much could be read, else of kind File
	Reason  string
	AtMost  int // objects that it may hold, 1 or more; 0 if there is no telling
}

// MayHold reports whether the part may hold an object of this kind.
func (u Unreadable) MayHold(gk schema.GroupKind) bool {
	return u.Subject.Kind == fileKind || schema.FromAPIVersionAndKind(u.Subject.APIVersion, u.Subject.Kind).GroupKind() == gk
}

// fail keeps errors that make a file unreadable of which nothing is known.
func (r *reader) fail(file string, errs ...error) { r.failPart(file, 0, errs...) }

// failPart keeps errors that make a part of a file unreadable that is not even
// known to be an object.
func (r *reader) failPart(place string, atMost int, errs ...error) {
	r.hide(finding.Subject{Kind: fileKind, Source: place}, atMost, errs...)
}

// hide keeps errors that make a subject unreadable. A subject counts once, with
// the first of its errors.
func (r *reader) hide(s finding.Subject, atMost int, errs ...error) {
	r.report(errs...)
	if r.unread[s] || len(errs) == 0 {
		return
	}
	switch len(r.unreadable) {
	case maxUnreadable:
		s, errs, atMost = finding.Subject{Kind: fileKind}, []error{fmt.Errorf("more than %d parts of the input", maxUnreadable)}, 0
	case maxUnreadable + 1:
		return
	}
	r.unread[s] = true
	reason, _, _ := strings.Cut(errs[0].Error(), "\n")
	r.unreadable = append(r.unreadable, Unreadable{s, "could not be read: " + reason, atMost})
}

// report keeps errors that hide nothing that could be judged.
func (r *reader) report(errs ...error) {
	for _, err := range errs {
		if len(r.errs) < maxErrors {
			r.errs = append(r.errs, err)
		} else {
			r.more++
		}
	}
}

func (r *reader) err() error {
	if r.more > 0 {
		return errors.Join(append(r.errs, fmt.Errorf("and %d more errors", r.more))...)
	}
	return errors.Join(r.errs...)
}

// dropHollow takes out workloads without containers, which would pass all that
// is said of containers. The API server refuses them.
func (r *reader) dropHollow(inv *Inventory) {
	hollow := map[*Object]bool{}
	for _, w := range inv.Workloads() {
		if len(w.Template.Spec.Containers) == 0 {
			hollow[w.Object] = true
			r.hide(w.Subject(), 1, fmt.Errorf("%s: %s makes pods without containers", w.Source, w.Subject()))
		}
	}
	r.objects = slices.DeleteFunc(r.objects, func(o *Object) bool { return hollow[o] })
}
