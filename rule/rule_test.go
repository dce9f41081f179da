package rule_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
)

// fields is a record with the values that a test gives it, by field text.
type fields map[string]event.Value

func (f fields) Value(ref event.Ref) event.Value { return f[ref.Text] }

func (f fields) Subject() event.Subject {
	return event.Subject{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: "web"}
}

var when = time.Date(2026, 3, 4, 5, 6, 7, 89, time.Local)

func newEvent(f fields) *event.Event {
	return &event.Event{Source: event.K8sAudit, ID: "id-1", Time: when, Record: f}
}

func list(items ...string) event.Value { return event.List(items) }

// load wraps a condition and what comes before it into a file.
func load(preamble, condition string) (*rule.Set, error) {
	quoted, err := json.Marshal(condition)
	if err != nil {
		return nil, err
	}
	data := preamble + `
- rule: R
  desc: d
  source: k8s_audit
  condition: ` + string(quoted) + `
  output: o
  priority: error
`
	return rule.Load(rule.File{Name: "r.yaml", Data: []byte(data)})
}

func TestCondition(t *testing.T) {
	e := newEvent(fields{
		"ka.verb":                            event.Text("get"),
		"ka.uri":                             event.Text("/api/v1/pods?x=1"),
		"ka.target.name":                     event.Text(""),
		"ka.target.namespace":                event.Text("kube-system"),
		"ka.user.name":                       event.Text("Ann O'Hara (ops)"),
		"ka.impuser.name":                    event.Text("get"),
		"ka.response.code":                   event.Text("403"),
		"ka.user.groups":                     list("dev", "ops"),
		"ka.user.groups[1]":                  list("ops"),
		"ka.sourceips":                       list("dev", "ops", "qa"),
		"ka.uri.param[a b]":                  event.Text("quoted"),
		"jevt.value[/requestObject/x-y~1z]":  event.Text(`say "hi"`),
		"jevt.value[/requestObject/tab]":     event.Text("a\tb"),
		"ka.req.configmap.obj":               event.Text(`{"PASSWORD":"x"}`),
		"ka.req.pod.containers.privileged":   list("true"),
		"ka.req.pod.volumes.hostpath":        list("/etc", "/var/run/docker.sock"),
		"ka.req.container.image.repository":  event.Text("back\\slash"),
		"ka.req.pod.containers.host_port[0]": list("80"),
	})
	for _, tc := range []struct {
		condition string
		want      bool
	}{
		// equality and order
		{`ka.verb = get`, true},
		{`ka.verb=get`, true},
		{`ka.verb == "get"`, true},
		{`ka.verb = 'get'`, true},
		{`ka.verb != get`, false},
		{`ka.verb != list`, true},
		{`ka.response.code >= 400`, true},
		{`ka.response.code < 400`, false},
		{`ka.response.code > 403`, false},
		{`ka.response.code <= 403`, true},
		// text
		{`ka.uri contains pods`, true},
		{`ka.uri contains ""`, true},
		{`ka.uri contains Pods`, false},
		{`ka.uri icontains PODS`, true},
		{`ka.req.configmap.obj icontains '"password":'`, true},
		{`ka.uri startswith /api`, true},
		{`ka.uri startswith api`, false},
		{`ka.uri endswith "?x=1"`, true},
		{`ka.uri glob "/api/*"`, true},
		{`ka.uri glob "*pods?x?1"`, true},
		{`ka.uri glob "/api"`, false},
		{`ka.verb glob [f-h]e[!x]`, true},
		{`ka.verb glob "g[et"`, false},
		{`ka.uri pmatch (/api/v1)`, true},
		{`ka.uri pmatch (/api/v2, /api/v*)`, true},
		{`ka.uri pmatch (/ap)`, false},
		{`ka.uri pmatch (/)`, true},
		{`ka.verb pmatch (/get/more)`, false},
		{`ka.req.pod.volumes.hostpath pmatch (/var/run, /root)`, true},
		{`ka.req.pod.volumes.hostpath pmatch (/var/lib, /et)`, false},
		// sets
		{`ka.verb in (list, get)`, true},
		{`ka.verb in(list,get)`, true},
		{`ka.verb in ("list", 'get')`, true},
		{`ka.verb in ()`, false},
		{`ka.verb in get`, true},
		{`ka.verb intersects (get)`, true},
		{`ka.user.groups in (dev, ops, qa)`, true},
		{`ka.user.groups in (dev)`, false},
		{`ka.user.groups intersects (qa, ops)`, true},
		{`ka.user.groups intersects (qa)`, false},
		{`ka.user.groups[1] in (ops)`, true},
		// two fields
		{`ka.verb = val(ka.impuser.name)`, true},
		{`ka.verb != val( ka.impuser.name )`, false},
		{`ka.verb = val(ka.uri)`, false},
		{`ka.uri contains val(ka.impuser.name)`, false},
		{`ka.user.groups in val(ka.sourceips)`, true},
		{`ka.sourceips in val(ka.user.groups)`, false},
		{`ka.sourceips intersects val(ka.user.groups)`, true},
		// missing and empty
		{`ka.useragent exists`, false},
		{`ka.useragent = x`, false},
		{`ka.useragent != x`, false},
		{`not ka.useragent = x`, true},
		{`not ka.useragent exists`, true},
		{`ka.useragent contains ""`, false},
		{`ka.verb = val(ka.useragent)`, false},
		{`ka.verb != val(ka.useragent)`, false},
		{`ka.useragent != val(ka.verb)`, false},
		{`ka.req.role.rules in (a)`, false},
		{`ka.target.name exists`, true},
		{`ka.target.name = ""`, true},
		// precedence
		{`ka.verb = get or ka.verb = x and ka.verb = y`, true},
		{`(ka.verb = get or ka.verb = x) and ka.verb = y`, false},
		{`not ka.verb = x and ka.verb = get`, true},
		{`not (ka.verb = x or ka.verb = get)`, false},
		{`not not ka.verb = get`, true},
		{`not(ka.verb = x)`, true},
		{`ka.verb = get and(ka.verb = get)`, true},
		{`ka.verb = x or(ka.verb = get)`, true},
		{"ka.verb\t=\nget\r\nand ka.verb exists", true},
		{`((ka.verb = get))`, true},
		// words and quotes
		{`ka.verb = anyof or ka.verb = get`, true},
		{`ka.verb = not or ka.verb = get`, true},
		{`ka.user.name = "Ann O'Hara (ops)"`, true},
		{`ka.user.name = 'Ann O\'Hara (ops)'`, true},
		{`jevt.value[/requestObject/x-y~1z] = "say \"hi\""`, true},
		{`jevt.value["/requestObject/x-y~1z"] = 'say "hi"'`, true},
		{`jevt.value[/requestObject/tab] = "a\tb"`, true},
		{`jevt.value[/requestObject/tab] = "a\x09b"`, true},
		{`ka.req.container.image.repository = "back\\slash"`, true},
		{`ka.uri.param["a b"] = quoted`, true},
		// numbers
		{fmt.Sprintf(`evt.rawtime = %d`, when.UnixNano()), true},
		{`evt.rawtime.ns in (89, 90)`, true},
		{`evt.rawtime.ns = 0x59`, true},
		{`evt.rawtime.ns < 89`, false},
		{`evt.rawtime.ns != val(evt.rawtime)`, true},
		{`evt.source = k8s_audit`, true},
		{`evt.hostname exists`, false},
	} {
		t.Run(tc.condition, func(t *testing.T) {
			set, err := load("", tc.condition)
			if err != nil {
				t.Fatal(err)
			}
			if got := len(set.Match(e, rule.First)) == 1; got != tc.want {
				t.Errorf("match = %v, want %v", got, tc.want)
			}
		})
	}
}

