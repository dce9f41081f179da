package timeline_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/incident/timeline"
	"github.com/kubeguardian/kubeguardian/notify/delivery"
)

var start = time.Now().UTC().Add(-3 * time.Hour).Truncate(time.Second)

func after(d time.Duration) time.Time { return start.Add(d) }

// attack is an incident of one hour: the API was asked, a process was killed.
func attack(t *testing.T) *incident.Incident {
	t.Helper()
	c := incident.NewCorrelator(nil)
	pod := alert.Entity{Kind: alert.Pod, Name: "shop/web-0"}
	c.Add("", incident.FromAlert(&alert.Alert{
		ID: "one", Time: start, Rule: "Exec into pod", Priority: alert.Critical, Source: "k8s_audit", Output: "ada did it",
		Entities: []alert.Entity{{Kind: alert.User, Name: "system:serviceaccount:shop:ci"}, pod},
	}))
	out := c.Add("", incident.FromAlert(&alert.Alert{
		ID: "two", Time: after(time.Hour), Rule: "Miner", Priority: alert.Critical, Source: "syscall", Output: "xmrig runs",
		Subject:      finding.Subject{Kind: "Pod", Namespace: "shop", Name: "web-0"},
		OutputFields: map[string]any{"enforce.kill": "killed", "enforce.kill.by": "kernel", "enforce.block-egress": "refused", "enforce.block-egress.reason": "a namespace of the system"},
		Entities:     []alert.Entity{pod, {Kind: alert.Workload, Name: "Deployment/shop/web"}, {Kind: alert.Node, Name: "worker-1"}},
	}))
	if err := out.Incident.Apply(incident.Change{State: incident.Acknowledged, By: "eve", At: after(20 * time.Minute)}); err != nil {
		t.Fatal(err)
	}
	return out.Incident
}

func span(title string, s finding.Severity, found, resolved time.Duration, isNew bool, became finding.Status) finding.Span {
	out := finding.Span{New: isNew, Found: after(found), Became: became, Finding: finding.Finding{
		Definition: &finding.Definition{Control: "CON-" + title, Title: title, Severity: s}, Detail: &finding.Detail{Message: "it is wrong"},
		Status: finding.Fail, Subject: &finding.Subject{Kind: "Deployment", Namespace: "shop", Name: "web"},
	}}
	if resolved != 0 {
		out.Resolved = after(resolved)
	}
	return out
}

func line(e timeline.Entry) string {
	return strings.Join([]string{e.Time.Sub(start).String(), e.Source, e.Grade, e.Title, e.Text}, " | ")
}

