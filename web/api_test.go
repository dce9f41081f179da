package web

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/action"
	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/audit"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/health"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/incident/timeline"
	"github.com/kubeguardian/kubeguardian/notify/delivery"
	"github.com/kubeguardian/kubeguardian/playground"
	"github.com/kubeguardian/kubeguardian/web/query"
)

type openAPI struct {
	Paths map[string]map[string]struct {
		Parameters []struct {
			Ref  string `json:"$ref"`
			Name string `json:"name"`
			In   string `json:"in"`
		} `json:"parameters"`
	} `json:"paths"`
	Components struct {
		Schemas map[string]schema `json:"schemas"`
	} `json:"components"`
}

type schema struct {
	Required   []string          `json:"required"`
	Properties map[string]schema `json:"properties"`
	Items      *schema           `json:"items"`
}

func readOpenAPI(t *testing.T) (doc openAPI) {
	t.Helper()
	data, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// The document and the server have the same routes with the same parameters.
func TestOpenAPIRoutes(t *testing.T) {
	doc := readOpenAPI(t)
	s := newSite(t)
	var have, want []string
	for path, methods := range doc.Paths {
		for method := range methods {
			want = append(want, strings.ToUpper(method)+" "+path)
		}
	}
	for _, r := range s.routes() {
		if strings.HasPrefix(r.path, "/api/") && r.path != "/api/" {
			path := strings.Replace(r.path, "...", "", 1)
			if strings.HasPrefix(path, "/api/v1/export/") {
				path = "/api/v1/export/{list}"
			}
			have = append(have, r.method+" "+path)
		}
	}
	slices.Sort(have)
	have = slices.Compact(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		t.Errorf("the server has\n%v\nand the document\n%v", have, want)
	}
	for path, params := range map[string][]string{
		"/api/v1/alerts": query.AlertParams, "/api/v1/incidents": query.IncidentParams, "/api/v1/decisions": query.DecisionParams, "/api/v1/findings": query.FindingParams, "/api/v1/alerts/stream": query.StreamParams, "/api/v1/audit": auditParams, "/api/v1/actions": actionParams, "/api/v1/deliveries": query.DeliveryParams, "/api/v1/actions/head": headParams, "/api/v1/admission/readiness": readinessParams,
		"/api/v1/search": searchParams, "/api/v1/rules": ruleParams, "/api/v1/incidents/{id}/timeline": append([]string{"id"}, timelineParams...),
	} {
		var named []string
		for _, p := range doc.Paths[path]["get"].Parameters {
			if p.Ref != "" {
				p.Name = p.Ref[strings.LastIndex(p.Ref, "/")+1:]
			}
			if p.In != "header" {
				named = append(named, p.Name)
			}
		}
		slices.Sort(named)
		if params := slices.Sorted(slices.Values(params)); !slices.Equal(named, params) {
			t.Errorf("%s reads %v, the document has %v", path, params, named)
		}
	}
}

// The document and the types have the same keys.
func TestOpenAPISchemas(t *testing.T) {
	schemas := readOpenAPI(t).Components.Schemas
	score := schemas["Posture"].Properties["score"]
	for name, tt := range map[string]struct {
		schema schema
		value  any
	}{
		"Subject":  {schemas["Subject"], finding.Subject{}},
		"Alert":    {schemas["Alert"], alert.Record{}},
		"Decision": {schemas["Decision"], finding.Decision{}},

		"Attribution": {schemas["Attribution"], alert.Attribution{}},
		"Repeats":     {schemas["Repeats"], alert.Repeats{}},
		"Entity":      {schemas["Entity"], alert.Entity{}},

		"Delivery":    {schemas["Delivery"], delivery.Message{}},
		"Destination": {schemas["Destination"], delivery.Status{}},

		"Action":      {schemas["Action"], action.Entry{}},
		"ActionsHead": {schemas["ActionsHead"], actionsHead{}},

		"Incident": {schemas["Incident"], incident.Incident{}},
		"Change":   {schemas["IncidentChange"], incident.Change{}},
		"Signal":   {schemas["Signal"], incident.Signal{}},
		"Link":     {schemas["Link"], incident.Link{}},

		"Act": {schemas["Act"], incident.Act{}}, "Response": {schemas["Response"], incident.Response{}},
		"Timeline": {schemas["Timeline"], timelinePage{}}, "TimelineEntry": {schemas["TimelineEntry"], timeline.Entry{}}, "FindingSpan": {schemas["FindingSpan"], finding.Span{}},

		"Search":    {schemas["Search"], search{}},
		"RuleTrial": {schemas["RuleTrial"], ruleTrial{}}, "RuleResult": {schemas["RuleResult"], playground.RuleResult{}}, "RuleStep": {*schemas["RuleResult"].Properties["steps"].Items, playground.Step{}},
		"PolicyTrial": {schemas["PolicyTrial"], policyTrial{}}, "PolicyResult": {schemas["PolicyResult"], playground.PolicyResult{}},
		"Check": {schemas["Check"], health.Check{}}, "Setting": {schemas["Setting"], config.Setting{}},
		"EntityAll": {schemas["EntityAll"], entity{}},
		"Rule":      {schemas["Rule"], countedRule{}},
		"Companion": {*schemas["EntityAll"].Properties["seenWith"].Items, companion{}},
		"Seen":      {*schemas["Search"].Properties["entities"].Items, alert.Seen{}},

		"Writer": {schemas["Attribution"].Properties["writer"], alert.Writer{}},

		"Violation": {*schemas["Decision"].Properties["violations"].Items, finding.Violation{}},
		"Finding":   {schemas["Finding"], finding.Finding{}},
		"Posture":   {schemas["Posture"], posture{}},
		"Score":     {score, control.Score{}},
		"Level":     {*score.Properties["levels"].Items, control.LevelScore{}},
		"Fix":       {*schemas["Posture"].Properties["fixes"].Items, control.Fix{}},
		"Health":    {schemas["Health"], Health{}},

		"ReadinessPage": {schemas["ReadinessPage"], readinessPage{}},
		"Readiness":     {schemas["Readiness"], finding.Readiness{}},
		"UserRequests":  {*schemas["Readiness"].Properties["users"].Items, finding.UserRequests{}},
		"Held":          {*schemas["Readiness"].Properties["samples"].Items, finding.Held{}},

		"Policies":       {schemas["Policies"], Policies{}},
		"Policy":         {*schemas["Policies"].Properties["items"].Items, Policy{}},
		"PolicyError":    {*schemas["Policies"].Properties["items"].Items.Properties["errors"].Items, PolicyError{}},
		"Audit":          {schemas["Audit"], auditPage{}},
		"AuditViolation": {*schemas["Audit"].Properties["items"].Items, audit.Violation{}},
		"AuditSummary":   {*schemas["Audit"].Properties["summaries"].Items, audit.Summary{}},
		"AuditFailure":   {*schemas["Audit"].Properties["failures"].Items, audit.Failure{}},
	} {
		t.Run(name, func(t *testing.T) {
			var all, required, documented []string
			for _, f := range reflect.VisibleFields(reflect.TypeOf(tt.value)) {
				if f.Anonymous || !f.IsExported() {
					continue
				}
				key, options, _ := strings.Cut(f.Tag.Get("json"), ",")
				if key == "-" {
					continue
				}
				all = append(all, key)
				if options == "" {
					required = append(required, key)
				}
			}
			for key := range tt.schema.Properties {
				documented = append(documented, key)
			}
			slices.Sort(all)
			slices.Sort(required)
			slices.Sort(documented)
			if !slices.Equal(all, documented) {
				t.Errorf("the type has %v, the document %v", all, documented)
			}
			if stated := slices.Sorted(slices.Values(tt.schema.Required)); !slices.Equal(required, stated) {
				t.Errorf("the type always has %v, the document says %v", required, stated)
			}
		})
	}
}

// Following "next" shows every record once.
func TestAPIPages(t *testing.T) {
	s := newSite(t, full(t))
	tests := []struct {
		name, path, cursor, key string
		want, pages             int
	}{
		{"alerts", "/api/v1/alerts?limit=17", "before", "id", 130, 8},
		{"decisions", "/api/v1/decisions?limit=17", "before", "id", 60, 4},
		{"findings", "/api/v1/findings?limit=17&status=fail", "after", "subject", 53, 4},
		{"nothing", "/api/v1/alerts?rule=none", "before", "id", 0, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			seen, pages := map[string]bool{}, 0
			for path := tt.path; path != ""; pages++ {
				code, page := s.bearer(t, path, testToken)
				if code != http.StatusOK {
					t.Fatalf("%d: %v", code, page)
				}
				for _, item := range page["items"].([]any) {
					key := fmt.Sprint(item.(map[string]any)[tt.key])
					if seen[key] {
						t.Errorf("%s is seen twice", key)
					}
					seen[key] = true
				}
				path = ""
				if next, ok := page["next"].(string); ok {
					path = tt.path + "&" + tt.cursor + "=" + url.QueryEscape(next)
				}
			}
			if len(seen) != tt.want || pages != tt.pages {
				t.Errorf("%d records on %d pages, want %d on %d", len(seen), pages, tt.want, tt.pages)
			}
		})
	}
}

