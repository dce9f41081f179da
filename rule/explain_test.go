package rule_test

import (
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
)

func TestExplain(t *testing.T) {
	set, err := rule.Load(rule.File{Name: "f.yaml", Data: []byte(
		auditRule("Off", "ka.verb = get", "  enabled: false\n") +
			auditRule("Long", `ka.uri contains x or ka.user.groups intersects (a) or ka.verb = val(ka.uri)`, "") +
			strings.Replace(auditRule("Other", "evt.type = open", ""), "k8s_audit", "syscall", 1))})
	if err != nil {
		t.Fatal(err)
	}
	e := newEvent(fields{"ka.verb": event.Text("get"), "ka.uri": event.Text(strings.Repeat("ä", 150)), "ka.user.groups": list("b\x1b", "c")})
	for name, want := range map[string]string{
		"Off": `rule "Off" (f.yaml:1) matches
but raises no alert: it is disabled or below the minimum priority
*+ ka.verb = get   is "get"   (f.yaml:4)
`,
		"Long": `rule "Long" (f.yaml:8) does not match
*- or
*-   ka.uri contains x   is "` + strings.Repeat("ä", 100) + `…"   (f.yaml:11)
*-   ka.user.groups intersects (a)   is (b\x1b,c)   (f.yaml:11)
*-   ka.verb = val(ka.uri)   is "get" and "` + strings.Repeat("ä", 100) + `…"   (f.yaml:11)
`,
		"Other": `rule "Other" (f.yaml:14) does not match
it is for events of source syscall
`,
	} {
		x, ok := set.Explain(name, e)
		if !ok || x.String() != want {
			t.Errorf("%s: %v\n%s\nwant\n%s", name, ok, x, want)
		}
	}
	if _, ok := set.Explain("none", e); ok || set.Hint("Lnog") != `; did you mean "Long"?` {
		t.Errorf("a rule that is not there is explained, or the hint is %q", set.Hint("Lnog"))
	}
}

// Events are counted from 1, which says of some checks of the count that they
// are never true, or always.
func TestEventTypesOfCounts(t *testing.T) {
	for condition, restricted := range map[string]bool{
		"evt.num = 0": true, "evt.num < 1": true, "evt.num <= 0": true, "evt.num in (0)": true, "not evt.num != 0": true,
		"not evt.num > 0": true, "not evt.num >= 1": true, "not evt.num >= 0": true,
		"evt.num != 0": false, "evt.num > 0": false, "evt.num >= 1": false, "not evt.num = 0": false, "evt.num = 5": false,
		"not evt.num = 5": false, "evt.num in (0, 1)": false, "evt.num < 2": false, "evt.num > 1": false,
		"evt.type exists": false, "not evt.type exists": true, "not evt.type != open": true, "evt.type != open": false,
		"evt.type contains open": false, "syscall.type = open": true, "evt.type in (open, openat) and evt.num >= 0": true,
	} {
		set, results := loadSyscall("", condition)
		if set == nil {
			t.Fatal(results[0].Errors)
		}
		warned := len(results[0].Warnings) == 1 && results[0].Warnings[0].Code == "LOAD_NO_EVTTYPE"
		if warned == restricted {
			t.Errorf("%s: warnings %v", condition, results[0].Warnings)
		}
	}
}

func TestOutputErrors(t *testing.T) {
	for output, want := range map[string]string{
		"%nonsense here":                  "unknown filter: nonsense",
		"%proc.name":                      "unknown filter: proc.name; it is one of source syscall",
		"50%":                             "invalid formatting token: the output ends in %",
		"%20":                             "invalid formatting token: the output ends in %20",
		"%ka.uri.param[":                  "invalid formatting token",
		"%tolower(ka.verb":                "invalid formatting token",
		"%tolower(ka.user.groups)":        "transformer 'tolower' needs one string",
		"%static.none":                    "unknown filter: static.none",
		"%99999999999999999999999ka.verb": "is over the limit of 1024",
	} {
		_, err := rule.Load(rule.File{Name: "f.yaml", Data: []byte(strings.Replace(auditRule("A", "ka.verb exists", ""), "output: o", `output: "`+output+`"`, 1))})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", output, err, want)
		}
	}
}

// Results have the form that Falco gives them.
func TestResult(t *testing.T) {
	_, results := rule.Options{}.Load(
		rule.File{Name: "a.yaml", Data: []byte("- {macro: m, condition: ka.verb exists}\n")},
		rule.File{Name: "b.yaml", Data: []byte("- {list: l}\n- rule: [x\n")},
		rule.File{Name: "c.yaml", Data: []byte(auditRule("A", "m", ""))})
	if len(results) != 3 {
		t.Fatalf("%d results", len(results))
	}
	for i, want := range []string{
		"a.yaml: Ok",
		"b.yaml: Invalid\n1 errors: [LOAD_ERR_YAML_PARSE (YAML parse error)]",
		"c.yaml: Ok",
	} {
		if got := results[i].String(); got != want {
			t.Errorf("result %q, want %q", got, want)
		}
	}
}