func TestConditionErrors(t *testing.T) {
	for _, tc := range []struct{ condition, want string }{
		{``, `Value must be non-empty`},
		{`ka.verb`, `unexpected the end, expecting an operator after ka.verb`},
		{`ka.verb contians x`, `unexpected "contians", expecting an operator after ka.verb; did you mean "contains"?`},
		{`ka.verb = `, `unexpected the end, expecting a value`},
		{`ka.verb = get ka.uri = x`, `unexpected token after 'get', expecting 'or', 'and'`},
		{`ka.verb = get andka.uri = x`, `unexpected token after 'get', expecting 'or', 'and'`},
		{`ka.uri endswith ?x=1`, `unexpected token after '?x', expecting 'or', 'and'`},
		{`ka.verb = get and`, `unexpected token after 'get', expecting 'or', 'and'`},
		{`ka.verb = get and `, `unexpected the end, expecting a field, a macro, 'not' or '('`},
		{`(ka.verb = get`, `unexpected the end, expecting ')', 'or' or 'and'`},
		{`ka.verb = get)`, `unexpected token after 'get'`},
		{`ka.verb in (a, )`, `unexpected ")", expecting a value`},
		{`ka.verb in (a b)`, `unexpected "b", expecting ',' or ')'`},
		{`ka.verb in "a"`, `expecting '('`},
		{`ka.verb < x`, `expecting a number`},
		{`ka.verb < "5"`, `expecting a number`},
		{`ka.verb = "x`, `string has no closing "`},
		{`ka.verb = "x\"`, `string has no closing "`},
		{`ka.verb = "\q"`, `unsupported string escape sequence: \q`},
		{`ka.verb = '\"'`, `invalid \" escape in '-quoted string`},
		{`ka.verb = "\x1"`, `truncated hex char escape sequence`},
		{`ka.verb = "\xzz"`, `invalid hex char escape sequence`},
		{`ka.verb = "\x00"`, `must not contain a NUL byte`},
		{`ka.verb = ` + strings.Repeat("x", 256), `filter parameter too long: over 255 bytes`},
		{`ka.vreb = get`, `filter_check called with nonexistent field ka.vreb; did you mean "ka.verb"?`},
		{`proc.name = sh`, `filter_check called with nonexistent field proc.name; it is one of source syscall`},
		{`ka.verb[1] = get`, `field ka.verb takes no argument`},
		{`ka.uri.param = x`, `field ka.uri.param needs an argument`},
		{`ka.user.groups[x] in (a)`, `argument "x" of field ka.user.groups is not a position`},
		{`ka.uri.param[] = x`, `expecting the argument of ka.uri.param`},
		{`ka.uri.param[a = x`, `expecting the argument of ka.uri.param`},
		{`ka.user.groups = dev`, `filter error: '=' operator not supported for list filters`},
		{`ka.user.groups contains dev`, `filter error: 'contains' operator not supported for list filters`},
		{`evt.rawtime contains 1`, `filter error: 'contains' operator not supported for numeric filters`},
		{`evt.rawtime = soon`, `"soon" is not a whole number`},
		{`evt.rawtime in (1, soon)`, `"soon" is not a whole number`},
		{`ka.verb = val(ka.user.groups)`, `ka.verb is a string and ka.user.groups is a list: both sides need the same type`},
		{`ka.verb = val(get)`, `expecting a field and ')' in val()`},
		{`ka.verb = val(ka.vreb)`, `nonexistent field ka.vreb`},
		{`ka.verb pmatch val(ka.uri)`, `filter error: 'pmatch' operator does not support a field or transformer on its right side`},
		{`nothing`, `Undefined macro 'nothing' used in filter.`},
		{strings.Repeat("(", 1001) + `ka.verb = x` + strings.Repeat(")", 1001), `exceeded max depth limit of 1000`},
	} {
		t.Run(tc.condition[:min(len(tc.condition), 40)], func(t *testing.T) {
			_, err := load("", tc.condition)
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), `r.yaml:5:`) {
				t.Errorf("Load = %v, want r.yaml:5: … %s", err, tc.want)
			}
		})
	}
}

