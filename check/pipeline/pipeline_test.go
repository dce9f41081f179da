package pipeline_test

import (
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/check/pipeline"
	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

var now = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

func analysis(kind evidence.AnalysisType, repository, commit string, age time.Duration, results ...evidence.Result) evidence.Analysis {
	return evidence.Analysis{
		Origin: evidence.Origin{Kind: evidence.Repo, Tool: "CodeQL 2.20", Source: "report.sarif", SeenAt: now.Add(-age)},
		Type:   kind, Repository: repository, Commit: commit, Results: results,
	}
}

func high(since time.Time) evidence.Result {
	return evidence.Result{Rule: "sql", File: "db.go", Severity: finding.High, Since: since}
}

const shop = "https://github.com/acme/shop"

func TestStatic(t *testing.T) {
	running := map[string][]string{"github.com/acme/shop": {"abcdef0", "abcdef1"}}
	for _, tt := range []struct {
		name     string
		commits  map[string][]string
		analyses []evidence.Analysis
		want     string // states, in order
		says     string
	}{
		{"nothing", nil, nil, "", ""},
		{"both commits", running, []evidence.Analysis{analysis(evidence.SAST, shop, "abcdef0", 0), analysis(evidence.SAST, shop, "abcdef1", 0)}, "pass", "commit abcdef0"},
		{"one of two", running, []evidence.Analysis{analysis(evidence.SAST, shop, "abcdef0", 0)}, "fail", "abcdef1"},
		{"long ago is as good", running, []evidence.Analysis{analysis(evidence.SAST, shop, "abcdef0", 1e6*time.Second), analysis(evidence.SAST, shop, "abcdef1", 1e6*time.Second)}, "pass", ""},
		{"repository not said", running, []evidence.Analysis{analysis(evidence.SAST, "", "abcdef0", 0), analysis(evidence.SAST, "", "abcdef1", 0)}, "pass", ""},
		{"commit not said", running, []evidence.Analysis{analysis(evidence.SAST, shop, "", 0)}, "unknown", "does not say which commit"},
		{"neither said", running, []evidence.Analysis{analysis(evidence.SAST, "", "", 0)}, "unknown", "neither which repository nor which commit"},
		{"another type", running, []evidence.Analysis{analysis(evidence.SCA, shop, "abcdef0", 0)}, "unknown", "no report of a static analysis"},
		{"high", running, []evidence.Analysis{analysis(evidence.SAST, shop, "abcdef0", 0, high(now)), analysis(evidence.SAST, shop, "abcdef1", 0)}, "fail", "did not stop the commit: sql in db.go"},
		{"two repositories", map[string][]string{"github.com/acme/shop": {"abcdef0"}, "github.com/nginx/nginx": {"1234567"}},
			[]evidence.Analysis{analysis(evidence.SAST, shop, "abcdef0", 0)}, "pass unknown", "1 repository"},
		{"what runs is not known", nil, []evidence.Analysis{analysis(evidence.SAST, shop, "abcdef0", 0)}, "unknown", "which commit runs is not known"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			found := pipeline.New(&evidence.Set{Analyses: tt.analyses}, tt.commits, now).Static()
			var states []string
			text := ""
			for _, f := range found {
				states = append(states, string(f.Status))
				text += f.Message + f.Reason + f.Evidence
				if f.Subject.Kind != "Pipeline" {
					t.Errorf("subject %+v", f.Subject)
				}
			}
			if have := strings.Join(states, " "); have != tt.want || !strings.Contains(text, tt.says) {
				t.Errorf("%s %q, want %s with %q", have, text, tt.want, tt.says)
			}
		})
	}
}

func TestDependenciesDoNotAskForFindings(t *testing.T) {
	set := &evidence.Set{Analyses: []evidence.Analysis{analysis(evidence.SCA, shop, "abcdef0", 0, high(now))}}
	found := pipeline.New(set, map[string][]string{"github.com/acme/shop": {"abcdef0123"}}, now).Dependencies()
	if len(found) != 1 || found[0].Status != finding.Pass {
		t.Errorf("%+v", found)
	}
}

func TestOpen(t *testing.T) {
	old, recent := now.AddDate(0, -2, 0), now.AddDate(0, 0, -2)
	low := evidence.Result{Rule: "style", Severity: finding.Low, Since: old}
	for _, tt := range []struct {
		name     string
		analyses []evidence.Analysis
		want     finding.Status
	}{
		{"none", []evidence.Analysis{analysis(evidence.SAST, shop, "a", time.Hour)}, finding.Pass},
		{"recent", []evidence.Analysis{analysis(evidence.SAST, shop, "a", time.Hour, high(recent))}, finding.Pass},
		{"old", []evidence.Analysis{analysis(evidence.SAST, shop, "a", time.Hour, high(old))}, finding.Fail},
		{"old and low", []evidence.Analysis{analysis(evidence.SAST, shop, "a", time.Hour, low)}, finding.Pass},
		{"not said", []evidence.Analysis{analysis(evidence.SAST, shop, "a", time.Hour, high(time.Time{}))}, finding.Unknown},
		{"in an old report", []evidence.Analysis{
			analysis(evidence.SAST, shop, "a", time.Hour, high(time.Time{})), analysis(evidence.SAST, shop, "b", 60*24*time.Hour, high(time.Time{})),
		}, finding.Fail},
		{"fixed since", []evidence.Analysis{
			analysis(evidence.SAST, shop, "a", time.Hour), analysis(evidence.SAST, shop, "b", 60*24*time.Hour, high(old)),
		}, finding.Pass},
		{"of a report that is old itself", []evidence.Analysis{analysis(evidence.SAST, shop, "b", 60*24*time.Hour, high(time.Time{}))}, finding.Fail},
	} {
		found := pipeline.New(&evidence.Set{Analyses: tt.analyses}, nil, now).Open()
		if len(found) != 1 || found[0].Status != tt.want || found[0].Subject != (finding.Subject{Kind: "Repository", Name: "github.com/acme/shop"}) {
			t.Errorf("%s: %+v", tt.name, found)
		}
	}
}

