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
	Cluster   string
	Drift     bool   // with the tag [DriftTag], and perhaps some that only have the word
	Entity    Entity // involved; the zero value: any
	Text      string // in rule, output, subject, an entity or a field, from the beginning of a word on, whatever the case
	Since     time.Time
	Until     time.Time      // exclusive
	Before    finding.Cursor // where the page before ended; of a search in many alerts pages may be short
	Limit     int            // 0 means a default
}

// A Seen is an entity, and when something involved it last.
type Seen struct {
	Entity
	Last time.Time `json:"last"`
}

// Matches are the stored alerts of one rule.
type Matches struct {
	Count int       `json:"count"`
	Last  time.Time `json:"last,omitzero"` // of the latest event; zero: none
}