func TestListsAndMacros(t *testing.T) {
	e := newEvent(fields{"ka.verb": event.Text("get"), "ka.uri": event.Text("a b")})
	for _, tc := range []struct {
		name, preamble, condition string
		want                      bool
	}{
		{"list", "- {list: l, items: [list, get]}", "ka.verb in (l)", true},
		{"list among values", "- {list: l, items: [list, get]}", "ka.verb in (x, l, y)", true},
		{"empty list", "- {list: l, items: []}", "ka.verb in (l)", false},
		{"empty list before", "- {list: l, items: []}", "ka.verb in (l, get)", true},
		{"empty list after", "- {list: l, items: []}", "ka.verb in (get, l)", true},
		{"item with blank", "- {list: l, items: [a b]}", "ka.uri in (l)", true},
		{"quoted item", `- {list: l, items: ['"a b"']}`, "ka.uri in (l)", true},
		{"number", "- {list: l, items: [1, get]}", "ka.verb in (l)", true},
		{"only as a whole word", "- {list: ge, items: [x]}", "ka.verb = get", true},
		{"list for one value", "- {list: l, items: [get]}", "ka.verb = l", true},
		{"one word without parentheses", "- {list: l, items: [get]}", "ka.verb in l", true},
		{"list in list", "- {list: a, items: [get]}\n- {list: b, items: [x, a]}", "ka.verb in (b)", true},
		{"later list in list", "- {list: b, items: [x, a]}\n- {list: a, items: [get]}", "ka.verb in (b)", true}, // scanned again
		{"earlier list again", "- {list: a, items: [b]}\n- {list: b, items: [x, a]}", "ka.verb in (b)", false},
		{"list defined again", "- {list: l, items: [x]}\n- {list: l, items: [get]}", "ka.verb in (l)", true},
		{"list after its use", "- {macro: m, condition: ka.verb in (l)}\n- {list: l, items: [get]}", "m", true},
		{"macro", "- {macro: m, condition: ka.verb = x or ka.verb = get}", "m", true},
		{"macro is one operand", "- {macro: m, condition: ka.verb = get or ka.verb = x}", "m and ka.verb = x", false},
		{"not macro", "- {macro: m, condition: ka.verb = x and ka.verb = y}", "not m", true},
		{"macro in macro", "- {macro: m, condition: ka.verb = get}\n- {macro: n, condition: not m}", "not n", true},
		{"macro defined again", "- {macro: m, condition: ka.verb = x}\n- {macro: m, condition: ka.verb = get}", "m", true},
		{"new body sees later macros", "- {macro: m, condition: ka.verb = x}\n- {macro: n, condition: ka.verb = get}\n- {macro: m, condition: n}", "m", true},
		{"documents and nulls", "-\n---\n---\n- {macro: m, condition: ka.verb = get}", "m", true},
		{"anchors", "- {macro: m, condition: &c ka.verb = get}\n- {macro: n, condition: *c}", "n", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			set, err := load(tc.preamble, tc.condition)
			if err != nil {
				t.Fatal(err)
			}
			if got := len(set.Match(e, rule.First)) == 1; got != tc.want {
				t.Errorf("match = %v, want %v", got, tc.want)
			}
		})
	}
}

