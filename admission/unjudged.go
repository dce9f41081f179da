package admission

import (
	"errors"
	"fmt"

	"github.com/kubeguardian/kubeguardian/finding"
)

// A Cause says why a review got no verdict.
type Cause string

// The causes. All but Malformed and Cancelled are answered with what the failure
// policy says.
const (
	Overloaded Cause = "overloaded"  // no turn before the deadline, or none at all
	OutOfTime  Cause = "out-of-time" // the policies took too long
	Panicked   Cause = "panic"
	Failed     Cause = "failed"    // policies that could not be evaluated
	Malformed  Cause = "malformed" // no review at all
	Cancelled  Cause = "cancelled" // the caller is gone
)

// Causes returns all causes, for metrics that start at zero.
func Causes() []Cause {
	return []Cause{Overloaded, OutOfTime, Panicked, Failed, Malformed, Cancelled}
}

// An unjudgedError is a review that could be read and was not judged.
type unjudgedError struct {
	cause Cause
	err   error
}

func (e *unjudgedError) Error() string { return e.err.Error() }

// violation says to the user what the failure policy makes of the request: the
// answer is defined here, so that it is the same whether the webhook is slow or
// gone, and so that it is seen.
func (e *unjudgedError) violation(closed bool) finding.Violation {
	v := finding.Violation{
		Policy: ConfigurationName, Enforcement: "warn",
		Message: fmt.Sprintf("not judged (%s): the failure policy Ignore lets it pass", e.cause),
	}
	if closed {
		v.Enforcement = "deny"
		v.Message = fmt.Sprintf("not judged (%s): the failure policy Fail refuses it; try again", e.cause)
	}
	return v
}

// lack counts and logs why a review was not judged.
func (h *handler) lack(review *review, err error) *unjudgedError {
	var lack *unjudgedError
	if !errors.As(err, &lack) {
		lack = &unjudgedError{Failed, err}
	}
	h.unjudged(lack.cause)
	h.Log.Error("admission request not judged", "subject", review.Request.decision().Subject.String(), "cause", string(lack.cause), "error", err)
	return lack
}

func (h *handler) unjudged(cause Cause) {
	if h.Unjudged != nil {
		h.Unjudged(cause)
	}
}
