package alert

import (
	"time"

	"github.com/kubeguardian/kubeguardian/finding"
)

// A Record is an alert in the store. Seq grows in the order in which alerts
// were added, so "everything after Seq" is what a reader has missed.
type Record struct {
	Seq int64 `json:"seq"`
	Alert
}

// A Query selects alerts, newest first. The zero value selects all.
type Query struct {
	Rule      string
	Priority  *Priority // this one or more urgent
	Namespace string
	Text      string // in rule, output, subject or a field, whatever the case
	Since     time.Time
	Until     time.Time // exclusive
	Before    finding.Cursor
	Limit     int // 0 means a default
}