const valid = "- rule: A\n  desc: d\n  source: k8s_audit\n  condition: ka.verb exists\n  output: o\n  priority: error\n"

func TestFileErrors(t *testing.T) {
	var bomb strings.Builder
	fmt.Fprintln(&bomb, "- {macro: m0, condition: ka.verb exists}")
	for i := range 40 {
		fmt.Fprintf(&bomb, "- {macro: m%d, condition: m%d and m%d}\n", i+1, i, i)
	}
	bomb.WriteString(strings.Replace(valid, "ka.verb exists", "m40", 1))
	var lists strings.Builder
	for i := range 40 {
		fmt.Fprintf(&lists, "- {list: l%d, items: [l%d, l%d]}\n", i, i+1, i+1)
	}
	lists.WriteString(strings.Replace(valid, "ka.verb exists", "ka.verb in (l0)", 1))
	for _, tc := range []struct {
		name, file string
		want       []string
	}{
		{"YAML", "- rule: [", []string{`f.yaml:1:1: parse YAML: did not find expected node content`}},
		{"tab", "- rule: a\n\tdesc: b", []string{`f.yaml:2:1: parse YAML: found a tab character that violates indentation`}},
		{"binary", "\x00\x01\x02", []string{`f.yaml:1:1: parse YAML: control characters are not allowed`}},
		{"no list", "rule: x", []string{`f.yaml:1:1: Rules content is not yaml array of objects`}},
		{"no item", "- x", []string{`f.yaml:1:3: Unexpected element type. Each element should be a yaml associative array.`}},
		{"key twice", valid + "  output: x", []string{`f.yaml:7:3: key "output" is there twice`}},
		{"missing keys", "- {rule: A, source: k8s_audit, condition: ka.verb exists}", []string{
			`f.yaml:1:3: rule "A": Item has no mapping for key 'output'`,
			`f.yaml:1:3: rule "A": Item has no mapping for key 'desc'`,
			`f.yaml:1:3: rule "A": Item has no mapping for key 'priority'`,
		}},
		{"no source", strings.Replace(valid, "  source: k8s_audit\n", "", 1), []string{`f.yaml:3:14: rule "A": filter_check called with nonexistent field ka.verb; it is one of source k8s_audit`}},
		{"priority", strings.Replace(valid, "error", "high", 1), []string{`f.yaml:6:13: rule "A": Invalid priority: unknown priority "high"`}},
		{"tags", valid + "  tags: a", []string{`f.yaml:7:9: rule "A": Value is not a sequence`}},
		{"tag", valid + "  tags: [[a]]", []string{`f.yaml:7:10: rule "A": Value is not a scalar value`}},
		{"enabled", valid + "  enabled: maybe", []string{`f.yaml:7:12: rule "A": Can't decode YAML scalar value`}},
		{"condition", strings.Replace(valid, "ka.verb exists", "[a]", 1), []string{`f.yaml:4:14: rule "A": Value is not a scalar value`}},
		{"null name", "- {rule: , enabled: true}", []string{`Mapping for key 'rule' is empty`}},
		{"list without items", "- {list: a}", []string{`f.yaml:1:3: list "a": Item has no mapping for key 'items'`}},
		{"switch of nothing", "- {rule: A, enabled: false}", []string{`f.yaml:1:3: rule "A": Rule has 'enabled' key only, but no rule by that name already exists`}},
		{"macro loop", "- {macro: a, condition: ka.verb exists}\n- {macro: b, condition: a}\n- {macro: a, condition: b}", []string{`reference loop in macro 'a'`}},
		{"macro of itself", "- {macro: a, condition: a}", []string{`f.yaml:1:25: macro "a": Undefined macro 'a' used in filter. A macro sees only macros that are defined before it`}},
		{"macro from later", "- {macro: a, condition: b}\n- {macro: b, condition: ka.verb exists}", []string{`f.yaml:1:25: macro "a": Undefined macro 'b' used in filter. A macro sees only macros that are defined before it`}},
		{"field in macro", "- {macro: a, condition: ka.vreb exists}\n" + strings.Replace(valid, "ka.verb exists", "a and a", 1), []string{`f.yaml:1:25: macro "a": filter_check called with nonexistent field ka.vreb`}},
		{"macro bomb", bomb.String(), []string{`more than 100000 checks with their macros`}},
		{"list bomb", lists.String(), []string{`condition is longer than 1048576 bytes with its lists`}},
		{"nothing left", valid + "- {list: l, items: []}\n- {macro: m, condition: l}\n", []string{`f.yaml:8:25: macro "m": filter input string is empty`}},
		{"output field", strings.Replace(valid, "output: o", "output: by %ka.usr.name", 1), []string{`f.yaml:5:15: rule "A": unknown filter: ka.usr.name; did you mean "ka.user.name"?`}},
		{"output end", strings.Replace(valid, "output: o", "output: 100%", 1), []string{`f.yaml:5:14: rule "A": invalid formatting token: the output ends in %`}},
		{"output width", strings.Replace(valid, "output: o", "output: x %99999ka.verb", 1), []string{`f.yaml:5:13: rule "A": width 99999 is over the limit of 1024`}},
		{"output argument", strings.Replace(valid, "output: o", "output: x %ka.uri.param", 1), []string{`field ka.uri.param needs an argument`}},
		{"all mistakes", valid + "- rule: B\n  desc: d\n  source: k8s_audit\n  condition: ka.x = 1 and ka.verb = y and mac\n  output: \"%ka.y\"\n  priority: error\n", []string{
			`f.yaml:10:14: rule "B": filter_check called with nonexistent field ka.x`,
			`f.yaml:10:43: rule "B": Undefined macro 'mac' used in filter.`,
			`f.yaml:11:13: rule "B": unknown filter: ka.y`,
		}},
		{"second document", valid + "---\n  {foo: x}", []string{`f.yaml:8:3: Rules content is not yaml array of objects`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := rule.Load(rule.File{Name: "f.yaml", Data: []byte(tc.file)})
			var errs rule.Errors
			if !errors.As(err, &errs) {
				t.Fatalf("Load = %v, want Errors", err)
			}
			if len(errs) != len(tc.want) {
				t.Fatalf("%d errors, want %d:\n%v", len(errs), len(tc.want), err)
			}
			for i, want := range tc.want {
				if !strings.Contains(errs[i].Error(), want) {
					t.Errorf("error %d = %v, want %s", i, errs[i], want)
				}
			}
		})
	}
}

