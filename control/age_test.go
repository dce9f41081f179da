package control_test

import (
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
)

func TestAged(t *testing.T) {
	c := load(t, map[string][]string{"code": {entry("COD-AAA-01", "low", "")}})
	seen := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	live, file := finding.Subject{Kind: "Pod", Name: "web"}, finding.Subject{Kind: "Pod", Name: "web", Source: "pod.yaml:1"}
	tests := []struct {
		name    string
		control string
		status  finding.Status
		subject finding.Subject
		seen    time.Time
		age     time.Duration
		want    finding.Status
		reason  string
	}{
		{"fresh pass", "COD-AAA-01", finding.Pass, live, seen, 15 * time.Minute, finding.Pass, ""},
		{"stale pass", "COD-AAA-01", finding.Pass, live, seen, 16 * time.Minute, finding.Unknown, "evidence is 16m0s old, good for 15m0s"},
		{"stale fail", "COD-AAA-01", finding.Fail, live, seen, time.Hour, finding.Fail, ""},
		{"stale exception", "COD-AAA-01", finding.Excepted, live, seen, time.Hour, finding.Excepted, ""},
		{"pass without a time", "COD-AAA-01", finding.Pass, live, time.Time{}, time.Minute, finding.Unknown, "evidence has no time"},
		{"files are as old as the scan", "COD-AAA-01", finding.Pass, file, seen, 24 * time.Hour, finding.Pass, ""},
		{"clock behind the evidence", "COD-AAA-01", finding.Pass, live, seen, -time.Hour, finding.Pass, ""},
		{"unknown control", "COD-OLD-01", finding.Pass, live, seen, time.Hour, finding.Pass, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := []finding.Finding{{Definition: &finding.Definition{Control: tt.control}, Detail: &finding.Detail{ObservedAt: tt.seen}, Status: tt.status, Subject: &tt.subject}}
			after := c.Aged(before, seen.Add(tt.age))
			if after[0].Status != tt.want || after[0].Reason != tt.reason {
				t.Errorf("Aged = %s %q, want %s %q", after[0].Status, after[0].Reason, tt.want, tt.reason)
			}
			if before[0].Status != tt.status || before[0].Reason != "" {
				t.Error("Aged changed its argument")
			}
		})
	}
}

// TestAgedByKind expects evidence from elsewhere to age for files as well: a
// manifest is as old as the scan, a report beside it is not.
func TestAgedByKind(t *testing.T) {
	c := load(t, map[string][]string{"code": {entry("COD-AAA-01", "low", "")}})
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name   string
		kind   evidence.Kind
		age    time.Duration
		reason string
	}{
		{"manifest", evidence.API, 1000 * time.Hour, ""},
		{"fresh report", evidence.Image, 23 * time.Hour, ""},
		{"stale report", evidence.Image, 25 * time.Hour, "evidence is 25h0m0s old, good for 24h0m0s"},
		{"a zone ahead", evidence.Image, -14 * time.Hour, ""},
		{"from the future", evidence.Image, -48 * time.Hour, "evidence is dated 2026-11-28, which is in the future"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := finding.Finding{
				Definition: &finding.Definition{Control: "COD-AAA-01"},
				Detail:     &finding.Detail{EvidenceKind: string(tt.kind), ObservedAt: now.Add(-tt.age)},
				Status:     finding.Pass, Subject: &finding.Subject{Kind: "Pod", Name: "web", Source: "pod.yaml:1"},
			}
			after := c.Aged([]finding.Finding{f}, now)[0]
			if after.Reason != tt.reason || (after.Status == finding.Pass) != (tt.reason == "") {
				t.Errorf("%s %q, want %q", after.Status, after.Reason, tt.reason)
			}
		})
	}
}
