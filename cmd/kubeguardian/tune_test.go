package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/rule"
	"github.com/kubeguardian/kubeguardian/tuning"
)

// FuzzReadAlerts: whatever is read is alerts of rules, or an error, and what is
// proposed for them loads after the built-in rules.
func FuzzReadAlerts(f *testing.F) {
	one := `{"id":"1","time":"2026-11-20T10:00:00Z","rule":"Secrets listed","priority":"Warning","source":"k8s_audit","output_fields":{"ka.user.name":"eve","ka.verb":"list"},"repeats":{"count":40}}`
	f.Add([]byte(one))
	f.Add([]byte(`{"items":[` + one + `],"next":""} ` + strings.Replace(one, `"1"`, `"2"`, 1)))
	f.Add([]byte(`{"items":null}`))
	f.Add([]byte(`[`))
	files, err := content.Read[rule.File](content.Rules())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		alerts, err := readAlerts(bytes.NewReader(data), nil)
		if err != nil {
			return
		}
		if len(alerts) == 0 {
			t.Fatal("neither alerts nor an error")
		}
		proposals, _, err := tuning.Propose(alerts, tuning.Options{Rules: files, Min: 2})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := rule.Load(append(files, rule.File{Name: "tuned.yaml", Data: tuning.YAML(proposals)})...); err != nil {
			t.Fatalf("%v\n%s", err, tuning.YAML(proposals))
		}
	})
}
