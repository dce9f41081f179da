package tuning

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/rule"
)

const rules = `
- list: friends
  items: [a, b]
- rule: Secret read
  desc: d
  source: k8s_audit
  condition: ka.target.resource = secrets and not ka.user.name in (friends)
  output: "%ka.user.name %ka.useragent %ka.impuser.name %jevt.value[/requestObject/x]"
  priority: NOTICE
- rule: Pod made
  desc: d
  source: k8s_audit
  condition: ka.target.resource = pods
  output: "%kg.pod.images"
  priority: NOTICE
`

func options() Options {
	return Options{Rules: []rule.File{{Name: "rules.yaml", Data: []byte(rules)}}, Min: 10}
}

type fields = map[string]any

var start = time.Date(2026, 11, 25, 8, 0, 0, 0, time.UTC)

// raise returns n alerts; each value that is a function is asked for each.
func raise(n int, ruleName string, of fields) []alert.Alert {
	var out []alert.Alert
	for i := range n {
		a := alert.Alert{
			Rule: ruleName, Priority: alert.Notice, Source: event.K8sAudit, Time: start.Add(time.Duration(i) * 10 * time.Minute),
			OutputFields: fields{"evt.time": start.UnixNano() + int64(i), "ka.auditid": fmt.Sprint(i)}, Subject: finding.Subject{Kind: "Secret"},
		}
		for name, v := range of {
			if f, ok := v.(func(int) any); ok {
				v = f(i)
			}
			a.OutputFields[name] = v
		}
		a.ID = alert.NewID("test", fmt.Sprint(i, of["ka.user.name"], of["ka.target.namespace"], of["ka.impuser.name"]), ruleName)
		out = append(out, a)
	}
	return out
}

func secrets(n int, user string, more fields) []alert.Alert {
	of := fields{"ka.user.name": user, "ka.verb": "get", "ka.target.resource": "secrets", "ka.target.namespace": "shop", "ka.target.name": "db", "ka.impuser.name": nil}
	for name, v := range more {
		of[name] = v
	}
	return raise(n, "Secret read", of)
}

func numbered(prefix string) func(int) any { return func(i int) any { return fmt.Sprint(prefix, i) } }

// propose returns what is proposed, having loaded the file that says it.
func propose(t *testing.T, opts Options, alerts ...[]alert.Alert) []Proposal {
	t.Helper()
	proposals, _, err := Propose(slices.Concat(alerts...), opts)
	if err != nil {
		t.Fatal(err)
	}
	set, results := rule.Options{}.Load(append(opts.Rules, rule.File{Name: "tuned.yaml", Data: YAML(proposals)})...)
	if set == nil {
		t.Fatalf("%v\n%s", rule.Mistakes(results), YAML(proposals))
	}
	for _, r := range results {
		if len(r.Warnings) > 0 {
			t.Errorf("%s\n%s", r.Verbose(), YAML(proposals))
		}
	}
	return proposals
}

// conditions are those of an exception, in one line.
func conditions(x Exception) string {
	var parts []string
	for _, f := range x.Fields {
		parts = append(parts, f.Name+"="+strings.Join(f.Values, "+"))
	}
	return strings.Join(parts, " ")
}

func one(t *testing.T, proposals []Proposal) Exception {
	t.Helper()
	if len(proposals) != 1 || len(proposals[0].Exceptions) != 1 {
		t.Fatalf("want one exception, have %+v", proposals)
	}
	return proposals[0].Exceptions[0]
}