func TestErrorsAreCapped(t *testing.T) {
	_, err := rule.Load(rule.File{Name: "f.yaml", Data: []byte(strings.Repeat("- foo\n", 500))})
	var errs rule.Errors
	if !errors.As(err, &errs) || len(errs) != 100 {
		t.Fatalf("%d errors, want 100", len(errs))
	}
	var one *rule.Error
	if !errors.As(err, &one) || one.Line != 1 {
		t.Errorf("first error = %v, want one of line 1", one)
	}
	big := rule.File{Name: "big.yaml", Data: make([]byte, 2<<20)}
	if _, err := rule.Load(big); err == nil || !strings.Contains(err.Error(), "big.yaml:1:1: file is larger than") {
		t.Errorf("Load of 2 MiB = %v", err)
	}
}

func TestExcerpt(t *testing.T) {
	for _, tc := range []struct{ name, condition, want string }{
		{"plain", "  condition: ka.verb = a and ka.vreb = b", "  condition: ka.verb = a and ka.vreb = b\n                             ^"},
		{"plain over lines", "  condition: ka.verb = a\n    and ka.vreb = b", "    and ka.vreb = b\n        ^"},
		{"folded", "  condition: >\n    ka.verb = a\n    and ka.vreb = b", "    and ka.vreb = b\n        ^"},
		{"literal", "  condition: |\n    ka.verb = a\n\n    and ka.vreb = b", "    and ka.vreb = b\n        ^"},
		{"folded, more indented", "  condition: >-\n    ka.verb = a\n      and (\n        ka.vreb = b)", "        ka.vreb = b)\n        ^"},
		{"double quotes", `  condition: "ka.verb = \"a\" and ka.vreb = b"`, "  condition: \"ka.verb = \\\"a\\\" and ka.vreb = b\"\n                                  ^"},
		{"single quotes", `  condition: 'ka.verb = ''a'' and ka.vreb = b'`, "  condition: 'ka.verb = ''a'' and ka.vreb = b'\n                                  ^"},
		{"after a list", "  condition: ka.verb in (l) and ka.vreb = b", "  condition: ka.verb in (l) and ka.vreb = b\n                                ^"},
		{"in a list", "  condition: ka.verb exists and (ka.uri in (l) or ka.verb = l", "  condition: ka.verb exists and (ka.uri in (l) or ka.verb = l\n                                                            ^"},
		{"characters of two bytes", "  condition: ka.verb = ä and ka.vreb = b", "  condition: ka.verb = ä and ka.vreb = b\n                             ^"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := "- {list: l, items: [one, two three, four]}\n" + strings.Replace(valid, "  condition: ka.verb exists", tc.condition, 1)
			_, err := rule.Load(rule.File{Name: "f.yaml", Data: []byte(file)})
			var e *rule.Error
			if !errors.As(err, &e) {
				t.Fatalf("Load = %v", err)
			}
			if got := e.Excerpt(); got != tc.want {
				t.Errorf("%v\n%s\nwant\n%s", e, got, tc.want)
			}
		})
	}
}

