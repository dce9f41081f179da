package web

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/web/rest"
)

// A Rule is a detection rule that is loaded.
type Rule struct {
	Name       string         `json:"name"`
	Desc       string         `json:"desc"`
	Source     string         `json:"source"` // k8s_audit or syscall
	Priority   alert.Priority `json:"priority"`
	Tags       []string       `json:"tags"`
	Silent     string         `json:"silent,omitempty"` // why it raises no alert; empty: it does
	File       string         `json:"file"`
	Line       int            `json:"line"`
	Condition  string         `json:"condition"` // with lists and exceptions put in
	Output     string         `json:"output"`
	Exceptions []string       `json:"exceptions"` // one line each
}

// countedRule is a rule with its stored alerts.
type countedRule struct {
	Rule
	alert.Matches
}

var ruleParams = []string{"text", "source", "state", "after", "limit"}

// ruleStates are what a rule may be asked for by: whether it raises alerts, and
// whether it has.
var ruleStates = []string{"on", "silent", "matched", "unmatched"}

// rules returns the rules that the URL selects, those that matched most first.
func (s *Server) rules(ctx context.Context, p *rest.Params) ([]countedRule, error) {
	state, source := p.Text("state"), p.Text("source")
	if state != "" && !slices.Contains(ruleStates, state) {
		p.Fail(fmt.Errorf("parameter state: want one of %q, have %q", ruleStates, state))
	}
	if p.Err != nil {
		return nil, p.Err
	}
	counts, err := s.Entities.RuleCounts(ctx)
	if err != nil {
		return nil, err
	}
	out := []countedRule{}
	for _, r := range s.Rules() {
		one := countedRule{r, counts[r.Name]}
		is := map[string]bool{"": true, "on": r.Silent == "", "silent": r.Silent != "", "matched": one.Count > 0, "unmatched": one.Count == 0}
		if is[state] && (source == "" || source == r.Source) && contains(p.Text("text"), append(r.Tags, r.Name, r.Desc, r.Condition)...) {
			out = append(out, one)
		}
	}
	slices.SortStableFunc(out, func(a, b countedRule) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

func (s *Server) listRules(w http.ResponseWriter, r *http.Request) error {
	p := rest.Parse(r.URL, ruleParams...)
	all, err := s.rules(r.Context(), p)
	if err != nil {
		return err
	}
	page, next := rest.Slice(p, all)
	if p.Err != nil {
		return p.Err
	}
	return rest.WriteJSON(w, http.StatusOK, rest.Items(page, next))
}

// rule returns the rule that the path names.
func (s *Server) rule(r *http.Request) (countedRule, error) {
	for _, one := range s.Rules() {
		if one.Name == r.PathValue("name") {
			counts, err := s.Entities.RuleCounts(r.Context())
			return countedRule{one, counts[one.Name]}, err
		}
	}
	return countedRule{}, &rest.Error{Code: http.StatusNotFound, Text: "there is no rule of this name; its file may have changed"}
}

func (s *Server) getRule(w http.ResponseWriter, r *http.Request) error {
	one, err := s.rule(r)
	if err != nil {
		return err
	}
	return rest.WriteJSON(w, http.StatusOK, one)
}

type rulesData struct {
	Rows              []countedRule
	Total, Silent     int
	Query             url.Values
	Filtered          bool
	First, More, JSON string
	Sources, States   []string
}

func (s *Server) rulesPage(w http.ResponseWriter, r *http.Request) error {
	p := rest.Parse(r.URL, ruleParams...)
	all, err := s.rules(r.Context(), p)
	if err != nil {
		return err
	}
	data := rulesData{
		Total: len(all), Query: p.Values, JSON: rest.With("/api/v1/rules", p.Values), Sources: []string{"k8s_audit", "syscall"}, States: ruleStates,
		Filtered: rest.With("", p.Values, "after", "", "limit", "") != "",
	}
	for _, one := range all {
		if one.Silent != "" {
			data.Silent++
		}
	}
	var next string
	if data.Rows, next = rest.Slice(p, all); p.Err != nil {
		return p.Err
	}
	data.First, data.More = rest.Steps("/rules", p, next)
	return s.show(w, r, "rules", "Rules", data)
}

type ruleData struct {
	countedRule
	List alertList
	JSON string
}

func (s *Server) rulePage(w http.ResponseWriter, r *http.Request) error {
	one, err := s.rule(r)
	if err != nil {
		return err
	}
	data := ruleData{countedRule: one, List: alertList{Max: 10}, JSON: "/api/v1/rules/" + url.PathEscape(one.Name)}
	if data.List.Rows, _, err = s.Alerts.Alerts(r.Context(), alert.Query{Rule: one.Name, Limit: 10}); err != nil {
		return err
	}
	return s.show(w, r, "rule", one.Name, data)
}

var policyParams = []string{"text", "state", "after", "limit"}

// policyStates are what a policy may be asked for by: whether it is in force,
// and whether it has mistakes.
var policyStates = []string{"enforced", "not-enforced", "mistaken"}

// A judgedPolicy is a policy with what it has said lately.
type judgedPolicy struct {
	Policy
	Held    int `json:"held"`    // requests that it would have denied in the last days, had it denied
	Objects int `json:"objects"` // in the cluster that violate it
}

func (s *Server) judgedPolicies(r *http.Request, p *rest.Params) ([]judgedPolicy, error) {
	state := p.Text("state")
	if state != "" && !slices.Contains(policyStates, state) {
		p.Fail(fmt.Errorf("parameter state: want one of %q, have %q", policyStates, state))
	}
	if p.Err != nil {
		return nil, p.Err
	}
	held, _, err := s.Readiness(r.Context(), readinessDays)
	if err != nil {
		return nil, err
	}
	requests, objects := map[string]int{}, map[string]int{}
	for _, h := range held {
		requests[h.Policy] += h.Requests
	}
	result, _ := s.Audit()
	last := map[string]finding.Subject{}
	for _, v := range result.Violations() {
		if last[v.Policy] != v.Subject { // an object counts once
			last[v.Policy] = v.Subject
			objects[v.Policy]++
		}
	}
	out := []judgedPolicy{}
	for _, one := range s.Policies().Items {
		is := map[string]bool{"": true, "enforced": one.Enforced != "nobody", "not-enforced": one.Enforced == "nobody", "mistaken": len(one.Errors) > 0}
		if is[state] && contains(p.Text("text"), one.Name, one.Kind, one.Source, one.Namespace) {
			out = append(out, judgedPolicy{one, requests[one.Name], objects[one.Name]})
		}
	}
	slices.SortStableFunc(out, func(a, b judgedPolicy) int {
		return cmp.Or(cmp.Compare(len(b.Errors), len(a.Errors)), cmp.Compare(b.Held+b.Objects, a.Held+a.Objects), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

type policiesData struct {
	Rows              []judgedPolicy
	Total             int
	Unread            []string
	Status            string
	Query             url.Values
	Filtered          bool
	First, More, JSON string
	States            []string
	Days              int
}

func (s *Server) policiesPage(w http.ResponseWriter, r *http.Request) error {
	p := rest.Parse(r.URL, policyParams...)
	all, err := s.judgedPolicies(r, p)
	if err != nil {
		return err
	}
	policies := s.Policies()
	data := policiesData{
		Total: len(all), Unread: policies.Unread, Status: policies.Status, Query: p.Values, JSON: "/api/v1/policies", States: policyStates, Days: readinessDays,
		Filtered: rest.With("", p.Values, "after", "", "limit", "") != "",
	}
	var next string
	if data.Rows, next = rest.Slice(p, all); p.Err != nil {
		return p.Err
	}
	data.First, data.More = rest.Steps("/policies", p, next)
	return s.show(w, r, "policies", "Policies", data)
}
