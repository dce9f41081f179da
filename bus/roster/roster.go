// Package roster knows the clusters that report to a hub by what they say of
// themselves, and tells when one falls silent.
package roster

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A State is what the server of a cluster says of it, again and again.
type State struct {
	Version  string         `json:"version"`
	Started  time.Time      `json:"started"`
	Interval time.Duration  `json:"interval"` // nanoseconds until the next one
	Stopped  bool           `json:"stopped,omitempty"`
	Waiting  int64          `json:"waiting"`            // alerts that the hub does not have yet, at most
	Oldest   time.Time      `json:"oldest,omitzero"`    // of these; zero: there are none
	Agents   map[string]int `json:"agents,omitempty"`   // of its nodes, by status
	Problems []string       `json:"problems,omitempty"` // of its health, one sentence each
	Score    *Score         `json:"score,omitempty"`    // of its last scan; nil: there was none
}

// A Score is what a cluster's last scan came to.
type Score struct {
	Total  *float64  `json:"total"` // 0 to 100; nil: nothing could be verified
	Levels []Level   `json:"levels"`
	At     time.Time `json:"at"`
}

// String returns the total for people, "–" if nothing could be verified.
func (s *Score) String() string {
	if s == nil || s.Total == nil {
		return "–"
	}
	return fmt.Sprintf("%.1f", *s.Total)
}

// A Level is the score of one level.
type Level struct {
	Level string   `json:"level"`
	Score *float64 `json:"score"` // 0 to 20; nil: nothing could be verified
}

// Lag is the age of the oldest alert that the hub does not have; 0: it has all.
func (s *State) Lag(now time.Time) time.Duration {
	if s.Oldest.IsZero() {
		return 0
	}
	return max(now.Sub(s.Oldest), 0)
}

// Late reports whether alerts have waited for the hub for long.
func (s *State) Late(now time.Time) bool { return s.Lag(now) > lateAfter }

// Bounds of a state, so that one cluster cannot fill the hub.
const (
	maxProblems = 50
	maxProblem  = 500 // bytes
	maxNames    = 10
	maxVersion  = 100
	maxInterval = time.Hour
)

// Bound brings a state within its bounds.
func (s *State) Bound() {
	s.Interval = min(max(s.Interval, time.Second), maxInterval)
	s.Version = clip(s.Version, maxVersion)
	s.Problems = s.Problems[:min(len(s.Problems), maxProblems)]
	for i, p := range s.Problems {
		s.Problems[i] = clip(p, maxProblem)
	}
	if s.Score != nil {
		s.Score.Levels = s.Score.Levels[:min(len(s.Score.Levels), maxNames)]
		for i, l := range s.Score.Levels {
			s.Score.Levels[i].Level = clip(l.Level, maxVersion)
		}
	}
	if len(s.Agents) > maxNames {
		s.Agents = nil
	}
}

// clip cuts a text that is longer than n bytes.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

// A Report is the last state of a cluster, and when the hub got it.
type Report struct {
	Cluster string
	At      time.Time
	State   State
}

// Unknown reports whether nobody says what happens in the cluster.
func (c *Cluster) Unknown() bool {
	return c.Status == Silent || c.Status == Stopped || c.Status == Absent
}

// A Status sums up a cluster.
type Status string

// The statuses.
const (
	OK       Status = "ok"
	Degraded Status = "degraded" // it reports, and has problems
	Stopped  Status = "stopped"  // its server was told to end
	Silent   Status = "silent"
	Absent   Status = "absent" // it has never reported
)

// silentAfter is how many states in a row must be missing.
const silentAfter = 6

// lateAfter is for how long alerts may wait before that is a problem.
const lateAfter = 5 * time.Minute

// A Cluster is what is known of one that may report.
type Cluster struct {
	Name string `json:"name"`
	State
	Status   Status    `json:"status"`
	LastSeen time.Time `json:"lastSeen,omitzero"` // zero: never
	// Reasons are why the status is not ok, one sentence each.
	Reasons []string `json:"reasons"`
}

