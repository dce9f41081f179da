// Package correlate joins what two sources of events say of one act.
//
// A command that enters a running container leaves two traces: the node agent
// sees the container runtime start a program in it, and the audit log has a
// request for pods/exec. A command without a request came past the API server:
// by the kubelet's own port, or by the runtime's socket on the node. [Execs]
// waits for the request, and says of each command whether there was one.
//
// It never says so for want of an audit log. The log comes late, in batches and
// from several API servers, so a command is judged by event time: once each API
// server has been heard of up to a time after it. Where that does not happen, or
// where some of the log is known to be lost, the command is [Unknown].
package correlate

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// An Exec is a command that the container runtime started in a container that
// was running.
type Exec struct {
	ID          string    // opaque, of the event
	Process     string    // tells the process from all others of the cluster
	Time        time.Time // by the node's clock
	Node        string
	Namespace   string
	Pod         string
	Container   string // name in the pod; empty if not known
	ContainerID string
	Image       string
	Command     string // argv joined by blanks; empty if not known
	User        string
	Ancestors   string
}

// A Request is one that lets a command into a container, and that the API server
// has granted.
type Request struct {
	ID        string    // audit id
	Time      time.Time // when the API server received it, by its clock
	User      string
	Namespace string
	Pod       string
	Container string   // empty if the request left it to the API server
	Command   []string // nil if the log does not say
}

// Options are how much is allowed for. Each zero value stands for a default.
type Options struct {
	Window time.Duration // from a request to its command; 5 s
	Skew   time.Duration // between the clocks of a node and an API server; 2 s
	Wait   time.Duration // for the log, from the arrival of a command; 2 min
	Keep   time.Duration // for which a request that comes late still explains; 10 min
	Limit  int           // commands and requests that are remembered, each; 10,000

	// Expected says why a command needs no request, such as one of the pod's
	// probes or hooks; empty if there is no reason. It may be nil.
	Expected func(Exec) string
}

func (o Options) withDefaults() Options {
	o.Window = cmp.Or(o.Window, 5*time.Second)
	o.Skew = cmp.Or(o.Skew, 2*time.Second)
	o.Wait = cmp.Or(o.Wait, 2*time.Minute)
	o.Keep = cmp.Or(o.Keep, 10*time.Minute)
	o.Limit = cmp.Or(o.Limit, 10_000)
	return o
}

// An Outcome is what became of a command.
type Outcome uint8

// The outcomes.
const (
	Explained   Outcome = iota // there is a request, or another reason
	Unexplained                // the log is complete, and has no request
	Unknown                    // the log is not complete
)

var outcomes = [...]string{"explained", "unexplained", "unknown"}

// String returns the outcome as one word.
func (o Outcome) String() string { return outcomes[o] }

// A Verdict is what is known of a command.
type Verdict struct {
	Exec    Exec
	Outcome Outcome
	Request *Request // that explains the command; nil if none does
	Reason  string   // in words
	Late    bool     // the command was unexplained or unknown before
}

// Execs finds the requests of commands. It is not safe for concurrent use.
type Execs struct {
	opts     Options
	servers  map[string]heard // by name of the API server
	lost     []span
	commands []*command // in the order of their time
	requests []*request
	dropped  int
}

// heard is the time of the first and the latest event of an API server.
type heard struct{ first, last time.Time }

type span struct{ from, to time.Time }

type command struct {
	Exec
	arrived time.Time
	judged  bool // Unexplained or Unknown; a request may still come
	done    bool // Explained
}

type request struct {
	Request
	taken bool
}

// New returns one that has heard of nothing yet.
func New(opts Options) *Execs {
	return &Execs{opts: opts.withDefaults(), servers: map[string]heard{}}
}

// Heard says that an API server logged something at a time: anything at all, of
// which the log has everything before, as far as it comes in order. Each API
// server has a name of its own.
func (x *Execs) Heard(server string, at time.Time) {
	h, known := x.servers[server]
	if !known {
		h = heard{at, at}
	}
	if at.After(h.last) {
		h.last = at
	}
	x.servers[server] = h
}