func TestAPIAnswers(t *testing.T) {
	s := newSite(t, full(t))
	id := testAlert(5).ID
	if code, a := s.bearer(t, "/api/v1/alerts/"+id, testToken); code != 200 || a["id"] != id || a["rule"] != testAlert(5).Rule || a["seq"] != 6.0 {
		t.Errorf("alert: %d %v", code, a)
	}
	code, p := s.bearer(t, "/api/v1/posture", testToken)
	if code != 200 || p["score"].(map[string]any)["total"] != 52.3 || len(p["fixes"].([]any)) != 4 || p["findings"].(map[string]any)["fail"] != 53.0 {
		t.Errorf("posture: %d %v", code, p)
	}
	if code, a := s.bearer(t, "/api/v1/agents", testToken); code != 200 || len(a["items"].([]any)) != 1 || a["items"].([]any)[0].(map[string]any)["status"] != "degraded" {
		t.Errorf("agents: %d %v", code, a)
	}
	if code, h := s.bearer(t, "/api/v1/health", testToken); code != 200 || h["auditEvents"] != 18204.0 || h["admission"] != true {
		t.Errorf("health: %d %v", code, h)
	}
	if code, body := s.member(t).get("/api/v1/openapi.yaml"); code != 200 || !strings.HasPrefix(body, "openapi: 3.1") {
		t.Errorf("document: %d", code)
	}
}

