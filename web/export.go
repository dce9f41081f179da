package web

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/access"
	"github.com/kubeguardian/kubeguardian/action"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/web/export"
	"github.com/kubeguardian/kubeguardian/web/query"
	"github.com/kubeguardian/kubeguardian/web/rest"
)

// An exportable is a list that can be taken away: the parameters that select
// from it, its columns, and what writes all of it.
type exportable struct {
	needs           access.Permission
	params, columns []string
	write           func(r *http.Request, p *rest.Params, e *export.Writer) error
}

func (s *Server) exportables() map[string]exportable {
	return map[string]exportable{
		"actions": {"list actions", actionParams, []string{"entry", "time", "user", "source", "action", "object", "change", "result", "previous", "hash"}, s.exportActions},
		"alerts":  {"list alerts", query.AlertParams, []string{"time", "priority", "rule", "source", "cluster", "namespace", "subject", "user", "action", "from", "output", "tactics", "repeats", "id"}, s.exportAlerts},
		"incidents": {"list incidents", query.IncidentParams, []string{"last", "first", "state", "score", "worst", "assignee", "story", "tactics", "alerts", "reason", "id"},
			s.exportIncidents},
		"decisions": {"list decisions", query.DecisionParams, []string{"time", "outcome", "dryRun", "user", "operation", "subject", "policies", "messages", "id"}, s.exportDecisions},
		"findings":  {"list findings", query.FindingParams, []string{"severity", "status", "control", "title", "level", "subject", "source", "message", "reason", "fix", "observedAt"}, s.exportFindings},
		"audit":     {"list findings", query.AuditParams, []string{"policy", "binding", "enforcement", "subject", "message"}, s.exportAudit},
		"readiness": {"list decisions", readinessParams, []string{"policy", "binding", "enforcement", "requests", "last"}, s.exportReadiness},
		"rules":     {"list policies", ruleParams, []string{"rule", "priority", "source", "silent", "alerts", "last", "tags", "file", "description", "condition"}, s.exportRules},
		"timeline":  {"get incidents", []string{"incident"}, []string{"time", "kind", "source", "grade", "title", "text", "id"}, s.exportTimeline},
		"policies":  {"list policies", policyParams, []string{"policy", "namespace", "kind", "source", "enforced", "objects", "requests", "mistakes"}, s.exportPolicies},
	}
}

// export sends all of a list that its filters select. An error after the first
// byte breaks the transfer off, so that nobody takes a part for the whole.
func (s *Server) export(name string, list exportable) rest.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		filters := slices.DeleteFunc(slices.Clone(list.params), func(name string) bool { return slices.Contains([]string{"before", "after", "limit"}, name) })
		p := rest.Parse(r.URL, append(filters, "format")...)
		format := cmp.Or(p.Text("format"), "json")
		if format != "csv" && format != "json" {
			p.Fail(errors.New("parameter format: want csv or json"))
		}
		if p.Err != nil {
			return p.Err
		}
		e := &export.Writer{W: w, Send: s.live.Send, Name: name, CSV: format == "csv", Columns: list.columns}
		err := list.write(r, p, e)
		if err == nil {
			err = e.End()
		}
		if err == nil || !e.Begun {
			return err
		}
		if r.Context().Err() == nil {
			s.Log.Error("export broken off", "list", name, "rows", e.Rows, "error", err)
		}
		panic(http.ErrAbortHandler)
	}
}

