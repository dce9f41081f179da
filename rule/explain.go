package rule

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule/condition"
	"github.com/kubeguardian/kubeguardian/rule/plain"
)

// An Explanation says why a rule matches an event or does not.
type Explanation struct {
	Rule    Rule
	Matches bool   // the condition is true
	Live    bool   // the rule is enabled, urgent enough and of the event's source
	Steps   []Step // the condition from the outside in
}

// A Step is one part of a condition.
type Step struct {
	Depth   int
	Text    string // "and", "or", "not" or a check
	Result  bool
	Decided bool   // the result of the condition is due to it
	Value   string // of the field of a check; <NA> if it is missing
	File    string // where a check stands; empty for what joins checks
	Line    int
}

// Explain evaluates the condition of one rule, as the language is defined and
// apart from all other rules. ok is false if there is no such rule.
func (s *Set) Explain(name string, e *event.Event) (x Explanation, ok bool) {
	for _, r := range s.rules {
		if r.Name != name {
			continue
		}
		x = Explanation{Rule: r.Rule, Live: r.live && r.Source == e.Source}
		if r.Source != e.Source {
			return x, true
		}
		trace := plain.Explain(r.condition, plain.Values{Event: e})
		x.Matches = trace.Result
		s.steps(&x.Steps, trace, 0)
		return x, true
	}
	return x, false
}

// Hint returns the name of the rule that is most like a name, as "; did you mean
// …?", or "".
func (s *Set) Hint(name string) string {
	names := make([]string, len(s.rules))
	for i, r := range s.rules {
		names[i] = r.Name
	}
	return condition.DidYouMean(name, names)
}

func (s *Set) steps(to *[]Step, t *plain.Trace, depth int) {
	step := Step{Depth: depth, Result: t.Result, Decided: t.Decided}
	switch e := t.Expr.(type) {
	case *condition.Logical:
		step.Text = "and"
		if e.Or {
			step.Text = "or"
		}
	case *condition.Not:
		step.Text = "not"
	case *condition.Leaf:
		step.Text = e.String()
		step.Value = shown(t.Left)
		if e.Right != nil {
			step.Value += " and " + shown(t.Right)
		}
		p, line, _ := s.spec.locate(e.At)
		step.File, step.Line = p.file.name, line
	}
	*to = append(*to, step)
	for _, kid := range t.Kids {
		s.steps(to, kid, depth+1)
	}
}

const maxShown = 200 // bytes of a value in an explanation

// shown returns a value for people.
func shown(v event.Value) string {
	s := v.String()
	if len(s) > maxShown {
		cut := maxShown
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	if v.Type == event.TypeString || v.Type == event.TypeBytes {
		return strconv.Quote(s)
	}
	return printable(s)
}

// String returns the explanation as lines of text. Each has a mark: + for a
// part that is true, - for one that is false, and * before what decided.
func (x Explanation) String() string {
	var b strings.Builder
	verdict := "does not match"
	if x.Matches {
		verdict = "matches"
	}
	fmt.Fprintf(&b, "rule %q (%s:%d) %s\n", x.Rule.Name, x.Rule.File, x.Rule.Line, verdict)
	if x.Matches && !x.Live {
		b.WriteString("but raises no alert: it is disabled or below the minimum priority\n")
	}
	if len(x.Steps) == 0 {
		fmt.Fprintf(&b, "it is for events of source %s\n", x.Rule.Source)
	}
	for _, s := range x.Steps {
		mark, decided := "-", " "
		if s.Result {
			mark = "+"
		}
		if s.Decided {
			decided = "*"
		}
		fmt.Fprintf(&b, "%s%s %s%s", decided, mark, strings.Repeat("  ", s.Depth), s.Text)
		if s.File != "" {
			fmt.Fprintf(&b, "   is %s   (%s:%d)", s.Value, s.File, s.Line)
		}
		b.WriteString("\n")
	}
	return b.String()
}