func TestDynamicWithoutExposure(t *testing.T) {
	inv, err := inventory.New(inventory.Cluster, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	inside := func(*inventory.Workload) finding.Exposure { return finding.InCluster }
	p := pipeline.New(&evidence.Set{}, nil, now)
	if found := p.Dynamic(inv, inside); len(found) != 1 || found[0].Status != finding.NotApplicable {
		t.Errorf("%+v", found)
	}
	files, err := inventory.New(inventory.Files, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if found := p.Dynamic(files, inside); found != nil {
		t.Errorf("files may leave out what is exposed: %+v", found)
	}
}

func TestDynamic(t *testing.T) {
	const ingress = `---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop, namespace: shop}
spec:
  rules:
  - host: Shop.example.com
  - host: "*.wild.example.com"
`
	const route = `---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: api, namespace: shop}
spec: {hostnames: [api.example.com]}
`
	day := 24 * time.Hour
	scan := func(age time.Duration, targets ...string) evidence.Analysis {
		return evidence.Analysis{
			Origin: evidence.Origin{Kind: evidence.DAST, Tool: "ZAP 2.16", Source: "zap.json", SeenAt: now.Add(-age)},
			Type:   evidence.DASTScan, Targets: targets,
		}
	}
	undated := scan(0, "https://shop.example.com")
	undated.SeenAt = time.Time{}
	for _, tt := range []struct {
		name, objects string
		scans         []evidence.Analysis
		want          finding.Status
		says          string
	}{
		{"the host", ingress, []evidence.Analysis{scan(day, "https://shop.example.com:443/app")}, finding.Pass, "ZAP 2.16 of https://shop.example.com"},
		{"a month", ingress, []evidence.Analysis{scan(30*day, "https://shop.example.com")}, finding.Pass, ""},
		{"over a month", ingress, []evidence.Analysis{scan(31*day, "https://shop.example.com")}, finding.Fail, "31 days old"},
		{"another host", ingress, []evidence.Analysis{scan(day, "https://staging.example.com")}, finding.Unknown, "no dynamic scan of shop.example.com"},
		{"one of two", ingress + route, []evidence.Analysis{scan(day, "https://shop.example.com")}, finding.Unknown, "api.example.com"},
		{"both in two scans", ingress + route, []evidence.Analysis{scan(day, "https://shop.example.com"), scan(2*day, "http://api.example.com")}, finding.Pass, ""},
		{"the second is too old", ingress + route, []evidence.Analysis{scan(day, "https://shop.example.com"), scan(40*day, "http://api.example.com")}, finding.Unknown, "api.example.com"},
		{"no host is known", "", []evidence.Analysis{scan(day, "https://staging.example.com")}, finding.Pass, "staging.example.com"},
		{"no time", ingress, []evidence.Analysis{undated}, finding.Unknown, "does not say when"},
		{"from the future", ingress, []evidence.Analysis{scan(-10*day, "https://shop.example.com")}, finding.Unknown, "in the future"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			objects := tt.objects + "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: none}}\n"
			inv, err := inventory.FromFiles(t.Context(), []string{"-"}, strings.NewReader(objects))
			if err != nil {
				t.Fatal(err)
			}
			outside := func(*inventory.Workload) finding.Exposure { return finding.Internet }
			found := pipeline.New(&evidence.Set{Analyses: tt.scans}, nil, now).Dynamic(inv, outside)
			if len(found) != 1 || found[0].Status != tt.want || !strings.Contains(found[0].Message+found[0].Reason+found[0].Evidence, tt.says) {
				t.Errorf("%+v, want %s with %q", found, tt.want, tt.says)
			}
		})
	}
}

// A list of many findings names the first.
func TestManyFindings(t *testing.T) {
	var results []evidence.Result
	for _, file := range strings.Fields("a.go b.go c.go d.go e.go f.go g.go") {
		results = append(results, evidence.Result{Rule: "sql", File: file, Line: 3, Severity: finding.Critical, Since: now.AddDate(0, -1, 0)})
	}
	found := pipeline.New(&evidence.Set{Analyses: []evidence.Analysis{analysis(evidence.SAST, shop, "a", time.Hour, results...)}}, nil, now).Open()
	if len(found) != 1 || found[0].Message != "7 findings are open for longer than agreed" || !strings.HasPrefix(found[0].Evidence, "sql in a.go:3; ") || !strings.Contains(found[0].Evidence, "2 more") {
		t.Errorf("%+v", found)
	}
}
