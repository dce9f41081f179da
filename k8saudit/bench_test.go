package k8saudit_test

import (
	"bytes"
	"io/fs"
	"os"
	"testing"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/k8saudit"
	"github.com/kubeguardian/kubeguardian/rule"
)

// BenchmarkAuditEvents takes the log of a control plane from bytes to alerts
// of the built-in rules, on one core.
func BenchmarkAuditEvents(b *testing.B) {
	log, err := os.ReadFile("../content/rules/testdata/control-plane.quiet.jsonl")
	if err != nil {
		b.Fatal(err)
	}
	data, err := fs.ReadFile(content.Rules(), "kubernetes_audit.yaml")
	if err != nil {
		b.Fatal(err)
	}
	rules, err := rule.Load(rule.File{Name: "kubernetes_audit.yaml", Data: data})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(log)))
	b.ReportAllocs()
	events := 0
	for b.Loop() {
		stats, err := k8saudit.Decode(bytes.NewReader(log), func(e *event.Event) error {
			rules.Match(e, rule.First)
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		events += stats.Events
	}
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(events), "ns/event")
}

// BenchmarkParse reads the same log without asking for anything.
func BenchmarkParse(b *testing.B) {
	log, err := os.ReadFile("../content/rules/testdata/control-plane.quiet.jsonl")
	if err != nil {
		b.Fatal(err)
	}
	log = bytes.Repeat(log, 20)
	b.SetBytes(int64(len(log)))
	b.ReportAllocs()
	events := 0
	for b.Loop() {
		stats, err := k8saudit.Decode(bytes.NewReader(log), func(*event.Event) error { return nil })
		if err != nil {
			b.Fatal(err)
		}
		events += stats.Events
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(events), "ns/event")
}
