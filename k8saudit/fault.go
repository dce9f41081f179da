package k8saudit

import (
	"errors"
	"fmt"
)

// Faults counts what was not taken as it came, by cause.
type Faults struct {
	JSON    uint64 // not JSON
	Event   uint64 // JSON, but no audit event
	Depth   uint64 // nested too deep: without its bodies, or lost
	Size    uint64 // too large: without its bodies, or lost
	Cut     uint64 // cut short on the way, and lost
	Bodies  uint64 // without its bodies since the API server left them out
	Foreign uint64 // of another log that shares the transport; no loss
}

// ByCause returns the counts under the names that metrics have them by.
func (f Faults) ByCause() map[string]uint64 {
	return map[string]uint64{"json": f.JSON, "event": f.Event, "depth": f.Depth, "size": f.Size, "cut": f.Cut, "bodies": f.Bodies, "foreign": f.Foreign}
}

// Malformed is how many items were lost, or lost something here or on the way.
func (f Faults) Malformed() uint64 { return f.JSON + f.Event + f.Depth + f.Size + f.Cut }

// Plus returns the sum of two counts.
func (f Faults) Plus(g Faults) Faults {
	return Faults{f.JSON + g.JSON, f.Event + g.Event, f.Depth + g.Depth, f.Size + g.Size, f.Cut + g.Cut, f.Bodies + g.Bodies, f.Foreign + g.Foreign}
}

func (f *Faults) count(err error) {
	cause := causeEvent
	var known *fault
	if errors.As(err, &known) {
		cause = known.cause
	}
	switch cause {
	case causeJSON:
		f.JSON++
	case causeDepth:
		f.Depth++
	case causeSize:
		f.Size++
	case causeCut:
		f.Cut++
	case causeBodies:
		f.Bodies++
	case causeForeign:
		f.Foreign++
	default:
		f.Event++
	}
}

type cause uint8

const (
	causeEvent cause = iota
	causeJSON
	causeDepth
	causeSize
	causeCut
	causeBodies
	causeForeign
)

// A fault is why something was not taken as it came. Any other error means that
// it is no audit event.
type fault struct {
	cause cause
	text  string
}

func (f *fault) Error() string { return f.text }

// overLimit reports whether an event is too deep or too large.
func overLimit(err error) bool {
	var f *fault
	return errors.As(err, &f) && (f.cause == causeDepth || f.cause == causeSize)
}

func badJSON(format string, args ...any) error {
	return &fault{causeJSON, "parse JSON: " + fmt.Sprintf(format, args...)}
}

func tooLarge(size int) error {
	return &fault{causeSize, fmt.Sprintf("event of %d bytes: the limit is %d", size, maxEvent)}
}

var (
	errUnfinished       = badJSON("unexpected end")
	errTooLong    error = &fault{causeSize, fmt.Sprintf("longer than %d bytes", maxDocument)}
	errTooDeep    error = &fault{causeDepth, fmt.Sprintf("JSON nested deeper than %d levels", maxDepth)}
	errBodies     error = &fault{causeBodies, "the API server left the bodies out"}
	errForeign    error = &fault{causeForeign, "record of another log"}
)
