package store

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/store/words"
)

// The number of records in a page: when a query names none, and at most.
const (
	defaultLimit = 50
	maxLimit     = 1000
)

func limit(n int) int {
	if n <= 0 {
		return defaultLimit
	}
	return min(n, maxLimit)
}

// A where clause grows by the conditions whose values are given. Values are
// always bound, never part of the text.
type where struct {
	terms []string
	args  []any
}

func (w *where) add(given bool, term string, args ...any) {
	if given {
		w.terms = append(w.terms, term)
		w.args = append(w.args, args...)
	}
}

func (w *where) String() string {
	if len(w.terms) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.terms, " AND ")
}

func (w *where) text(s string) {
	w.add(s != "", `search LIKE ? ESCAPE '\'`, "%"+likeEscape.Replace(s)+"%")
}

// names selects the alerts that may have a text, by the names in it.
func (w *where) names(q words.Query) {
	for _, name := range q.Names() {
		w.add(true, `body LIKE ? ESCAPE '\'`, "%"+likeEscape.Replace(name)+"%")
	}
}

var likeEscape = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

func (w *where) between(since, until time.Time) {
	w.add(!since.IsZero(), "time >= ?", nanoseconds(since))
	w.add(!until.IsZero(), "time < ?", nanoseconds(until))
}

func (w *where) before(c finding.Cursor) {
	w.add(c != finding.Cursor{}, "(time, seq) < (?, ?)", nanoseconds(c.Time), c.Seq)
}

// and returns the clause that has the conditions of both.
func (w *where) and(other *where) *where {
	return &where{slices.Concat(w.terms, other.terms), slices.Concat(w.args, other.args)}
}

// searchText joins what users search in, without what is said twice: a field
// that the output quotes is found in the output.
func searchText(main string, more ...string) string {
	var b strings.Builder
	b.WriteString(main)
	for _, s := range more {
		if s != "" && !strings.Contains(main, s) {
			b.WriteString("\n" + s)
		}
	}
	return b.String()
}

// decode reads a body. Numbers stay exact.
func decode(body string, v any) error {
	d := json.NewDecoder(strings.NewReader(body))
	d.UseNumber()
	return d.Decode(v)
}