func TestRedefinition(t *testing.T) {
	first := rule.File{Name: "a.yaml", Data: []byte(strings.Replace(valid, "priority: error", "priority: info\n  tags: [b, a, b]", 1) + strings.Replace(valid, "rule: A", "rule: B", 1))}
	second := rule.File{Name: "b.yaml", Data: []byte(strings.Replace(valid, "ka.verb exists", "ka.verb = x", 1) + "- {rule: B, enabled: false}\n")}

	set, err := rule.Load(first, second)
	if err != nil {
		t.Fatal(err)
	}
	want := []rule.Rule{
		{Name: "A", Desc: "d", Source: "k8s_audit", Priority: alert.Error, Enabled: true, File: "b.yaml", Line: 1},
		{Name: "B", Desc: "d", Source: "k8s_audit", Priority: alert.Error, Enabled: false, File: "a.yaml", Line: 8},
	}
	if got := set.Rules(); !reflect.DeepEqual(got, want) {
		t.Errorf("Rules = %+v\nwant %+v", got, want)
	}
	if got := set.Match(newEvent(fields{"ka.verb": event.Text("get")}), rule.All); len(got) != 0 {
		t.Errorf("alerts = %v, want none: A is replaced and B is off", got)
	}

	set, err = rule.Load(first)
	if err != nil {
		t.Fatal(err)
	}
	if got := set.Rules()[0].Tags; !reflect.DeepEqual(got, []string{"a", "b"}) {
		t.Errorf("Tags = %q", got)
	}
}

