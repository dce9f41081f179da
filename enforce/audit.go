package enforce

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

// Outcomes of an action.
const (
	Killed       = "killed"
	WouldKill    = "would-kill"
	Denied       = "denied"
	WouldDeny    = "would-deny"
	Blocked      = "blocked"
	WouldBlock   = "would-block"
	Lifted       = "lifted"  // egress is free again
	Refused      = "refused" // what it would have hit is protected
	Gone         = "gone"    // the process has ended by itself
	Failed       = "failed"
	Waiting      = "waiting" // until it is known whose container it is; the outcome follows
	kernelsWay   = "kernel"
	agentsWay    = "agent"
	mixedWay     = "kernel and agent"
	driftOrigin  = "zeroDrift"
	orderOrigin  = "enforce"
	maxAuditText = 4096 // bytes of a text in the audit record
)

// An Action is what was done, or why not: one line of the audit record.
type Action struct {
	Time      time.Time `json:"time"`
	Action    string    `json:"action"`           // [Kill], [BlockEgress] or [Deny]
	Outcome   string    `json:"outcome"`          // such as [Killed]
	By        string    `json:"by,omitempty"`     // kernel: before the process, or the program, ran any further; agent: as soon as it read of it
	Reason    string    `json:"reason,omitempty"` // why it was refused or failed
	Until     time.Time `json:"until,omitzero"`   // when egress is free again, unless there are more alerts
	Rule      string    `json:"rule,omitempty"`
	Alert     string    `json:"alert,omitempty"` // its id
	Entry     string    `json:"entry"`           // of the configuration, as enforce[0]
	Times     uint64    `json:"times,omitempty"` // of a denial: how many this stands for; 0 for one
	PID       int32     `json:"pid,omitempty"`
	Exe       string    `json:"exe,omitempty"`
	Command   string    `json:"command,omitempty"`
	Container string    `json:"container,omitempty"` // in full; host outside
	Pod       string    `json:"pod,omitempty"`
	Namespace string    `json:"namespace,omitempty"`
}

// An audit keeps the record of what was done. It is safe for concurrent use.
type audit struct {
	out io.Writer // one line of JSON for each action; nil for none
	log *slog.Logger

	mu     sync.Mutex
	counts map[[2]string]uint64 // by action and outcome
	failed error                // of the first line that could not be written
}

func newAudit(out io.Writer, log *slog.Logger) *audit {
	return &audit{out: out, log: log, counts: map[[2]string]uint64{}}
}

func (a *audit) note(act Action) {
	act.Exe, act.Command = limit(act.Exe), limit(act.Command)
	a.log.Warn("enforcement", "action", act.Action, "outcome", act.Outcome, "by", act.By, "reason", act.Reason, "rule", act.Rule, "pid", act.PID, "exe", act.Exe, "times", max(act.Times, 1),
		"container", act.Container, "namespace", act.Namespace, "pod", act.Pod)
	line, err := json.Marshal(act)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counts[[2]string{act.Action, act.Outcome}] += max(act.Times, 1)
	if a.out == nil {
		return
	}
	if err == nil {
		_, err = a.out.Write(append(line, '\n'))
	}
	if err != nil && a.failed == nil {
		a.failed = fmt.Errorf("write the record of actions: %w", err)
		a.log.Error("the record of actions is incomplete", "error", err)
	}
}

func limit(s string) string { return s[:min(len(s), maxAuditText)] }

func (a *audit) state() (counts map[[2]string]uint64, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	counts = map[[2]string]uint64{}
	for k, n := range a.counts {
		counts[k] = n
	}
	return counts, a.failed
}