// Gone says that an API server will not be heard of again, so that nobody waits
// for it.
func (x *Execs) Gone(server string) { delete(x.servers, server) }

// Lost says that the log misses something between two times.
func (x *Execs) Lost(from, to time.Time) {
	const most = 100
	if len(x.lost) == most { // join the oldest: rather too much than too little is unknown
		x.lost[1] = span{earlier(x.lost[0].from, x.lost[1].from), later(x.lost[0].to, x.lost[1].to)}
		x.lost = x.lost[1:]
	}
	x.lost = append(x.lost, span{from, to})
}

// Dropped returns how many commands and requests there were no room for.
func (x *Execs) Dropped() int { return x.dropped }

// Command takes a command in; now is when it arrived. A process that executes
// another program is the same command.
func (x *Execs) Command(e Exec, now time.Time) []Verdict {
	if slices.ContainsFunc(x.commands, func(c *command) bool { return c.Process == e.Process }) {
		return nil
	}
	c := &command{Exec: e, arrived: now}
	if x.opts.Expected != nil {
		if reason := x.opts.Expected(e); reason != "" {
			return []Verdict{{Exec: e, Outcome: Explained, Reason: reason}}
		}
	}
	if len(x.commands) >= x.opts.Limit {
		x.dropped++
		return []Verdict{{Exec: e, Outcome: Unknown, Reason: fmt.Sprintf("more than %d commands wait to be judged", x.opts.Limit)}}
	}
	i, _ := slices.BinarySearchFunc(x.commands, e.Time, func(c *command, t time.Time) int { return c.Time.Compare(t) })
	x.commands = slices.Insert(x.commands, i, c)
	for _, r := range x.requests {
		if x.fits(c, r) && r.names(c.Exec) {
			return []Verdict{c.explain(r)}
		}
	}
	return nil
}

// Request takes a request in. It may explain a command that was judged before,
// for lack of it.
func (x *Execs) Request(r Request) []Verdict {
	if slices.ContainsFunc(x.requests, func(have *request) bool { return have.ID == r.ID }) {
		return nil // another stage, or delivered again
	}
	if len(x.requests) >= x.opts.Limit {
		x.dropped++
		x.Lost(x.requests[0].Time, x.requests[0].Time)
		x.requests = x.requests[1:]
	}
	taken := &request{Request: r}
	x.requests = append(x.requests, taken)
	for _, c := range x.commands {
		if x.fits(c, taken) && taken.names(c.Exec) {
			return []Verdict{c.explain(taken)}
		}
	}
	for _, c := range x.commands {
		if c.judged && x.fits(c, taken) && taken.mayName(c.Exec) {
			return []Verdict{c.explain(taken)}
		}
	}
	return nil
}

// Judge judges the commands that can be: those whose time the log has passed,
// and those that have waited long enough. Call it every second or so.
func (x *Execs) Judge(now time.Time) []Verdict {
	var verdicts []Verdict
	frontier, heard := x.frontier()
	for _, c := range x.commands {
		if c.done || c.judged {
			continue
		}
		until := c.Time.Add(x.opts.Window + x.opts.Skew)
		switch {
		case heard && !frontier.Before(until):
			verdicts = append(verdicts, x.judge(c))
		case now.Sub(c.arrived) >= x.opts.Wait:
			c.judged = true
			reason := "nothing is heard of the audit log"
			if heard {
				reason = fmt.Sprintf("the audit log is only known up to %s", frontier.UTC().Format(time.RFC3339))
			}
			verdicts = append(verdicts, Verdict{Exec: c.Exec, Outcome: Unknown, Reason: reason})
		}
	}
	x.forget(now)
	return verdicts
}

// frontier is the time up to which the log of all API servers is known; false if
// there is no API server.
func (x *Execs) frontier() (time.Time, bool) {
	var least time.Time
	for _, h := range x.servers {
		if least.IsZero() || h.last.Before(least) {
			least = h.last
		}
	}
	return least, len(x.servers) > 0
}