func TestMatchModes(t *testing.T) {
	file := valid + strings.Replace(valid, "rule: A", "rule: B", 1)
	set, err := rule.Load(rule.File{Name: "f.yaml", Data: []byte(file)})
	if err != nil {
		t.Fatal(err)
	}
	e := newEvent(fields{"ka.verb": event.Text("get")})
	if got := set.Match(e, rule.First); len(got) != 1 || got[0].Rule != "A" {
		t.Errorf("First = %v, want A", got)
	}
	if got := set.Match(e, rule.All); len(got) != 2 || got[1].Rule != "B" || got[0].ID == got[1].ID {
		t.Errorf("All = %v, want A and B", got)
	}
	e.Source = "other"
	if got := set.Match(e, rule.All); len(got) != 0 {
		t.Errorf("another source = %v, want none", got)
	}
}

func TestAlert(t *testing.T) {
	set, err := rule.Load(rule.File{Name: "f.yaml", Data: []byte(`
- rule: Look
  desc: d
  source: k8s_audit
  condition: ka.verb exists
  output: >
    *%ka.user.name did *%ka.verb. Groups %ka.user.groups, first %ka.user.groups[0];
    agent=%ka.useragent [%6ka.verb|%2ka.verb] at %evt.rawtime.ns %jevt.value[/a/b]
  priority: info
  tags: [mitre_lateral_movement, k8s, mitre_discovery]
`)})
	if err != nil {
		t.Fatal(err)
	}
	e := newEvent(fields{
		"ka.user.name":      event.Text("eve\n05:06:07: Critical forged \x1b[31m\xff"),
		"ka.verb":           event.Text("get"),
		"ka.user.groups":    list("a", "b"),
		"ka.user.groups[0]": list("a"),
		"ka.sourceips":      list("10.0.0.1"),
		"ka.auditid":        event.Text("id-1"),
	})
	e.Hostname = "node-1"
	alerts := set.Match(e, rule.First)
	if len(alerts) != 1 {
		t.Fatalf("%d alerts", len(alerts))
	}
	got, want := alerts[0], alert.Alert{
		ID: alert.NewID("k8s_audit", "id-1", "Look"), Time: when, Rule: "Look", Priority: alert.Informational, Source: "k8s_audit",
		Output: `05:06:07.000000089: Informational eve\n05:06:07: Critical forged \x1b[31m` + "\uFFFD" +
			` did *get. Groups (a,b), first (a); agent=<NA> [get   |ge] at 89 <NA>`,
		OutputFields: map[string]any{
			"evt.time": when.UnixNano(), "evt.rawtime.ns": int64(89),
			"ka.user.name": "eve\n05:06:07: Critical forged \x1b[31m\xff", "ka.verb": "get",
			"ka.user.groups": []string{"a", "b"}, "ka.user.groups[0]": []string{"a"},
			"ka.useragent": nil, "jevt.value[/a/b]": nil,
			"ka.target.resource": nil, "ka.target.subresource": nil, "ka.target.name": nil, "ka.target.namespace": nil,
			"ka.sourceips": []string{"10.0.0.1"}, "ka.auditid": "id-1",
		},
		Hostname: "node-1", Tags: []string{"k8s", "mitre_discovery", "mitre_lateral_movement"},
		Tactics: []string{"discovery", "lateral-movement"},
	}
	want.Subject.APIVersion, want.Subject.Kind, want.Subject.Namespace, want.Subject.Name = "v1", "Pod", "shop", "web"
	if !reflect.DeepEqual(got, want) {
		t.Errorf("alert = %+v\nwant    %+v", got, want)
	}
}

// A set has no state of its own that matching could leave behind.
func TestMatchConcurrently(t *testing.T) {
	set, err := load("", "ka.verb = get and ka.uri = val(ka.user.name)")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 200 {
				uri := event.Text("a")
				if i%2 == 0 {
					uri = event.Text("b")
				}
				e := newEvent(fields{"ka.verb": event.Text("get"), "ka.uri": uri, "ka.user.name": event.Text("b")})
				if got := len(set.Match(e, rule.First)) == 1; got != (i%2 == 0) {
					t.Errorf("goroutine %d: match = %v", i, got)
				}
			}
		})
	}
	wg.Wait()
}
