package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/enforce"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
)

// ShedRule is the name of the rule that alerts have which say that rules are
// left out, or are back.
const ShedRule = "KubeGuardian internal: rules left out"

// A pace says how fast a budget acts: it is looked at every interval. It takes
// over intervals in a row above the budget to leave rules out, and under
// intervals in a row below the share calm of it to take them back. Each time that
// rules had to be left out again soon after, the latter takes twice as long, up
// to most intervals.
type pace struct {
	interval          time.Duration
	over, under, most int
	calm              float64
}

var defaultPace = pace{interval: 5 * time.Second, over: 3, under: 12, most: 192, calm: 0.7}

// A budget decides by the processor time that the agent has used how many steps
// of rules are left out. It is not safe for concurrent use.
type budget struct {
	pace  pace
	share float64 // of one core
	steps int     // that there are

	level       int // steps that are left out
	used        float64
	at          time.Time
	cpu         time.Duration
	over, under int
	patience    int // intervals below the budget before a step is taken back
	since       int // intervals since one was
	early       int // how often in a row that was too early
}

func newBudget(share float64, steps int, p pace) *budget {
	return &budget{pace: p, share: share, steps: steps, patience: p.under, since: p.most}
}

// step takes the processor time used so far and reports whether the level has
// changed. A clock that stands still or goes back says nothing.
func (b *budget) step(now time.Time, cpu time.Duration) bool {
	passed, used := now.Sub(b.at), cpu-b.cpu
	first := b.at.IsZero()
	b.at, b.cpu = now, cpu
	if first || passed <= 0 || used < 0 {
		return false
	}
	b.used = used.Seconds() / passed.Seconds()
	b.since = min(b.since+1, b.pace.most)
	switch {
	case b.used > b.share:
		b.over, b.under = b.over+1, 0
	case b.used < b.share*b.pace.calm:
		b.over, b.under = 0, b.under+1
	default:
		b.over, b.under = 0, 0
	}
	switch {
	case b.over >= b.pace.over && b.level < b.steps:
		b.level++
		b.patience = b.pace.under
		if b.since < b.pace.most { // it was too early to take the step back
			b.patience = min(b.pace.under<<b.early, b.pace.most)
			b.early = min(b.early+1, 16)
		} else {
			b.early = 1
		}
	case b.under >= b.patience && b.level > 0:
		b.level--
		b.since = 0
	default:
		return false
	}
	b.over, b.under = 0, 0
	return true
}

// A shedder leaves rules out, the least urgent first, when the agent uses more
// processor time than it may, and takes them back.
type shedder struct {
	agent *Agent
	pace  pace
	now   func() time.Time
	cpu   func() time.Duration

	mu     sync.Mutex
	whole  *ruling          // with all rules
	steps  []alert.Priority // of rules that may be left out, the least urgent first
	budget *budget
	left   []string // names of rules that are left out
	times  uint64   // how often rules were left out
}

func newShedder(a *Agent) *shedder {
	s := &shedder{agent: a, pace: defaultPace, now: time.Now, cpu: func() time.Duration { return measure(a.o.Config.Proc).cpu }}
	s.take(a.ruling.Load())
	return s
}

// take says which rules there are. Those that are critical or more urgent stay
// whatever happens, and so do those that something is ordered about.
func (s *shedder) take(whole *ruling) {
	s.whole, s.steps = whole, nil
	for _, r := range whole.set.Live() {
		if r.Source == event.Syscall && !s.stays(r) && !slices.Contains(s.steps, r.Priority) {
			s.steps = append(s.steps, r.Priority)
		}
	}
	slices.Sort(s.steps)
	slices.Reverse(s.steps)
	s.budget = newBudget(s.agent.o.Config.CPUBudget, len(s.steps), s.pace)
}

func (s *shedder) stays(r rule.Rule) bool {
	return r.Priority <= alert.Critical || slices.ContainsFunc(s.agent.o.Config.Enforce, func(o enforce.Order) bool { return o.About(r.Name, r.Tags) })
}

// replace has other rules from now on, all of them.
func (s *shedder) replace(whole *ruling) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.take(whole)
	s.left = nil
	return s.agent.use(whole)
}

// run watches the budget until ctx ends.
func (s *shedder) run(ctx context.Context) {
	ticker := time.NewTicker(s.pace.interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			s.look()
		}
	}
}

// look takes one measurement and does what follows from it.
func (s *shedder) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.budget.level
	if !s.budget.step(s.now(), s.cpu()) {
		return
	}
	rules := s.whole
	if level := s.budget.level; level > 0 {
		rules = s.agent.newRuling(s.whole.set.Urgent(s.steps[level-1]-1, s.stays))
	}
	s.left = without(s.whole, rules)
	if s.budget.level > before {
		s.times++
	}
	s.tell(rules, s.agent.use(rules))
}

// without lists the rules of a ruling that another does not have.
func without(whole, rest *ruling) []string {
	kept := map[string]bool{}
	for _, r := range rest.set.Live() {
		kept[r.Name] = true
	}
	var names []string
	for _, r := range whole.set.Live() {
		if r.Source == event.Syscall && !kept[r.Name] {
			names = append(names, r.Name)
		}
	}
	return names
}

// tell says in the log and by an alert what was left out or taken back.
func (s *shedder) tell(rules *ruling, err error) {
	a, b := s.agent, s.budget
	a.o.Log.Warn("rules are left out to stay within the budget", "used", b.used, "budget", b.share, "left out", len(s.left), "rules", strings.Join(s.left, ", "))
	if err != nil {
		a.o.Log.Error("the sensor still shows what no rule is about", "error", err)
	}
	priority := alert.Error
	if len(s.left) == 0 {
		priority = alert.Notice
	}
	text := fmt.Sprintf("The agent used %.0f%% of a core and may use %.0f%%: %d of %d rules are left out", 100*b.used, 100*b.share, len(s.left), s.whole.count)
	a.pipeline.emit(a.internal(s.now(), ShedRule, priority, text, map[string]any{
		"agent.cpu": b.used, "agent.cpu_budget": b.share, "agent.rules": s.whole.count, "agent.rules_left_out": strings.Join(s.left, ", "),
		"agent.types": strings.Join(rules.needs.Types(), " "),
	}))
}

// state returns the rules that are left out, and how often rules were.
func (s *shedder) state() (left []string, times uint64, used float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.left), s.times, s.budget.used
}