// TestAPIAuditOpenReports expects an audit as objects of cluster tools.
func TestAPIAuditOpenReports(t *testing.T) {
	v := newSite(t).member(t)
	if code, body := v.get("/api/v1/audit?format=openreports"); code != http.StatusServiceUnavailable || !strings.Contains(body, "no audit has ended yet") {
		t.Errorf("before the first audit: %d %s", code, body)
	}
	v = newSite(t, full(t)).member(t)
	code, body := v.get("/api/v1/audit?format=openreports")
	if code != 200 || strings.Count(body, "name: kubeguardian-audit") != 3 || strings.Count(body, "result: fail") != 3 || strings.Count(body, "result: error") != 1 {
		t.Errorf("%d: %s", code, body)
	}
	checkText(t, body, []string{"kind: ClusterReport", "namespace: bank", "policy: privileged-containers", "message: label the workload with its team"}, nil)
	if _, body := v.get("/api/v1/audit?format=openreports&policy=K8sOwnedWorkload"); strings.Contains(body, "latest") || !strings.Contains(body, "warn: 3") {
		t.Errorf("of one policy: %s", body)
	}
}

// TestAPIReadiness expects the policies that do not deny, with what they would
// have denied.
func TestAPIReadiness(t *testing.T) {
	code, page := newSite(t, full(t)).bearer(t, "/api/v1/admission/readiness?limit=2", testToken)
	items := page["items"].([]any)
	if code != 200 || len(items) != 2 || page["days"] != 7.0 || page["next"] != "2" || page["since"] == nil {
		t.Fatalf("%d: %v", code, page)
	}
	first, second := items[0].(map[string]any), items[1].(map[string]any)
	samples := len(first["samples"].([]any)) // one of each day: the last hour may lie across midnight
	if first["policy"] != "latest-tags" || first["requests"] != 30.0 || samples < 1 || samples > 2 || second["requests"] != 0.0 || len(second["users"].([]any)) != 0 {
		t.Errorf("items %v", items)
	}
	for path, want := range map[string]string{"/api/v1/audit?format=xml": "want json or openreports", "/api/v1/admission/readiness?days=4000": "want 366 or less"} {
		if code, answer := newSite(t).bearer(t, path, testToken); code != http.StatusBadRequest || !strings.Contains(fmt.Sprint(answer["error"]), want) {
			t.Errorf("%s: %d %v", path, code, answer)
		}
	}
	if _, page := newSite(t).bearer(t, "/api/v1/admission/readiness", testToken); len(page["items"].([]any)) != 0 {
		t.Errorf("without policies: %v", page)
	}
}