// TestNarrow: what all alerts of a user have in common is asked for, and nothing
// is said about what differs.
func TestNarrow(t *testing.T) {
	p := propose(t, options(),
		secrets(40, "velero", fields{"ka.target.name": numbered("s"), "ka.useragent": "velero/1 (x, y)"}),
		secrets(3, "eve", nil))
	x := one(t, p)
	if have, want := conditions(x), "ka.user.name=velero ka.target.namespace=shop ka.target.resource=secrets ka.verb=get ka.useragent=velero/1 (x, y)"; have != want {
		t.Errorf("have %s\nwant %s", have, want)
	}
	if x.Count != 40 || len(x.Alerts) != 40 || x.Hours != 7 || !x.First.Equal(start) || !x.Last.Equal(start.Add(390*time.Minute)) || !slices.Equal(x.Actors, []string{"velero"}) {
		t.Errorf("exception %+v", x)
	}
	if want := []Open{{"ka.target.name", 40}}; !slices.Equal(x.Open, want) {
		t.Errorf("open %v, want %v", x.Open, want)
	}
	if p[0].Alerts != 43 || p[0].Silenced != 40 || !slices.Equal(p[0].Left, []Rest{{"eve", 3, "fewer than 10 are alike"}}) {
		t.Errorf("proposal %+v", p[0])
	}
	file := string(YAML(p))
	for _, want := range []string{"# Silences 40 of 43 alerts.", "# ka.useragent: the client chooses it freely", `'"velero/1 (x, y)"'`, "override: {exceptions: append}"} {
		if !strings.Contains(file, want) {
			t.Errorf("the file does not have %s:\n%s", want, file)
		}
	}
}

// TestTuples: a few values are named, many are left open, and a wider exception
// takes the place of those that it covers.
func TestTuples(t *testing.T) {
	few := propose(t, options(), secrets(20, "velero", nil), secrets(20, "velero", fields{"ka.target.namespace": "bank"}))
	if x := few[0].Exceptions; len(x) != 2 || few[0].Silenced != 40 || len(x[0].Open) != 0 {
		t.Errorf("two namespaces: %+v", few)
	}
	many := propose(t, options(), secrets(400, "velero", fields{"ka.target.namespace": func(i int) any { return fmt.Sprint("ns", i%20) }}))
	if x := one(t, many); strings.Contains(conditions(x), "namespace") || x.Count != 400 {
		t.Errorf("twenty namespaces: %+v", x)
	}
	mixed := propose(t, options(), secrets(15, "velero", nil), secrets(90, "velero", fields{"ka.target.namespace": numbered("ns")}))
	if x := one(t, mixed); x.Count != 105 {
		t.Errorf("one namespace and others: %+v", x)
	}
}

// TestActors: an exception never is for several actors, nor for who may be
// anybody, unless that is wanted.
func TestActors(t *testing.T) {
	users := func(i int) any { return fmt.Sprint("user-", i) }
	scattered := raise(50, "Secret read", fields{"ka.user.name": users, "ka.verb": "get"})
	anonymous := secrets(50, "system:anonymous", nil)
	for name, alerts := range map[string][]alert.Alert{"scattered": scattered, "anonymous": anonymous, "unknown": raise(50, "Secret read", fields{"ka.verb": "get"})} {
		if p := propose(t, options(), alerts); len(p[0].Exceptions) != 0 || len(p[0].Left) == 0 {
			t.Errorf("%s: %+v", name, p)
		}
		wide := options()
		wide.Across = true
		if p := propose(t, wide, alerts); len(p[0].Exceptions) == 0 || p[0].Silenced != 50 {
			t.Errorf("%s, wanted: %+v", name, p)
		}
	}
	// Without impersonation there is nothing to ask for, so that who impersonates
	// would be silenced too.
	p := propose(t, options(), secrets(30, "admin", nil), secrets(1, "admin", fields{"ka.impuser.name": "root"}))
	if len(p[0].Exceptions) != 0 || !strings.Contains(p[0].Left[0].Reason, "would silence admin, admin as root") {
		t.Errorf("impersonation: %+v", p)
	}
	if x := one(t, propose(t, options(), secrets(30, "admin", fields{"ka.impuser.name": "root"}))); !strings.HasPrefix(conditions(x), "ka.user.name=admin ka.impuser.name=root ") {
		t.Errorf("impersonated: %+v", x)
	}
}

// TestControllers: a controller is as many actors as it acts for.
func TestControllers(t *testing.T) {
	controller := "system:serviceaccount:kube-system:replicaset-controller"
	made := func(n int, first int, writer any) []alert.Alert {
		alerts := raise(n+first, "Pod made", fields{"ka.user.name": controller, "ka.verb": "create", "kg.owner.writer": writer})
		return alerts[first:]
	}
	p := propose(t, options(), made(20, 0, "alice"), made(20, 20, "bob"), made(20, 40, nil))
	if x := p[0].Exceptions; len(x) != 2 || p[0].Silenced != 40 || !strings.Contains(conditions(x[0]), "kg.owner.writer=") || len(x[0].Actors) != 1 {
		t.Errorf("%+v", p)
	}
	if left := p[0].Left; len(left) != 1 || left[0].Alerts != 20 || !strings.Contains(left[0].Reason, "what others have written") {
		t.Errorf("left %+v", left)
	}
}

