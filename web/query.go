package web

import (
	"fmt"
	"strconv"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/web/rest"
)

func parseSeq(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("want the id of a stream event, have %q", s)
	}
	return int64(n), nil
}

var alertParams = []string{"rule", "priority", "namespace", "entity", "text", "since", "until", "before", "limit"}

var streamParams = []string{"rule", "priority", "namespace", "entity", "text", "after"}

func alertQuery(p *rest.Params) alert.Query {
	q := alert.Query{
		Rule: p.Text("rule"), Namespace: p.Text("namespace"), Text: p.Text("text"), Entity: rest.Value(p, "entity", alert.ParseEntity),
		Since: rest.Value(p, "since", rest.ParseTime), Until: rest.Value(p, "until", rest.ParseTime),
		Before: rest.Value(p, "before", finding.ParseCursor), Limit: int(rest.Value(p, "limit", rest.ParseNatural)),
	}
	if p.Text("priority") != "" {
		priority := rest.Value(p, "priority", alert.ParsePriority)
		q.Priority = &priority
	}
	return q
}

var decisionParams = []string{"outcome", "namespace", "text", "since", "until", "before", "limit"}

func decisionQuery(p *rest.Params) finding.DecisionQuery {
	return finding.DecisionQuery{
		Outcome: rest.Value(p, "outcome", finding.ParseOutcome), Namespace: p.Text("namespace"), Text: p.Text("text"),
		Since: rest.Value(p, "since", rest.ParseTime), Until: rest.Value(p, "until", rest.ParseTime),
		Before: rest.Value(p, "before", finding.ParseCursor), Limit: int(rest.Value(p, "limit", rest.ParseNatural)),
	}
}

var findingParams = []string{"control", "level", "severity", "status", "namespace", "text", "after", "limit"}

func findingQuery(p *rest.Params) finding.Query {
	return finding.Query{
		Control: p.Text("control"), Level: rest.Value(p, "level", finding.ParseLevel),
		Severity: rest.Value(p, "severity", finding.ParseSeverity), Status: rest.Value(p, "status", finding.ParseStatus),
		Namespace: p.Text("namespace"), Text: p.Text("text"), After: p.Text("after"),
		Limit: int(rest.Value(p, "limit", rest.ParseNatural)),
	}
}