func TestAPIPolicies(t *testing.T) {
	s := newSite(t)
	if code, p := s.bearer(t, "/api/v1/policies", testToken); code != 200 || len(p["items"].([]any)) != 0 || p["unread"] != nil {
		t.Errorf("without policies: %d %v", code, p)
	}
	s.policies = Policies{Items: []Policy{{Kind: "Labelled", Name: "all", Source: "cluster", Enforced: "admission", Stale: true, Errors: []PolicyError{{Message: "broken"}}}}, Unread: []string{"why"}}
	code, p := s.bearer(t, "/api/v1/policies", testToken)
	if item := p["items"].([]any)[0].(map[string]any); code != 200 || item["stale"] != true || item["errors"].([]any)[0].(map[string]any)["message"] != "broken" || p["unread"].([]any)[0] != "why" {
		t.Errorf("policies: %d %v", code, p)
	}
}

// TestAPIAudit pages through the violations of an audit, and selects some.
func TestAPIAudit(t *testing.T) {
	s := newSite(t)
	if code, a := s.bearer(t, "/api/v1/audit", testToken); code != 200 || a["observedAt"] != nil || len(a["items"].([]any)) != 0 || len(a["summaries"].([]any)) != 0 {
		t.Errorf("before the first audit: %d %v", code, a)
	}
	s = newSite(t, func(s *site) {
		s.seen = time.Now()
		s.audited.Objects, s.audited.Summaries = 40, []audit.Summary{{Policy: "a", Enforcement: "deny", Objects: 30}}
		for i := range 30 {
			s.audited.Found = append(s.audited.Found, audit.Found{
				Subject:    finding.Subject{Kind: "Pod", Name: fmt.Sprint("pod-", i), Namespace: []string{"shop", "bank"}[i%2]},
				Violations: []finding.Violation{{Policy: "a", Enforcement: "deny", Message: "no"}},
			})
			s.audited.Failures = append(s.audited.Failures, audit.Failure{Reason: "broken"})
		}
	})
	seen, pages := map[string]bool{}, 0
	for path := "/api/v1/audit?limit=7&namespace=shop"; path != ""; pages++ {
		code, page := s.bearer(t, path, testToken)
		if code != 200 || page["failed"] != 30.0 || len(page["failures"].([]any)) != 7 || page["objects"] != 40.0 {
			t.Fatalf("%d: %v", code, page)
		}
		for _, item := range page["items"].([]any) {
			seen[item.(map[string]any)["subject"].(map[string]any)["name"].(string)] = true
		}
		path = ""
		if next, ok := page["next"].(string); ok {
			path = "/api/v1/audit?limit=7&namespace=shop&after=" + next
		}
	}
	if len(seen) != 15 || pages != 3 {
		t.Errorf("%d violations on %d pages", len(seen), pages)
	}
	if _, a := s.bearer(t, "/api/v1/audit?enforcement=warn&after=99999", testToken); len(a["items"].([]any)) != 0 {
		t.Errorf("warnings: %v", a)
	}
	if code, _ := s.bearer(t, "/api/v1/audit?after=x", testToken); code != http.StatusBadRequest {
		t.Errorf("a cursor that is none: %d", code)
	}
}
