// Package deed notes in the log of actions what node agents did, or were kept from,
// on their own: they kill processes and keep containers from the network where
// their configuration orders it, and say so in the alert that was the reason.
package deed

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/kubeguardian/kubeguardian/action"
	"github.com/kubeguardian/kubeguardian/alert"
)

// kept is how many deeds the log of actions keeps in a minute, as many at once:
// whoever starts again what is killed could else make it grow without end. The
// alerts have all of them.
const kept = 60

// Agents is who does deeds: a name that no person has.
const Agents = "system:kubeguardian-agent"

// A Log is the log of actions.
type Log interface {
	AppendAction(context.Context, action.Entry) (action.Entry, error)
}

// A Recorder notes deeds. It is safe for concurrent use.
type Recorder struct {
	log    Log
	says   *slog.Logger
	limit  *rate.Limiter
	unkept atomic.Int64 // since the last that was kept
}

// NewRecorder returns a recorder that notes in a log, and says what could not be
// noted.
func NewRecorder(log Log, says *slog.Logger) *Recorder {
	return &Recorder{log: log, says: says, limit: rate.NewLimiter(rate.Every(time.Minute/kept), kept)}
}

// Note notes what agents did, by alerts that did not come before.
func (r *Recorder) Note(ctx context.Context, alerts []alert.Alert) {
	for i := range alerts {
		for _, e := range Entries(&alerts[i]) {
			r.note(ctx, e)
		}
	}
}

func (r *Recorder) note(ctx context.Context, e action.Entry) {
	if !r.limit.Allow() {
		r.unkept.Add(1)
		return
	}
	n := r.unkept.Swap(0)
	if n > 0 {
		e.Result += fmt.Sprintf(" (and %d deeds before it that are not kept)", n)
	}
	if _, err := r.log.AppendAction(ctx, e); err != nil {
		r.unkept.Add(n + 1)
		r.says.Error("note what an agent did in the log of actions", "alert", e.Object, "action", e.Action, "error", err)
	}
}

// prefix of the fields of an alert that say what was done: the action follows.
const prefix = "enforce."

// Entries returns what an alert says that an agent did: one entry for each action.
// Rehearsals are none, nor is what is only decided later.
func Entries(a *alert.Alert) []action.Entry {
	var entries []action.Entry
	for _, name := range []string{"block-egress", "deny", "kill"} {
		field := func(suffix string) string {
			text, _ := a.OutputFields[prefix+name+suffix].(string)
			return text
		}
		result := resultOf(field(""))
		if result == "" {
			continue
		}
		if reason := field(".reason"); reason != "" {
			result += ": " + reason
		}
		if n, ok := a.OutputFields[prefix+name+".times"].(json.Number); ok { // that this alert stands for
			result += fmt.Sprintf(": %s times", n)
		}
		entries = append(entries, action.Entry{
			Time: a.Time, User: Agents, Source: a.Hostname, Action: name, Object: "/alerts/" + a.ID, Change: change(a, field(".by")), Result: result,
		})
	}
	return entries
}

// resultOf returns the result that an outcome is in the log; empty if it is to have
// no entry.
func resultOf(outcome string) string {
	switch outcome {
	case "killed", "blocked", "denied":
		return action.Done
	case "refused":
		return action.Denied
	case "gone", "failed":
		return action.Failed
	}
	return ""
}

// change says in words what was hit, and why.
func change(a *alert.Alert, by string) string {
	text := func(name string) string {
		s, _ := a.OutputFields[name].(string)
		return s
	}
	var parts []string
	for _, p := range [][2]string{
		{"rule", a.Rule}, {"by", by}, {"namespace", a.Subject.Namespace}, {"pod", a.Subject.Name}, {"container", text("container.id")}, {"exe", text("proc.exepath")},
	} {
		if p[1] != "" {
			parts = append(parts, fmt.Sprintf("%s=%q", p[0], p[1]))
		}
	}
	return strings.Join(parts, " ")
}