// judge judges a command whose time the log has passed.
func (x *Execs) judge(c *command) Verdict {
	var other *request
	for _, r := range x.requests {
		if !x.fits(c, r) {
			continue
		}
		if r.mayName(c.Exec) {
			return c.explain(r)
		}
		other = r
	}
	c.judged = true
	if reason := x.gap(c); reason != "" {
		return Verdict{Exec: c.Exec, Outcome: Unknown, Reason: reason}
	}
	reason := fmt.Sprintf("no request for a command in pod %s/%s within %s before it", c.Namespace, c.Pod, x.opts.Window)
	if other != nil {
		reason = fmt.Sprintf("the only request within %s before it, by %s, was for another command: %s", x.opts.Window, other.User, strings.Join(other.Command, " "))
	}
	return Verdict{Exec: c.Exec, Outcome: Unexplained, Reason: reason}
}

// gap says why the log may miss the request of a command; empty if it does not.
func (x *Execs) gap(c *command) string {
	from, to := x.opts.span(c)
	for name, h := range x.servers {
		if h.first.After(from) {
			return fmt.Sprintf("the audit log of API server %s is only known since %s", name, h.first.UTC().Format(time.RFC3339))
		}
	}
	for _, l := range x.lost {
		if !l.to.Before(from) && !l.from.After(to) {
			return "a part of the audit log was lost at that time"
		}
	}
	return ""
}

// span is when a request must have been made to explain a command.
func (o Options) span(c *command) (from, to time.Time) {
	return c.Time.Add(-o.Window - o.Skew), c.Time.Add(o.Skew)
}

// fits reports whether a request may have led to a command, whatever its words.
// A request lets one command in, and no more.
func (x *Execs) fits(c *command, r *request) bool {
	from, to := x.opts.span(c)
	return !c.done && !r.taken && c.Namespace == r.Namespace && c.Pod == r.Pod &&
		(r.Container == "" || c.Container == "" || c.Container == r.Container) &&
		!r.Time.Before(from) && !r.Time.After(to)
}

// longCommand is how long a command line is that the kernel may have cut.
const longCommand = 4000

// names reports whether a request is for the very command. Of a script, the
// kernel puts the interpreter before its path.
func (r *request) names(e Exec) bool {
	if r.Command == nil || e.Command == "" {
		return false
	}
	words := strings.Join(r.Command, " ")
	return words == e.Command || strings.HasSuffix(e.Command, " "+words) || strings.HasSuffix(e.Command, "/"+words) ||
		(len(e.Command) >= longCommand && strings.HasPrefix(words, e.Command))
}

// mayName reports whether the words of a request or of a command are not known.
func (r *request) mayName(e Exec) bool { return r.Command == nil || e.Command == "" }

// explain joins a command with its request.
func (c *command) explain(r *request) Verdict {
	late := c.judged
	c.done, c.judged, r.taken = true, false, true
	return Verdict{Exec: c.Exec, Outcome: Explained, Request: &r.Request, Late: late, Reason: fmt.Sprintf("%s asked for it by request %s", r.User, r.ID)}
}

// forget drops what cannot change a verdict any more.
func (x *Execs) forget(now time.Time) {
	x.commands = slices.DeleteFunc(x.commands, func(c *command) bool {
		return (c.done || c.judged) && now.Sub(c.arrived) > x.opts.Keep
	})
	frontier, heard := x.frontier()
	if !heard {
		return
	}
	past := frontier.Add(-x.opts.Keep)
	x.requests = slices.DeleteFunc(x.requests, func(r *request) bool { return r.Time.Before(past) })
	x.lost = slices.DeleteFunc(x.lost, func(l span) bool { return l.to.Before(past) })
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Knows reports whether a command of this process was taken in and is remembered.
func (x *Execs) Knows(process string) bool {
	return slices.ContainsFunc(x.commands, func(c *command) bool { return c.Process == process })
}

// Waiting reports whether a command waits to be judged.
func (x *Execs) Waiting() bool {
	return slices.ContainsFunc(x.commands, func(c *command) bool { return !c.done && !c.judged })
}

// Runs reports whether the command is the one that these words ask for, as those
// of a probe or a hook of its pod.
func (e Exec) Runs(words []string) bool {
	r := request{Request: Request{Command: words}}
	return len(words) > 0 && r.names(e)
}
