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