func TestMerge(t *testing.T) {
	const day = 24 * time.Hour
	drops := func(node string, at time.Duration) alert.Record {
		return alert.Record{Alert: alert.Alert{
			ID: "x", Time: after(at), Rule: "Agent drops events", Priority: alert.Error, Output: "12 % of the events of " + node,
			Subject: finding.Subject{Kind: "Node", Name: node},
		}}
	}
	silent := drops("worker-1", -day)
	silent.Rule, silent.Output = "Agent is silent", "since long before"
	tl := timeline.New(attack(t), timeline.Sources{
		Blind:  []alert.Record{drops("worker-1", 50*time.Minute), drops("worker-1", -day), drops("worker-2", 50*time.Minute)},
		Silent: []alert.Record{silent},
		Decisions: []finding.Decision{
			{ID: "d1", Time: after(30 * time.Minute), Operation: "CREATE", User: "ci", Subject: finding.Subject{Kind: "Pod", Namespace: "shop", Name: "miner"}, Violations: []finding.Violation{{Policy: "no-privilege", Enforcement: "deny", Message: "not here"}}},
			{ID: "d1", Time: after(30 * time.Minute)}, // found by two entities
			{ID: "long before", Time: after(-2 * time.Hour)},
		},
		Spans: []finding.Span{
			span("Old", finding.Low, -12*day, 0, true, ""),
			span("Oldest", finding.Low, -13*day, 0, true, ""),
			span("Worse", finding.High, -12*day, 70*time.Minute, true, finding.Pass),
			span("Looked at first meanwhile", finding.Critical, 10*time.Minute, 0, false, ""),
			span("Appeared", finding.Medium, 15*time.Minute, 0, true, ""),
			span("Accepted", finding.Medium, -day, 80*time.Minute, true, finding.Excepted),
			span("Over by then", finding.Critical, -2*day, -day, true, ""),
		},
		Messages: []delivery.Message{{Seq: 7, Destination: "chat", State: delivery.Dead, Title: "the story", Reason: "answer 404", Created: after(time.Minute), Done: after(2 * time.Minute)}},
	}, after(2*time.Hour))
	var have []string
	for _, e := range tl.Entries {
		have = append(have, line(e))
	}
	want := []string{
		"-24h0m0s | agent | Error | Agent is silent | since long before",
		"0s | audit | Critical | Exec into pod | ada did it",
		"2m0s | deliveries | dead | message to chat | the story; answer 404",
		"15m0s | posture | medium | found: Appeared | Deployment/shop/web: it is wrong",
		"20m0s | people |  | eve | acknowledged it",
		"30m0s | admission | denied | create Pod/shop/miner | by ci; no-privilege: not here",
		"50m0s | agent | Error | Agent drops events | 12 % of the events of worker-1",
		"1h0m0s | runtime | Critical | Miner | xmrig runs",
		"1h0m0s | agent | refused | block-egress | Miner: a namespace of the system",
		"1h0m0s | agent | killed | kill | Miner, by the kernel",
		"1h10m0s | posture | high | resolved: Worse | Deployment/shop/web: it passes",
		"1h20m0s | posture | medium | accepted: Accepted | Deployment/shop/web: an exception accepts it",
	}
	if !slices.Equal(have, want) {
		t.Errorf("have\n%s\nwant\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
	var standing []string
	for _, s := range tl.Standing {
		standing = append(standing, s.Finding.Title)
	}
	if want := []string{"Looked at first meanwhile", "Worse", "Accepted", "Oldest", "Old"}; !slices.Equal(standing, want) {
		t.Errorf("standing are %q, want %q", standing, want)
	}
	for _, e := range tl.Entries {
		if e.Kind != timeline.Act && !strings.HasPrefix(e.URL, "/") {
			t.Errorf("%s leads nowhere", line(e))
		}
	}
	if len(tl.Entries[7].Links) == 0 {
		t.Error("nothing says why the second alert belongs to it")
	}
}

func TestBounds(t *testing.T) {
	i := attack(t)
	if since, until := timeline.Bounds(i, after(48*time.Hour)); !since.Equal(after(-timeline.Around)) || !until.Equal(after(48*time.Hour)) {
		t.Errorf("what is open goes from %s to %s", since, until)
	}
	if err := i.Apply(incident.Change{State: incident.Closed, Reason: "a drill", At: after(5 * time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if _, until := timeline.Bounds(i, after(48*time.Hour)); !until.Equal(after(5*time.Hour + timeline.Around)) {
		t.Errorf("what is closed goes to %s", until)
	}
}

func TestSubjects(t *testing.T) {
	want := []string{"ServiceAccount/shop/ci", "Pod/shop/web-0", "Namespace/shop", "Deployment/shop/web", "Node/worker-1"}
	if have := timeline.Subjects(attack(t)); !slices.Equal(have, want) {
		t.Errorf("have %q, want %q", have, want)
	}
	i := &incident.Incident{Entities: []alert.Entity{
		{Kind: alert.User, Name: "system:node:worker-2"}, {Kind: alert.User, Name: "ada"}, {Kind: alert.User, Name: "system:serviceaccount:odd"},
		{Kind: alert.User}, {Kind: alert.Pod, Name: "/"}, {Kind: alert.Workload, Name: "///"},
	}}
	for _, name := range timeline.Subjects(i) {
		if strings.HasSuffix(name, "/") {
			t.Errorf("%q is no name", name)
		}
	}
	if have := timeline.Subjects(i); len(have) < 2 || have[0] != "Node/worker-2" || have[1] != "User/ada" {
		t.Errorf("have %q", have)
	}
}

// TestPages: whatever the size of the pages, also where many entries have one
// time, each entry is in one of them.
func TestPages(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		var tl timeline.Timeline
		at := start
		for n := range r.IntN(40) {
			at = at.Add(time.Duration(r.IntN(2)) * time.Second)
			tl.Entries = append(tl.Entries, timeline.Entry{Time: at, ID: fmt.Sprint(n)})
		}
		n := 1 + r.IntN(7)
		var seen []timeline.Entry
		var place finding.Cursor
		for {
			text, err := finding.ParseCursor(place.String())
			if err != nil {
				t.Fatal(err)
			}
			page, next := tl.Page(text, n)
			seen = append(seen, page...)
			if place = next; next == (finding.Cursor{}) {
				break
			}
			if len(page) != n {
				t.Fatalf("seed %d: a page in between has %d of %d", seed, len(page), n)
			}
		}
		if !slices.EqualFunc(seen, tl.Entries, func(a, b timeline.Entry) bool { return a.ID == b.ID }) {
			t.Fatalf("seed %d: pages of %d have %d of %d", seed, n, len(seen), len(tl.Entries))
		}
		last, next := tl.Page(tl.Last(n), n)
		if len(last) != min(n, len(tl.Entries)) || next != (finding.Cursor{}) {
			t.Fatalf("seed %d: the last page has %d of %d", seed, len(last), len(tl.Entries))
		}
	}
}

// TestDenialNamesWhatDenied: of a request that many policies have something to say of,
// the timeline names those that decided.
func TestDenialNamesWhatDenied(t *testing.T) {
	of := func(enforcements ...string) string {
		d := finding.Decision{User: "ci", Operation: "CREATE", Subject: finding.Subject{Kind: "Pod", Name: "a"}}
		for i, enforcement := range enforcements {
			d.Violations = append(d.Violations, finding.Violation{Policy: fmt.Sprint("p", i), Enforcement: enforcement, Message: "no"})
		}
		return timeline.OfDecision(&d).Text
	}
	for want, enforcements := range map[string][]string{
		"by ci; p1: no; p3: no; 2 more by policies that enforce less": {"audit", "deny", "warn", "deny"},
		"by ci; p0: no; 1 more by policies that enforce less":         {"warn", "audit"},
		"by ci; p0: no; p1: no":                                       {"audit", "audit"},
		"by ci":                                                       nil,
	} {
		if have := of(enforcements...); have != want {
			t.Errorf("%v: %q, want %q", enforcements, have, want)
		}
	}
}
