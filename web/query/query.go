// Package query reads what a list is asked for, by the parameters of its URL. Pages,
// the JSON API and exports ask alike.
package query

import (
	"fmt"
	"slices"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify/delivery"
	"github.com/kubeguardian/kubeguardian/web/rest"
)

// The parameters that each list knows, by which the function of its name selects.
var (
	AlertParams    = []string{"rule", "priority", "namespace", "cluster", "entity", "text", "since", "until", "before", "limit"}
	StreamParams   = []string{"rule", "priority", "namespace", "cluster", "entity", "text", "after"} // of live alerts
	DecisionParams = []string{"outcome", "namespace", "text", "since", "until", "before", "limit"}
	FindingParams  = []string{"control", "level", "severity", "status", "namespace", "text", "after", "limit"}
	IncidentParams = []string{"state", "paged", "cluster", "text", "before", "limit"}
	DeliveryParams = []string{"destination", "state", "incident", "before", "limit"}
	AuditParams    = []string{"policy", "enforcement", "namespace", "text", "after", "limit"}
)

// Alerts selects alerts, also of a stream.
func Alerts(p *rest.Params) alert.Query {
	q := alert.Query{
		Rule: p.Text("rule"), Namespace: p.Text("namespace"), Cluster: p.Text("cluster"), Text: p.Text("text"), Entity: rest.Value(p, "entity", alert.ParseEntity),
		Since: rest.Value(p, "since", rest.ParseTime), Until: rest.Value(p, "until", rest.ParseTime),
		Before: rest.Value(p, "before", finding.ParseCursor), Limit: int(rest.Value(p, "limit", rest.ParseNatural)),
	}
	if p.Text("priority") != "" {
		priority := rest.Value(p, "priority", alert.ParsePriority)
		q.Priority = &priority
	}
	return q
}

// Decisions selects admission decisions.
func Decisions(p *rest.Params) finding.DecisionQuery {
	return finding.DecisionQuery{
		Outcome: rest.Value(p, "outcome", finding.ParseOutcome), Namespace: p.Text("namespace"), Text: p.Text("text"),
		Since: rest.Value(p, "since", rest.ParseTime), Until: rest.Value(p, "until", rest.ParseTime),
		Before: rest.Value(p, "before", finding.ParseCursor), Limit: int(rest.Value(p, "limit", rest.ParseNatural)),
	}
}

// Findings selects findings.
func Findings(p *rest.Params) finding.Query {
	return finding.Query{
		Control: p.Text("control"), Level: rest.Value(p, "level", finding.ParseLevel),
		Severity: rest.Value(p, "severity", finding.ParseSeverity), Status: rest.Value(p, "status", finding.ParseStatus),
		Namespace: p.Text("namespace"), Text: p.Text("text"), After: p.Text("after"),
		Limit: int(rest.Value(p, "limit", rest.ParseNatural)),
	}
}

// Incidents selects open incidents unless the URL says otherwise.
func Incidents(p *rest.Params) incident.Query {
	q := incident.Query{
		State: incident.Open, Cluster: p.Text("cluster"), Text: p.Text("text"), Paged: p.Text("paged") == "true",
		Before: rest.Value(p, "before", finding.ParseCursor), Limit: int(rest.Value(p, "limit", rest.ParseNatural)),
	}
	switch state := incident.State(p.Text("state")); {
	case state == "all":
		q.State = ""
	case state == "" || state == incident.Open:
	case slices.Contains(incident.States(), state):
		q.State = state
	default:
		p.Fail(fmt.Errorf("parameter state: want open, all or one of %q, have %q", incident.States(), state))
	}
	if v := p.Text("paged"); v != "" && v != "true" && v != "false" {
		p.Fail(fmt.Errorf("parameter paged: want true or false, have %q", v))
	}
	return q
}

// Deliveries selects messages to destinations.
func Deliveries(p *rest.Params) delivery.Query {
	q := delivery.Query{
		Destination: p.Text("destination"), State: delivery.State(p.Text("state")), Incident: p.Text("incident"),
		Before: int64(rest.Value(p, "before", rest.ParseNatural)), Limit: int(rest.Value(p, "limit", rest.ParseNatural)),
	}
	if q.State != "" && !slices.Contains(delivery.States(), q.State) {
		p.Fail(fmt.Errorf("parameter state: want one of %q, have %q", delivery.States(), q.State))
	}
	return q
}
