package policy

import (
	"errors"
	"fmt"
)

// maxMistakes is how many mistakes of one load are told.
const maxMistakes = 100

// Mistakes collects what is wrong with policies. The zero value is empty.
type Mistakes struct{ errs []error }

// Add keeps an error; nil is none, and a joined error counts as its parts.
func (m *Mistakes) Add(err error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, part := range joined.Unwrap() {
			m.Add(part)
		}
	} else if err != nil {
		m.errs = append(m.errs, err)
	}
}

// Err joins the first 100 mistakes, and counts the others; nil for none.
func (m *Mistakes) Err() error {
	if extra := len(m.errs) - maxMistakes; extra > 0 {
		return errors.Join(append(m.errs[:maxMistakes:maxMistakes], fmt.Errorf("and %d more errors", extra))...)
	}
	return m.joined()
}

func (m *Mistakes) joined() error { return errors.Join(m.errs...) }