// pagesOf calls add for each record of all pages.
func pagesOf[T any, C comparable](page func(at C) ([]T, C, error), add func(*T) error) error {
	var at, end C
	for {
		records, next, err := page(at)
		if err != nil {
			return err
		}
		for i := range records {
			if err := add(&records[i]); err != nil {
				return err
			}
		}
		if next == end {
			return nil
		}
		at = next
	}
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func (s *Server) exportActions(r *http.Request, p *rest.Params, e *export.Writer) error {
	if p.Err != nil {
		return p.Err
	}
	return pagesOf(func(before int64) ([]action.Entry, int64, error) {
		return s.Actions.Actions(r.Context(), before, rest.MaxPageSize)
	}, func(a *action.Entry) error {
		return e.Add(a, strconv.FormatInt(a.Seq, 10), stamp(a.Time), a.User, a.Source, a.Action, a.Object, a.Change, a.Result, a.Previous, a.Hash)
	})
}

func (s *Server) exportAlerts(r *http.Request, p *rest.Params, e *export.Writer) error {
	q := query.Alerts(p)
	q.Limit = rest.MaxPageSize
	if p.Err != nil {
		return p.Err
	}
	return pagesOf(func(at finding.Cursor) ([]alertRow, finding.Cursor, error) {
		q.Before = at
		page, next, err := s.Alerts.Alerts(r.Context(), q)
		rows := make([]alertRow, len(page))
		for i, record := range page {
			rows[i] = newAlertRow(record)
		}
		return rows, next, err
	}, func(a *alertRow) error {
		repeats := 0
		if a.Repeats != nil {
			repeats = a.Repeats.Count
		}
		return e.Add(a.Record, stamp(a.Time), a.Priority.String(), a.Rule, a.Source, a.Cluster, a.Subject.Namespace, a.Object, a.User, a.Action, a.From, a.Output,
			strings.Join(a.Tactics, " "), strconv.Itoa(repeats), a.ID)
	})
}

func (s *Server) exportIncidents(r *http.Request, p *rest.Params, e *export.Writer) error {
	q := query.Incidents(p)
	q.Limit = 200 // each may hold hundreds of alerts
	if p.Err != nil {
		return p.Err
	}
	return pagesOf(func(at finding.Cursor) ([]incident.Incident, finding.Cursor, error) {
		q.Before = at
		return s.Incidents.Incidents(r.Context(), q)
	}, func(i *incident.Incident) error {
		return e.Add(i, stamp(i.Last), stamp(i.First), string(i.State), strconv.Itoa(i.Score), i.Worst.String(), i.Assignee, i.Story,
			strings.Join(i.Tactics, " "), strconv.Itoa(len(i.Signals)+i.Dropped), i.Reason, i.ID)
	})
}

func (s *Server) exportDecisions(r *http.Request, p *rest.Params, e *export.Writer) error {
	q := query.Decisions(p)
	q.Limit = rest.MaxPageSize
	if p.Err != nil {
		return p.Err
	}
	return pagesOf(func(at finding.Cursor) ([]finding.Decision, finding.Cursor, error) {
		q.Before = at
		return s.Decisions.Decisions(r.Context(), q)
	}, func(d *finding.Decision) error {
		var policies, messages []string
		for _, v := range d.Violations {
			policies, messages = append(policies, v.Policy), append(messages, v.Message)
		}
		return e.Add(d, stamp(d.Time), string(d.Outcome()), strconv.FormatBool(d.DryRun), d.User, d.Operation, d.Subject.String(),
			strings.Join(policies, "; "), strings.Join(messages, "; "), d.ID)
	})
}

func (s *Server) exportFindings(r *http.Request, p *rest.Params, e *export.Writer) error {
	q := query.Findings(p)
	q.Limit = rest.MaxPageSize
	if p.Err != nil {
		return p.Err
	}
	return pagesOf(func(at string) ([]finding.Finding, string, error) {
		q.After = at
		return s.Findings.FindingPage(r.Context(), q)
	}, func(f *finding.Finding) error {
		return e.Add(f, string(f.Severity), string(f.Status), f.Control, f.Title, string(f.Level), f.Subject.String(), f.Subject.Source, f.Message, f.Reason, f.Fix, stamp(f.ObservedAt))
	})
}

func (s *Server) exportAudit(_ *http.Request, p *rest.Params, e *export.Writer) error {
	q := query.NewAudit(p)
	if p.Err != nil {
		return p.Err
	}
	result, _ := s.Audit()
	for _, v := range result.Violations() {
		if !q.Selects(&v) {
			continue
		}
		if err := e.Add(v, v.Policy, v.Binding, v.Enforcement, v.Subject.String(), v.Message); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) exportReadiness(r *http.Request, p *rest.Params, e *export.Writer) error {
	p.Values.Set("limit", strconv.Itoa(rest.MaxPageSize))
	return pagesOf(func(at string) ([]finding.Readiness, string, error) {
		p.Values.Set("after", at)
		page, err := s.readiness(r, p)
		return page.Items, page.Next, err
	}, func(item *finding.Readiness) error {
		return e.Add(item, item.Policy, item.Binding, item.Enforcement, strconv.Itoa(item.Requests), stamp(item.Last))
	})
}

func (s *Server) exportRules(r *http.Request, p *rest.Params, e *export.Writer) error {
	all, err := s.rules(r.Context(), p)
	for _, one := range all {
		if err == nil {
			err = e.Add(one, one.Name, one.Priority.String(), one.Source, one.Silent, strconv.Itoa(one.Count), stamp(one.Last), strings.Join(one.Tags, " "),
				fmt.Sprintf("%s:%d", one.File, one.Line), one.Desc, one.Condition)
		}
	}
	return err
}

func (s *Server) exportPolicies(r *http.Request, p *rest.Params, e *export.Writer) error {
	all, err := s.judgedPolicies(r, p)
	for _, one := range all {
		var mistakes []string
		for _, m := range one.Errors {
			mistakes = append(mistakes, m.Message)
		}
		if err == nil {
			err = e.Add(one, one.Name, one.Namespace, one.Kind, one.Source, one.Enforced, strconv.Itoa(one.Objects), strconv.Itoa(one.Held), strings.Join(mistakes, "; "))
		}
	}
	return err
}

// exported returns the address of all of a list, from that of a page of it in
// the API.
func exported(page, format string) (string, error) {
	u, err := url.Parse(page)
	if err != nil {
		return "", err
	}
	list := u.Path[strings.LastIndexByte(u.Path, '/')+1:]
	return rest.With("/api/v1/export/"+list, u.Query(), "before", "", "after", "", "limit", "", "format", format), nil
}
