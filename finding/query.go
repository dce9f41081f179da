package finding

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Cursor is a place in a list of records ordered newest first; the zero value
// is its start. A page begins with the first record that is older than the
// cursor, so records that arrive meanwhile neither repeat nor hide any.
type Cursor struct {
	Time time.Time // of the last record of the page before
	Seq  int64     // its sequence number in the store
}

// String returns the form that [ParseCursor] reads; "" for the zero value.
func (c Cursor) String() string {
	if c == (Cursor{}) {
		return ""
	}
	return fmt.Sprintf("%d.%d", c.Time.UnixNano(), c.Seq)
}

// ParseCursor reads what [Cursor.String] wrote.
func ParseCursor(s string) (Cursor, error) {
	if s == "" {
		return Cursor{}, nil
	}
	before, after, _ := strings.Cut(s, ".")
	nanoseconds, err1 := strconv.ParseInt(before, 10, 64)
	seq, err2 := strconv.ParseInt(after, 10, 64)
	if err1 != nil || err2 != nil {
		return Cursor{}, fmt.Errorf("unknown cursor %q: want one that a page before returned", s)
	}
	return Cursor{Time: time.Unix(0, nanoseconds).UTC(), Seq: seq}, nil
}

// An Outcome is how an admission request ended.
type Outcome string

// The outcomes. A request that was admitted with a warning is Warned.
const (
	Allowed Outcome = "allowed"
	Warned  Outcome = "warned"
	Denied  Outcome = "denied"
)

// ParseOutcome returns the outcome named s.
func ParseOutcome(s string) (Outcome, error) {
	switch o := Outcome(s); o {
	case Allowed, Warned, Denied:
		return o, nil
	}
	return "", fmt.Errorf("unknown outcome %q: want allowed, warned or denied", s)
}

// Outcome returns how the request ended.
func (d *Decision) Outcome() Outcome {
	if !d.Allowed {
		return Denied
	}
	for _, v := range d.Violations {
		if v.Enforcement == "warn" {
			return Warned
		}
	}
	return Allowed
}

// A DecisionQuery selects decisions, newest first. The zero value selects all.
type DecisionQuery struct {
	Outcome   Outcome
	Namespace string
	Text      string // in user, subject, policy or message, whatever the case
	Since     time.Time
	Until     time.Time // exclusive
	Before    Cursor
	Limit     int // 0 means a default
}

// A Query selects findings, worst first. The zero value selects all.
type Query struct {
	Control   string
	Level     Level
	Severity  Severity // this one or worse
	Status    Status
	Namespace string
	Subject   string // as [Subject.String] says it
	Text      string // in control, title, subject, message or fix, from the beginning of a word on
	After     string // what the page before returned; "" is the start
	Limit     int    // 0 means a default
}

// ParseStatus returns the status named s.
func ParseStatus(s string) (Status, error) {
	switch v := Status(s); v {
	case Pass, Fail, Unknown, Excepted, NotApplicable:
		return v, nil
	}
	return "", fmt.Errorf("unknown status %q: want pass, fail, unknown, excepted or not-applicable", s)
}

// A Group is the findings of one control that a query selected.
type Group struct {
	Count    int       // how many there are
	More     bool      // or more: a search that finds many does not count all
	Findings []Finding // the first few; at least one
}
