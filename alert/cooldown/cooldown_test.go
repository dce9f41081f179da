package cooldown

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
)

func secretRead() alert.Alert {
	return alert.Alert{
		ID: "1", Time: time.Unix(100, 0), Rule: "Secret read", Priority: alert.Notice, Source: "k8s_audit", Tags: []string{"k8s"},
		Output:       "10:00:00.000000000: Notice eve read db",
		OutputFields: map[string]any{"evt.time": int64(100), "ka.auditid": "a", "ka.user.name": "eve", "ka.target.name": "db", "ka.impuser.name": nil},
		Subject:      finding.Subject{Kind: "Secret", Name: "db"},
		Attribution:  &alert.Attribution{Kind: "Deployment", Name: "web", Writer: alert.Writer{User: "alice", AuditID: "x"}},
	}
}

// TestEverything: without fields an alert repeats one that differs by its time
// and request alone.
func TestEverything(t *testing.T) {
	p := Policy{{Within: time.Minute}}
	same := map[string]func(*alert.Alert){
		"time": func(a *alert.Alert) {
			a.ID, a.Time, a.Output = "2", time.Unix(200, 0), "11:00:00.000000000: Notice eve read db"
		},
		"time as field":                          func(a *alert.Alert) { a.OutputFields["evt.time"], a.OutputFields["ka.auditid"] = int64(200), "b" },
		"same writer, another request of theirs": func(a *alert.Alert) { a.Attribution.Writer.AuditID = "y" },
	}
	other := map[string]func(*alert.Alert){
		"field":    func(a *alert.Alert) { a.OutputFields["ka.user.name"] = "mallory" },
		"no field": func(a *alert.Alert) { a.OutputFields["ka.user.name"] = nil },
		"text":     func(a *alert.Alert) { a.Output = "10:00:00.000000000: Notice eve read DB" },
		"rule":     func(a *alert.Alert) { a.Rule = "Secrets listed" },
		"subject":  func(a *alert.Alert) { a.Subject.Namespace = "shop" },
		"writer":   func(a *alert.Alert) { a.Attribution.Writer.User = "bob" },
		"unknown":  func(a *alert.Alert) { a.Attribution = nil },
		"cluster":  func(a *alert.Alert) { a.Cluster = "east" },
		"drift":    func(a *alert.Alert) { a.Tags = []string{alert.DriftTag} },
	}
	for name, change := range same {
		if !equal(t, p, change) {
			t.Errorf("%s: not a repeat", name)
		}
	}
	for name, change := range other {
		if equal(t, p, change) {
			t.Errorf("%s: a repeat", name)
		}
	}
}

func equal(t *testing.T, p Policy, change func(*alert.Alert)) bool {
	t.Helper()
	a, b := secretRead(), secretRead()
	change(&b)
	return bytes.Equal(group(t, p, a).Key, group(t, p, b).Key)
}

func group(t *testing.T, p Policy, a alert.Alert) alert.Group {
	t.Helper()
	g, err := p.Group(&a)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestBy: an alert that lacks a field is never coarser than one without fields.
func TestBy(t *testing.T) {
	p := Policy{{Within: time.Minute, By: []string{"ka.user.name", "ka.impuser.name"}}}
	object := func(a *alert.Alert) { a.OutputFields["ka.target.name"], a.Subject.Name = "key", "key" }
	if !equal(t, p, object) {
		t.Error("another object: not a repeat")
	}
	for name, change := range map[string]func(*alert.Alert){
		"another user":     func(a *alert.Alert) { a.OutputFields["ka.user.name"] = "bob" },
		"impersonated":     func(a *alert.Alert) { a.OutputFields["ka.impuser.name"] = "bob" },
		"without a field":  func(a *alert.Alert) { delete(a.OutputFields, "ka.user.name") },
		"with another one": func(a *alert.Alert) { a.Source = "syscall" },
	} {
		if equal(t, p, change) {
			t.Errorf("%s: a repeat", name)
		}
	}
	p[0].By = append(p[0].By, "ka.uri")
	if equal(t, p, object) {
		t.Error("without a field: another object is a repeat")
	}
}

// TestDriftIsKept: what says that a program is not part of its image is never counted by
// an alert that does not.
func TestDriftIsKept(t *testing.T) {
	p := Policy{{Within: time.Hour, Limit: 7, By: []string{"ka.user.name"}}}
	a, b := secretRead(), secretRead()
	b.Tags = []string{"other", alert.DriftTag}
	one, two := group(t, p, a), group(t, p, b)
	if bytes.Equal(one.Key, two.Key) || bytes.Equal(one.Rest, two.Rest) || bytes.Equal(two.Key, two.Rest) {
		t.Errorf("%x, %x", one, two)
	}
}

func TestSettings(t *testing.T) {
	p := Policy{{Rule: "Secret*", Within: time.Hour, Limit: 7}, {Tag: "quiet"}, {Tag: "k8s", Within: time.Second}}
	for name, tt := range map[string]struct {
		rule string
		tags []string
		want string
	}{
		"pattern": {"Secrets listed", nil, "1h0m0s 7"},
		"none":    {"Exec", nil, "0s 0"},
		"tag":     {"Exec", []string{"k8s"}, "1s 0"},
		"first":   {"Exec", []string{"k8s", "quiet"}, "0s 0"},
	} {
		g := group(t, p, alert.Alert{Rule: tt.rule, Tags: tt.tags})
		if have := fmt.Sprint(g.Within, g.Limit); have != tt.want {
			t.Errorf("%s: have %s, want %s", name, have, tt.want)
		}
		if len(g.Key) > 0 != (g.Within > 0) || len(g.Rest) > 0 != (g.Limit > 0) || g.Limit > 0 && bytes.Equal(g.Key, g.Rest) {
			t.Errorf("%s: keys %x and %x", name, g.Key, g.Rest)
		}
	}
	bad := alert.Alert{ID: "77", OutputFields: map[string]any{"x": math.NaN()}}
	if _, err := (Policy{{Within: time.Second}}).Group(&bad); err == nil || !strings.Contains(err.Error(), "group alert 77") {
		t.Errorf("an alert that has no JSON: %v", err)
	}
}