// Clusters returns what is known of members, those first that need somebody.
// Until blind nobody could be heard.
func Clusters(now, blind time.Time, members []string, reports []Report) []Cluster {
	by := map[string]Report{}
	for _, r := range reports {
		by[r.Cluster] = r
	}
	out := make([]Cluster, 0, len(members))
	for _, name := range members {
		r, known := by[name]
		c := Cluster{Name: name, State: r.State, LastSeen: r.At, Status: Absent, Reasons: []string{"It has never reported."}}
		if known {
			c.Status, c.Reasons = r.judge(now, blind)
		}
		out = append(out, c)
	}
	order := []Status{Silent, Stopped, Degraded, Absent, OK}
	slices.SortFunc(out, func(a, b Cluster) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Status), slices.Index(order, b.Status)), strings.Compare(a.Name, b.Name))
	})
	return out
}

// judge returns how a cluster is, and why.
func (r *Report) judge(now, blind time.Time) (Status, []string) {
	heard := r.At
	if blind.After(heard) {
		heard = blind
	}
	last := r.At.UTC().Format(time.RFC3339)
	switch {
	case r.State.Stopped:
		return Stopped, []string{fmt.Sprintf("Its server was stopped at %s.", last)}
	case now.Sub(heard) > silentAfter*r.State.Interval:
		return Silent, []string{fmt.Sprintf("It has said nothing since %s.", last)}
	}
	reasons := slices.Clone(r.State.Problems)
	if r.State.Late(r.At) {
		reasons = append(reasons, fmt.Sprintf("Up to %d of its alerts are not here yet, the oldest of %s.", r.State.Waiting, r.State.Oldest.UTC().Format(time.RFC3339)))
	}
	if len(reasons) == 0 {
		return OK, []string{}
	}
	return Degraded, reasons
}

// Problems returns what is wrong with clusters, one sentence each.
func Problems(clusters []Cluster) []string {
	by := map[Status][]string{}
	for _, c := range clusters {
		by[c.Status] = append(by[c.Status], c.Name)
	}
	var late, out []string
	for i, c := range clusters {
		if c.Status == Degraded && clusters[i].Late(c.LastSeen) {
			late = append(late, c.Name)
		}
	}
	for _, p := range []struct {
		status Status
		text   string
	}{
		{Silent, "Clusters are silent, and what happens there is not known: %s."},
		{Stopped, "Servers of clusters were stopped, and nobody watches these: %s."},
		{Absent, "Clusters may report and never have: %s."},
	} {
		if names := by[p.status]; len(names) > 0 {
			out = append(out, fmt.Sprintf(p.text, some(names)))
		}
	}
	if len(late) > 0 {
		out = append(out, fmt.Sprintf("Clusters report, and their alerts come late: %s.", some(late)))
	}
	return out
}

// some names a few of many.
func some(names []string) string {
	const few = 5
	if len(names) <= few {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
}

// A Change is something that people should know at once.
type Change struct {
	Cluster string
	Silent  bool   // or it speaks again
	Event   string // tells it from other changes
	Text    string
}

// A Watch knows which clusters were said to be silent. The zero value knows none.
type Watch struct{ silent map[string]time.Time }

// Judge returns what has changed since it was called last.
func (w *Watch) Judge(clusters []Cluster) (out []Change) {
	if w.silent == nil {
		w.silent = map[string]time.Time{}
	}
	for _, c := range clusters {
		quiet := c.Status == Silent || c.Status == Stopped
		since, told := w.silent[c.Name]
		switch {
		case quiet && !told:
			w.silent[c.Name] = c.LastSeen
			text := fmt.Sprintf("The server of cluster %s has said nothing since %s: whether anything happens there is not known", c.Name, c.LastSeen.UTC().Format(time.RFC3339))
			if c.Status == Stopped {
				text = fmt.Sprintf("The server of cluster %s was stopped at %s: nobody watches what happens there", c.Name, c.LastSeen.UTC().Format(time.RFC3339))
			}
			out = append(out, Change{c.Name, true, event(c.LastSeen), text})
		case !quiet && told:
			delete(w.silent, c.Name)
			out = append(out, Change{c.Name, false, event(since), fmt.Sprintf("The server of cluster %s speaks again; it did not from %s on", c.Name, since.UTC().Format(time.RFC3339))})
		}
	}
	return out
}

func event(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
