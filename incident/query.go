package incident

import (
	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
)

// Open stands for all states but [Closed] in a [Query].
const Open State = "open"

// A Query selects incidents, the one in which something happened last first. The
// zero value selects all.
type Query struct {
	State   State // or Open
	Cluster string
	Paged   bool         // only those that page
	Entity  alert.Entity // that they involve
	Text    string       // in story, owners, entities and rules, from the beginning of a word on
	Brief   bool         // without their signals, by which their level is known, unless a text is looked for in these
	Before  finding.Cursor
	Limit   int // 0 means a default
}
