package playground

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/enrichment"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/k8saudit"
	"github.com/kubeguardian/kubeguardian/rule"
	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// fileName is that of the text, in places and mistakes.
const fileName = "playground"

// A RuleTrial is a rule and the event to try it on: that of an alert as far as
// its fields tell, or one as its source records it.
type RuleTrial struct {
	Rule   string // the text of rules, or one condition
	Source string // of a condition alone; empty: that of the alert, or k8s_audit
	Alert  *alert.Alert
	Event  string // JSON; without an alert
}

// A RuleResult says why a rule matches an event or does not.
type RuleResult struct {
	Rule    string `json:"rule"`
	Matches bool   `json:"matches"`
	Note    string `json:"note,omitempty"`   // what the result does not say by itself
	Output  string `json:"output,omitempty"` // of the alert that it would raise
	Steps   []Step `json:"steps"`            // the condition from the outside in
}

// A Step is one part of a condition.
type Step struct {
	Depth   int    `json:"depth"`
	Text    string `json:"text"` // "and", "or", "not" or a check
	Result  bool   `json:"result"`
	Decided bool   `json:"decided"`         // the result of the condition is due to it
	Value   string `json:"value,omitempty"` // of the field of a check; <NA> if it is missing
	Place   string `json:"place,omitempty"` // file:line of a check
}

// Rule tries the first rule of a text. The error is an [*InputError], [ErrBusy],
// [ErrTooLong] or that the loaded rules cannot be read.
func (p *Playground) Rule(ctx context.Context, session string, t RuleTrial) (RuleResult, error) {
	if len(t.Rule) > MaxText || len(t.Event) > MaxText {
		return RuleResult{}, wrong("the rule and the event may each have %d bytes", MaxText)
	}
	return run(ctx, p, session, func(context.Context) (RuleResult, error) { return p.tryRule(t) })
}

func (p *Playground) tryRule(t RuleTrial) (out RuleResult, err error) {
	if strings.TrimSpace(t.Rule) == "" {
		return out, wrong("the rule is empty")
	}
	files, err := p.Rules()
	if err != nil {
		return out, fmt.Errorf("read the loaded rules: %w", err)
	}
	text := t.Rule
	if first := strings.TrimSpace(text); !strings.HasPrefix(first, "-") && !strings.HasPrefix(first, "#") {
		if text, err = Text("Condition", "", t.source(), alert.Notice, strings.TrimSpace(t.Rule), "it matches"); err != nil {
			return out, err
		}
	}
	set, results := rule.Options{}.Load(append(files, rule.File{Name: fileName, Data: []byte(text)})...)
	if set == nil {
		return out, &InputError{rule.Mistakes(results)}
	}
	name, source := "", ""
	for _, r := range set.Rules() {
		if r.File == fileName {
			name, source = r.Name, r.Source
			break
		}
	}
	if name == "" {
		return out, wrong("the text defines no rule")
	}
	err = t.event(source, func(e *event.Event) error {
		x, ok := set.Explain(name, e)
		if !ok {
			return fmt.Errorf("explain rule %q: there is none", name)
		}
		out = RuleResult{Rule: name, Matches: x.Matches, Steps: []Step{}}
		for _, s := range x.Steps {
			step := Step{Depth: s.Depth, Text: s.Text, Result: s.Result, Decided: s.Decided, Value: s.Value}
			if s.File != "" {
				step.Place = fmt.Sprintf("%s:%d", s.File, s.Line)
			}
			out.Steps = append(out.Steps, step)
		}
		if len(x.Steps) == 0 {
			out.Note = fmt.Sprintf("The rule is for events of source %s, and this one is of %s.", x.Rule.Source, e.Source)
		}
		for _, a := range set.Match(e, rule.All) {
			if a.Rule == name {
				out.Output = a.Output
			}
		}
		if x.Matches && out.Output == "" {
			out.Note = "The rule is disabled in its text: it would raise no alert."
		}
		return nil
	})
	if err == nil && t.Alert != nil {
		out.Note = strings.TrimSpace(out.Note + " The event is what the fields of the alert tell: what they do not tell is <NA>.")
	}
	return out, err
}

func (t *RuleTrial) source() string {
	switch {
	case t.Source != "":
		return t.Source
	case t.Alert != nil:
		return t.Alert.Source
	}
	return event.K8sAudit
}

// Text returns a rule as its file has it.
func Text(name, desc, source string, priority alert.Priority, condition, output string) (string, error) {
	type item struct {
		Rule      string `yaml:"rule"`
		Desc      string `yaml:"desc"`
		Condition string `yaml:"condition"`
		Output    string `yaml:"output"`
		Priority  string `yaml:"priority"`
		Source    string `yaml:"source"`
	}
	if desc == "" {
		desc = name
	}
	data, err := yaml.Marshal([]item{{name, desc, condition, output, strings.ToUpper(priority.String()), source}})
	if err != nil {
		return "", fmt.Errorf("write rule %q: %w", name, err)
	}
	return string(data), nil
}

// errEnough ends the reading of events after the first.
var errEnough = errors.New("enough")

// event calls see with the event to try, once.
func (t *RuleTrial) event(source string, see func(*event.Event) error) error {
	seen := false
	once := func(e *event.Event) error {
		if seen {
			return errEnough
		}
		seen = true
		return see(e)
	}
	var err error
	switch {
	case t.Alert != nil:
		return see(eventOf(t.Alert))
	case strings.TrimSpace(t.Event) == "":
		return wrong("there is no event: paste one, or choose an alert")
	case source == event.Syscall:
		_, err = syscall.Read("event", strings.NewReader(t.Event), once)
	default:
		enrich := enrichment.New()
		var stats k8saudit.Stats
		stats, err = k8saudit.Decode(strings.NewReader(t.Event), func(e *event.Event) error {
			enrich.Enrich(e)
			return once(e)
		})
		if err == nil && !seen && len(stats.Problems) > 0 {
			err = stats.Problems[0]
		}
	}
	switch {
	case err != nil && !errors.Is(err, errEnough):
		return &InputError{fmt.Errorf("read the event: %w", err)}
	case !seen:
		return wrong("read the event: there is none of source %s in the text", source)
	}
	return nil
}
