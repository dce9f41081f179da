// Package notifytest holds destinations to what package notify asks of them:
// which errors are worth another attempt, and that no secret is in an error or a
// log, whatever the receiver answers.
package notifytest

import (
	"bytes"
	"encoding/base64"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify"
)

// Notifications returns n messages as the product sends them, each with a key
// and text of its own, oldest first. Every third is about an incident, every
// fourth holds what people try to break receivers with.
func Notifications(n int) []notify.Notification {
	out := make([]notify.Notification, 0, n)
	for i := range n {
		at := time.Date(2026, 11, 26, 12, 0, i, 123456789, time.UTC)
		id := alert.NewID("k8s_audit", "event-"+string(rune('a'+i%26))+strings.Repeat("x", i/26), "Secret read by exec")
		a := alert.Alert{
			ID: id, Time: at, Rule: "Secret read by exec", Priority: alert.Critical, Source: "k8s_audit",
			Output:   "12:00:00 Critical Secret read by exec (user=eve pod=shop/web)",
			Hostname: "node-1", Tags: []string{"k8s", "mitre_credential_access"}, Tactics: []string{"credential-access"}, Cluster: "prod",
			OutputFields: map[string]any{
				"k8s.ns.name": "shop", "k8s.pod.name": "web", "ka.user.name": "eve", "proc.pid": int64(9007199254740993), "team": "payments", "k8s.none": nil,
			},
			Subject:  finding.Subject{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: "web"},
			Entities: []alert.Entity{{Kind: alert.User, Name: "eve"}, {Kind: alert.Pod, Name: "shop/web"}},
		}
		if i%4 == 3 {
			hostile := hostile()
			a.Output, a.Rule = hostile, "Rule "+hostile[:60]
			a.OutputFields["ka.user.name"] = hostile
		}
		message := notify.Notification{Key: "key-" + id, Alert: a, Count: 1 + i, First: at, Last: at.Add(time.Duration(i) * time.Minute), URL: "https://guardian.example/alerts/" + id}
		if i%3 == 2 {
			message.Incident, message.URL = incidentOf(a), "https://guardian.example/incidents/"+id
		}
		out = append(out, message)
	}
	return out
}

// Updates returns what became of the incidents among n messages of
// [Notifications]: each is acknowledged, contained and closed, in this order.
// Every other reason holds what people try to break receivers with.
func Updates(n int) (out []notify.Notification) {
	for i, told := range Notifications(n) {
		if told.Incident == nil {
			continue
		}
		for _, state := range incident.States()[1:] {
			u, now := told, *told.Incident
			now.State, now.By, now.Since = state, "ada@example.org", told.Last.Add(time.Minute)
			if state == incident.Closed {
				now.Reason = "a drill"
				if i%2 == 1 {
					now.Reason, now.By = hostile(), hostile()
				}
			}
			u.Key, u.Incident = told.Key+"-"+string(state), &now
			u.Update = &notify.Update{State: state, Reason: now.Reason, By: now.By, Time: now.Since, Of: told.Key, Incident: told.Incident.ID}
			out = append(out, u)
		}
	}
	return out
}

// hostile is what people try to break receivers with.
func hostile() string {
	return "<script>alert(1)</script> <!channel> @everyone *_`[x](javascript:1) \"quoted\" \r\nBcc: a@b\x00\x1b[31m \xff\u202e" + strings.Repeat("é", 5000)
}

func incidentOf(a alert.Alert) *incident.Incident {
	signal := incident.FromAlert(&a)
	return &incident.Incident{
		ID: a.ID, Cluster: a.Cluster, Story: "eve: credential access, by \"" + a.Rule + "\".", State: incident.New,
		First: a.Time, Last: a.Time, Paged: a.Time, Score: 60, Worst: a.Priority, Tactics: a.Tactics,
		Entities: a.Entities, Signals: []incident.Signal{signal},
	}
}

// A Log keeps what is written to it, for [Silent].
type Log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements [io.Writer].
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// Logger returns a logger of everything down to debug.
func (l *Log) Logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(io.Writer(l), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// String returns what was written so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Silent fails the test where a text, such as an error, a log or a page, holds a
// secret as it is or as it travels: escaped for a URL, or in base64.
func Silent(t testing.TB, text string, secrets ...string) {
	t.Helper()
	for _, s := range secrets {
		if s == "" {
			t.Fatal("a secret to look for is empty")
		}
		for _, form := range []string{s, url.QueryEscape(s), url.PathEscape(s), base64.StdEncoding.EncodeToString([]byte(s)), base64.RawURLEncoding.EncodeToString([]byte(s))} {
			if strings.Contains(text, form) {
				t.Errorf("a secret is in: %s", strings.ReplaceAll(text, form, "<HERE>"))
				break
			}
		}
	}
}