// TestRepeats counts what the server has counted.
func TestRepeats(t *testing.T) {
	alerts := secrets(1, "velero", nil)
	alerts[0].Repeats = &alert.Repeats{Count: 99}
	if x := one(t, propose(t, options(), alerts)); x.Count != 100 || x.Repeats != 99 {
		t.Errorf("%+v", x)
	}
	alerts[0].OverLimit = true // of other alerts
	if p := propose(t, options(), alerts); len(p[0].Exceptions) != 0 {
		t.Errorf("over the limit: %+v", p)
	}
}

func TestLists(t *testing.T) {
	pods := func(n int, images ...any) []alert.Alert {
		return raise(n, "Pod made", fields{"ka.user.name": "deployer" + fmt.Sprint(len(images)), "kg.pod.images": images})
	}
	x := one(t, propose(t, options(), pods(12, "b", "a, c")))
	if have := conditions(x); have != "ka.user.name=deployer2 kg.pod.images=a, c+b" || x.Fields[1].Trust != Written || !x.Fields[1].List {
		t.Errorf("%s: %+v", have, x.Fields)
	}
	if x := one(t, propose(t, options(), pods(12))); conditions(x) != "ka.user.name=deployer0" {
		t.Errorf("an empty list: %+v", x)
	}
}

func TestSkipped(t *testing.T) {
	other := secrets(3, "eve", nil)
	other[0].Rule, other[1].Source, other[2].ID = "Gone", "syscall", other[2].ID+"x"
	_, skipped, err := Propose(append(other, other[2]), options())
	if err != nil || len(skipped) != 2 || skipped["Gone"] != 1 || skipped["Secret read"] != 1 {
		t.Errorf("%v, %v", skipped, err)
	}
	if _, _, err := Propose(other, Options{Rules: []rule.File{{Name: "f.yaml", Data: []byte("- rule: [")}}, Min: 2}); err == nil {
		t.Error("rules that do not load are no error")
	}
}

// TestHostileValues: whatever alerts hold, the file loads, and silences what it
// says and nothing else.
func TestHostileValues(t *testing.T) {
	pieces := []string{"a", "friends", " ", ",", "(", ")", "\"", "'", "\\", "=", "\n", "%", "#", ": ", "{", "ü", "\xff", "or", "not ka.verb exists", "]", "-", "*"}
	for seed := range uint64(60) {
		random := rand.New(rand.NewPCG(seed, 1))
		text := func() string {
			var b strings.Builder
			for range 1 + random.IntN(4) {
				b.WriteString(pieces[random.IntN(len(pieces))])
			}
			return b.String()
		}
		alerts := secrets(12, text(), fields{"ka.useragent": text(), "ka.target.namespace": text(), "jevt.value[/requestObject/x]": text()})
		other := secrets(1, "someone else", nil)
		p := propose(t, options(), alerts, other)
		if n := p[0].Silenced; n != 0 && n != 12 {
			t.Errorf("seed %d: %d of 12 silenced\n%s", seed, n, YAML(p))
		}
		if bytes.Count(YAML(p), []byte("- rule:")) > 1 {
			t.Errorf("seed %d: the file has other rules\n%s", seed, YAML(p))
		}
	}
}

// FuzzPropose: whatever the fields of alerts are, what is proposed loads.
func FuzzPropose(f *testing.F) {
	f.Add([]byte(`{"ka.user.name":"eve","ka.verb":"get","kg.pod.images":["a","b"],"jevt.value[/x]":"]"}`))
	f.Add([]byte(`{"ka.user.name":"friends","ka.useragent":"a friends b","ka.uri.param[x'\"]":"1","ka.impuser.name":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var of fields
		if json.Unmarshal(data, &of) != nil {
			return
		}
		var alerts []alert.Alert
		for i := range 4 {
			alerts = append(alerts, alert.Alert{ID: fmt.Sprint(i), Rule: "Secret read", Source: event.K8sAudit, Time: start, OutputFields: of})
		}
		opts := options()
		opts.Min = 2
		propose(t, opts, alerts)
	})
}
