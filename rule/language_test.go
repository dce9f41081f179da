package rule_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
)

// loadSyscall wraps a condition for the source syscall and what comes before it
// into a file.
func loadSyscall(preamble, condition string) (*rule.Set, []rule.Result) {
	quoted, _ := json.Marshal(condition)
	return rule.Options{Static: map[string]string{"cluster": "prod"}}.Load(rule.File{Name: "r.yaml", Data: []byte(preamble + `
- rule: R
  desc: d
  condition: ` + string(quoted) + `
  output: o
  priority: error
`)})
}

func addr(s string) event.Value { return event.Addr(netip.MustParseAddr(s)) }

// Each operator, modifier and transformer on each type of field.
func TestTypedConditions(t *testing.T) {
	e := newEvent(fields{
		"evt.type":           event.Text("openat"),
		"evt.rawres":         event.Number(-2),
		"user.uid":           event.Uint(1<<64 - 1),
		"proc.fdusage":       event.Double(3),
		"evt.is_open_read":   event.Bool(true),
		"evt.is_open_write":  event.Bool(false),
		"fd.sport":           event.Port(443),
		"fd.cport":           event.Port(40000),
		"fd.sproto":          event.Port(443),
		"fd.cproto":          event.Port(40000),
		"fd.sip":             addr("10.1.2.3"),
		"fd.cip":             addr("192.168.0.9"),
		"fd.rip":             addr("2001:db8::1"),
		"fd.snet":            addr("10.1.2.3"),
		"fd.cnet":            addr("192.168.0.9"),
		"fd.name":            event.Text("/etc/ssh/sshd_config"),
		"fd.types":           list("file", "ipv4"),
		"proc.name":          event.Text("Bash"),
		"proc.pname":         event.Text("bash"),
		"proc.cmdline":       event.Text("sh -c ls"),
		"proc.args":          event.Text("-n -p 80 x"),
		"proc.env[A]":        event.Text("c2VjcmV0"),
		"proc.exe":           event.Text("ab\x00cd"),
		"proc.aname":         list("sh", "containerd-shim", "systemd"),
		"proc.apid":          list("10", "1"),
		"evt.buffer":         event.Bytes("\x00\x01GET /"),
		"container.id":       event.Text(""),
		"proc.cwd":           event.Text("käse"),
		"container.label[a]": event.Text("b"),
	})
	e.Source, e.Num = event.Syscall, 7
	for condition, want := range map[string]bool{
		// numbers
		`evt.rawres = -2`: true, `evt.rawres < 0`: true, `evt.rawres >= -2`: true, `evt.rawres in (-1, -2)`: true,
		`evt.rawres != -2`: false, `evt.rawres intersects (-2)`: true, `evt.rawres exists`: true,
		`user.uid = -1`: true, `user.uid > 5`: true, `user.uid = 0xffffffffffffffff`: true, `user.uid < 0`: false,
		`proc.fdusage = 3`: true, `proc.fdusage > 2`: true, `proc.fdusage in (2, 3)`: true,
		`evt.rawres = anyof (-2, 5)`: true, `evt.rawres != anyof (-2, 5)`: true, `evt.rawres != allof (-2, 5)`: false, `evt.rawres = oneof (1, 2)`: false,
		// truth
		`evt.is_open_read = true`: true, `evt.is_open_read != true`: false, `evt.is_open_write = false`: true, `evt.is_open_read in (false)`: false,
		// ports
		`fd.sport = 443`: true, `fd.sport = https`: true, `fd.sport in (http, https)`: true, `fd.sport = ""`: false, `fd.sport < 1024`: true,
		`fd.port = 40000`: true, `fd.port != 40000`: false, `fd.port != 80`: true, `fd.port < 1000`: true, `fd.port in (80, 443)`: true, `fd.proto = https`: true,
		// addresses
		`fd.sip = 10.1.2.3`: true, `fd.sip != 10.1.2.4`: true, `fd.sip in (10.1.2.3, "::1")`: true,
		`fd.sip = "2001:db8::1"`: false, `fd.sip != "2001:db8::1"`: true, `fd.rip = "2001:DB8:0::1"`: true, `fd.rip in (10.1.2.3)`: false,
		`fd.ip = 192.168.0.9`: true, `fd.ip = 10.1.2.3`: true, `fd.ip != 10.1.2.3`: false, `fd.ip != 1.2.3.4`: true, `fd.ip in (1.1.1.1, 10.1.2.3)`: true,
		`fd.sip = anyof (1.1.1.1, 10.1.2.3)`: true,
		// networks; of fd.net only the first one counts
		`fd.snet = 10.0.0.0/8`: true, `fd.snet != 10.0.0.0/8`: false, `fd.snet in (1.0.0.0/8, 10.1.2.0/24)`: true, `fd.snet = "2001:db8::/32"`: false,
		`fd.snet != "2001:db8::/32"`: true, `fd.snet = 10.1.2.99/24`: true,
		`fd.net = 192.168.0.0/16`: true, `fd.net in (1.0.0.0/8, 10.0.0.0/8)`: false, `fd.net in (10.0.0.0/8, 1.0.0.0/8)`: true,
		`fd.net != 10.0.0.0/8`: false, `fd.snet contains anyof (1.0.0.0/8, 10.0.0.0/8)`: true, `fd.snet != anyof (10.0.0.0/8)`: false,
		// text
		`proc.name icontains BASH`: true, `proc.name iglob b?sh`: true, `proc.name glob b?sh`: false, `proc.name == Bash`: true,
		`proc.name < 9`: false, `fd.name regex "/etc/ssh"`: false, `fd.name regex "/etc/(ssh|ssl)/.*"`: true, `proc.cwd regex "k.se"`: true,
		`fd.name pmatch (/etc)`: true, `fd.name pmatch (/etc/ss)`: false, `fd.name pmatch (/e*/ssh)`: true, `fd.name pmatch (//etc//ssh/)`: true,
		`fd.name startswith anyof (/var, /etc)`: true, `fd.name startswith allof (/e, /etc)`: true, `fd.name contains oneof (ssh, etc)`: false,
		`fd.name contains oneof (ssh, xyz)`: true, `fd.name endswith anyof ()`: false, `fd.name endswith allof ()`: false, `fd.name glob anyof ("*_config")`: true,
		// a word that may be a modifier
		`proc.name = anyof and evt.type exists`: false, `proc.name = anyof`: false, `proc.name != oneof or evt.type = open`: true,
		// strings end at the first NUL byte
		`proc.exe = ab`: true, `proc.exe contains cd`: false, `len(proc.exe) = 2`: true,
		// bytes do not
		`evt.buffer bcontains 0001`: true, `evt.buffer bstartswith 0001474554`: true, `evt.buffer bstartswith 47`: false, `evt.buffer contains GET`: true,
		`len(evt.buffer) = 7`: true, `evt.buffer endswith "/"`: true,
		// lists
		`fd.types in (file, ipv4, ipv6)`: true, `fd.types in (file)`: false, `fd.types intersects (x, file)`: true, `len(fd.types) = 2`: true,
		// transformers
		`tolower(proc.name) = bash`: true, `toupper(proc.name) = BASH`: true, `basename(fd.name) = sshd_config`: true, `b64(proc.env[A]) = secret`: true,
		`b64(proc.name) = x`: false, `not b64(fd.name) exists`: true, `tolower(proc.name) = val(proc.pname)`: true, `proc.pname = tolower(proc.name)`: true,
		`concat(proc.pname, "-", proc.name) = "bash-Bash"`: true, `concat(proc.pname, proc.pexe) exists`: false,
		`join(",", fd.types) = "file,ipv4"`: true, `join("+", (proc.name, "x", proc.pname)) = "Bash+x+bash"`: true,
		`len(concat(tolower(basename(fd.name)), "!")) = 12`: true,
		`getopt(proc.args, "np:")[p] = 80`:                  true, `getopt(proc.args, "np:") in (n, p, 80)`: true, `getopt(proc.args, "n")[p] exists`: false,
		`getopt(proc.args, "p:") intersects ("?")`: true, `getopt(("-np80", "--long", "-v", "--", "-x"), "np:vx")[p] = 80`: true,
		`getopt(("-np80", "--long", "-v", "--", "-x"), "np:vx")[v] = ""`: true, `getopt(("-np80", "--", "-x"), "np:x")[x] exists`: false,
		`getopt(("-p"), "p:")[p] = ""`: true,
		// any ancestor
		`proc.aname = systemd`: true, `proc.aname != systemd`: true, `proc.aname in (x, containerd-shim)`: true, `proc.aname = bash`: false,
		`proc.aname startswith container`: true, `not proc.aname = systemd`: false, `proc.apid = 1`: true, `proc.apid > 20`: false,
		// there are only exit events
		`evt.dir = <`: true, `evt.dir=<`: true, `evt.dir = >`: false, `evt.dir != <`: false,
		// counted from 1
		`evt.num = 7`: true, `evt.num = 0`: false, `evt.num >= 0`: true,
		// present and empty
		`container.id exists`: true, `container.id = ""`: true, `container.name exists`: false, `container.name != ""`: false, `not container.name = ""`: true,
		`static.cluster = prod`: true, `container.label[a] = b`: true, `container.label.b exists`: false,
	} {
		t.Run(condition, func(t *testing.T) {
			set, results := loadSyscall("", condition)
			if set == nil {
				t.Fatal(results[0].Errors)
			}
			if got := len(set.Match(e, rule.First)) == 1; got != want {
				x, _ := set.Explain("R", e)
				t.Errorf("match = %v, want %v\n%s", got, want, x)
			}
			if x, _ := set.Explain("R", e); x.Matches != want {
				t.Errorf("explained match = %v, want %v", x.Matches, want)
			}
		})
	}
}

func TestTypedConditionErrors(t *testing.T) {
	for condition, want := range map[string]string{
		`evt.rawres contains 1`:             `'contains' operator not supported for numeric filters`,
		`evt.is_open_read < 1`:              `'<' operator not supported for bool filters`,
		`evt.is_open_read = yes`:            `unrecognized boolean value 'yes'`,
		`fd.sip < 1`:                        `'<' operator not supported for IP address filters`,
		`fd.sip = 10.1.2`:                   `unrecognized IP address '10.1.2'`,
		`fd.snet = 10.0.0.0`:                `unrecognized network '10.0.0.0'`,
		`fd.snet startswith 10`:             `'startswith' operator not supported for network filters`,
		`fd.ip startswith 10`:               `not supported for fd.ip`,
		`evt.buffer icontains a`:            `'icontains' operator not supported for byte buffer filters`,
		`evt.buffer bcontains 0`:            `unrecognized hex string '0'`,
		`proc.name bcontains 00`:            `'bcontains' operator not supported for string filters`,
		`fd.sport = nowhere`:                `unrecognized protocol or port 'nowhere'`,
		`proc.fdusage = 1.5`:                `"1.5" is not a whole number`,
		`proc.name regex "("`:               `invalid regular expression`,
		`proc.name regex "\\d"`:             `invalid regular expression`,
		`evt.type = opne`:                   `unknown event type opne; did you mean "open"?`,
		`evt.type in (open, nothing)`:       `unknown event type nothing`,
		`tolower(evt.type) = open`:          `transformers are not supported for`,
		`evt.type = val(proc.name)`:         `cannot be compared with a field`,
		`tolower(proc.pid) = x`:             `transformer 'tolower' needs one string`,
		`len(proc.pid) = 1`:                 `transformer 'len' needs one string, byte buffer or list`,
		`concat(proc.name) = x`:             `transformer 'concat' needs two strings or more`,
		`join(fd.types, ",") = x`:           `transformer 'join' needs a string and a list`,
		`getopt(proc.args, "a")[ab] = x`:    `must be one character`,
		`tolower(proc.name)[1] = x`:         `'tolower' does not support field arguments`,
		`proc.name = val(proc.pid)`:         `both sides need the same type`,
		`proc.name = val(proc.aname)`:       `takes constants only`,
		`fd.cip.name = tolower(proc.name)`:  `takes constants only`,
		`proc.name regex tolower(proc.exe)`: `does not support a field or transformer on its right side`,
		`tolower(proc.aname[1]) = x`:        `transformer 'tolower' is not supported for proc.aname[1]`,
		`evt.arg.nonsense = x`:              `filter_check called with nonexistent field evt.arg.nonsense`,
		`fd.types = oneof (file)`:           `'= oneof' operator not supported for list filters`,
		`proc.name = val(proc.exe)[1]`:      `does not support field arguments`,
		`proc.name = tolower(proc.exe`:      `expecting ',' or ')' in tolower()`,
		`tolower() = x`:                     `expecting a field, a transformer or a constant`,
		strings.Repeat("tolower(", 1001):    `exceeded max depth limit of 1000`,
	} {
		t.Run(condition[:min(len(condition), 40)], func(t *testing.T) {
			set, results := loadSyscall("", condition)
			if set != nil || !strings.Contains(results[0].Errors.Error(), want) {
				t.Errorf("results %v, want %s", results[0].Errors, want)
			}
		})
	}
}

// auditRule is a rule with further keys.
func auditRule(name, condition, more string) string {
	return fmt.Sprintf("- rule: %s\n  desc: d\n  source: k8s_audit\n  condition: %q\n  output: o\n  priority: error\n%s", name, condition, more)
}

func TestOverrides(t *testing.T) {
	base := auditRule("A", "ka.verb = get", "  tags: [b]\n")
	e := newEvent(fields{"ka.verb": event.Text("get"), "ka.uri": event.Text("x"), "ka.user.name": event.Text("ann")})
	for _, tc := range []struct {
		name, file, want string // want: error, or rule=output of the alerts
	}{
		{"append a condition", base + "- {rule: A, condition: and ka.uri = y, append: true}", ""},
		{"append by override", base + "- {rule: A, condition: or ka.uri = y, output: by %ka.user.name, override: {condition: append, output: append}}", "A=o by ann"},
		{"append is text", base + "- {rule: A, condition: or ka.uri = x and ka.verb = list, override: {condition: append}}", "A=o"},
		{"replace", base + "- {rule: A, condition: ka.uri = x, output: p, override: {condition: replace, output: replace}}", "A=p"},
		{"replace with nothing left", base + "- {rule: A, enabled: false, override: {enabled: replace}}", ""},
		{"define again", base + auditRule("A", "ka.verb = list", ""), ""},
		{"keeps its place", base + auditRule("B", "ka.verb exists", "") + auditRule("A", "ka.uri = x", ""), "A=o B=o"},
		{"macro append", "- {macro: m, condition: ka.verb = list}\n" + auditRule("A", "m", "") + "- {macro: m, condition: or ka.verb = get, append: true}", "A=o"},
		{"macro override", "- {macro: m, condition: ka.verb = list}\n" + auditRule("A", "m", "") + "- {macro: m, condition: or ka.verb = get, override: {condition: append}}", "A=o"},
		{"macro replace", "- {macro: m, condition: ka.verb = list}\n" + auditRule("A", "m", "") + "- {macro: m, condition: ka.verb = get, override: {condition: replace}}", "A=o"},
		{"list append", "- {list: l, items: [list]}\n" + auditRule("A", "ka.verb in (l)", "") + "- {list: l, items: [get], append: true}", "A=o"},
		{"list override", "- {list: l, items: [list]}\n" + auditRule("A", "ka.verb in (l)", "") + "- {list: l, items: [get], override: {items: append}}", "A=o"},
		{"list replace", "- {list: l, items: [get]}\n" + auditRule("A", "ka.verb in (l)", "") + "- {list: l, items: [list], override: {items: replace}}", ""},
		{"key not in the item", base + "- {rule: A, condition: x, override: {condition: append, output: append}}", "An append override for 'output' was specified but 'output' is not defined"},
		{"key not in override", base + "- {rule: A, condition: and ka.verb exists, output: x, override: {condition: append}}", "Unexpected key 'output': no corresponding entry under 'override' is defined."},
		{"cannot be appended to", base + "- {rule: A, priority: info, override: {priority: append}}", "Key 'priority' cannot be appended to, use 'replace' instead"},
		{"cannot be replaced", base + "- {rule: A, source: syscall, override: {source: replace}}", "Key 'source' cannot be replaced"},
		{"operation", base + "- {rule: A, desc: x, override: {desc: remove}}", "Invalid override operation for key 'desc': 'remove'. Allowed values are: append, replace"},
		{"both ways", base + "- {rule: A, desc: x, append: true, override: {desc: append}}", "Keys 'override' and 'append: true' cannot be used together."},
		{"no such rule", "- {rule: A, condition: x, override: {condition: append}}", "Rule uses 'append' or 'override.condition: append' but no rule by that name already exists"},
		{"no such rule to replace", "- {rule: A, condition: x, override: {condition: replace}}", "An 'override.condition: replace' to a rule was requested but no rule by that name already exists"},
		{"no such macro", "- {macro: m, condition: x, append: true}", "Macro uses 'append' or 'override.condition: append' but no macro by that name already exists"},
		{"no such list", "- {list: l, items: [x], append: true}", "List uses 'append' or 'override.items: append' but no list by that name already exists"},
		{"append of nothing", base + "- {rule: A, output: x, append: true}", "Appended rule must have exceptions or condition property"},
		{"other source", base + strings.Replace(auditRule("A", "evt.num = 1", ""), "k8s_audit", "syscall", 1), "Rule has been re-defined with a different source"},
		{"priority and flags", base + "- {rule: A, priority: info, warn_evttypes: false, skip-if-unknown-filter: true, capture: false, capture_duration: 5, override: {priority: replace, warn_evttypes: replace, skip-if-unknown-filter: replace, capture: replace, capture_duration: replace}}", "A=o"},
		{"exceptions", base + "- {rule: A, exceptions: [{name: x, fields: ka.uri, values: [x]}], override: {exceptions: append}}", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			set, err := rule.Load(rule.File{Name: "f.yaml", Data: []byte(tc.file)})
			if err != nil {
				if tc.want == "" || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("Load = %v, want %s", err, tc.want)
				}
				return
			}
			var got []string
			for _, a := range set.Match(e, rule.All) {
				_, message, _ := strings.Cut(a.Output, ": Error ")
				if _, other, ok := strings.Cut(a.Output, ": Informational "); ok {
					message = other
				}
				got = append(got, a.Rule+"="+message)
			}
			if strings.Join(got, " ") != tc.want {
				t.Errorf("alerts %v, want %s", got, tc.want)
			}
		})
	}
}

func TestOverrideOfTagsAndText(t *testing.T) {
	set, err := rule.Load(
		rule.File{Name: "a.yaml", Data: []byte(auditRule("A", "ka.verb exists", "  tags: [z, b]\n"))},
		rule.File{Name: "b.yaml", Data: []byte("- {rule: A, tags: [a, b], desc: more, override: {tags: append, desc: append}}")})
	if err != nil {
		t.Fatal(err)
	}
	r := set.Rules()[0]
	if !slices.Equal(r.Tags, []string{"a", "b", "z"}) || r.Desc != "d more" || r.File != "a.yaml" {
		t.Errorf("rule %+v", r)
	}
}

func TestExceptions(t *testing.T) {
	for _, tc := range []struct {
		name, exceptions string
		event            fields
		want             string // error, or "match"
	}{
		{"tuple", "[{name: a, fields: [ka.verb, ka.uri], values: [[get, x], [list, y]]}]", fields{"ka.verb": event.Text("list"), "ka.uri": event.Text("y")}, ""},
		{"no tuple", "[{name: a, fields: [ka.verb, ka.uri], values: [[get, x], [list, y]]}]", fields{"ka.verb": event.Text("list"), "ka.uri": event.Text("x")}, "match"},
		{"comparisons", "[{name: a, fields: [ka.verb, ka.uri], comps: [in, startswith], values: [[[get, list], /a]]}]", fields{"ka.verb": event.Text("list"), "ka.uri": event.Text("/ab")}, ""},
		{"scalar for a list operator", "[{name: a, fields: [ka.verb], comps: [in], values: [[get]]}]", fields{"ka.verb": event.Text("get")}, ""},
		{"text of a list", "[{name: a, fields: [ka.verb], comps: [in], values: [['(get,list)']]}]", fields{"ka.verb": event.Text("list")}, ""},
		{"modifier", "[{name: a, fields: [ka.uri], comps: [startswith anyof], values: [[[/a, /b]]]}]", fields{"ka.verb": event.Text("x"), "ka.uri": event.Text("/bc")}, ""},
		{"one field", "[{name: a, fields: ka.uri, values: [x, y z]}]", fields{"ka.verb": event.Text("x"), "ka.uri": event.Text("y z")}, ""},
		{"one field and operator", "[{name: a, fields: ka.uri, comps: pmatch, values: [/a]}]", fields{"ka.verb": event.Text("x"), "ka.uri": event.Text("/a/b")}, ""},
		{"one field and modifier", "[{name: a, fields: ka.uri, comps: endswith anyof, values: [/b]}]", fields{"ka.verb": event.Text("x"), "ka.uri": event.Text("/a/b")}, ""},
		{"transformer", "[{name: a, fields: [tolower(ka.uri)], values: [[abc]]}]", fields{"ka.verb": event.Text("x"), "ka.uri": event.Text("ABC")}, ""},
		{"trimmed", "[{name: a, fields: [ka.uri], comps: [' = '], values: [[x]]}]", fields{"ka.verb": event.Text("x"), "ka.uri": event.Text("x")}, ""},
		{"quoted value", `[{name: a, fields: [ka.uri], values: [['"a b"'], [c d]]}]`, fields{"ka.verb": event.Text("x"), "ka.uri": event.Text("a b")}, ""},
		{"list by name", "[{name: a, fields: [ka.uri], comps: [in], values: [[some]]}]", fields{"ka.verb": event.Text("x"), "ka.uri": event.Text("two")}, ""},
		{"several", "[{name: a, fields: ka.uri, values: [x]}, {name: b, fields: ka.verb, values: [v]}]", fields{"ka.verb": event.Text("v")}, ""},
		{"missing field", "[{name: a, fields: ka.uri, values: [x]}]", fields{"ka.verb": event.Text("v")}, "match"},
		{"no values", "[{name: a, fields: [ka.uri]}]", fields{"ka.verb": event.Text("v")}, "match"},
		{"null", "", fields{"ka.verb": event.Text("v")}, "match"},
		{"no name", "[{fields: [ka.uri], values: [[x]]}]", nil, "Rule exception item must have name property"},
		{"no fields", "[{name: a, values: [[x]]}]", nil, "Rule exception item must have fields property with a list of fields"},
		{"unknown field", "[{name: a, fields: [ka.x], values: [[x]]}]", nil, "'ka.x' is not a supported filter field"},
		{"unknown operator", "[{name: a, fields: [ka.uri], comps: [like], values: [[x]]}]", nil, "'like' is not a supported comparison operator"},
		{"operator without list", "[{name: a, fields: ka.uri, comps: =, values: [x]}]", nil, "'=' is not a supported comparison operator"},
		{"more comps", "[{name: a, fields: [ka.uri], comps: [=, =], values: [[x]]}]", nil, "Fields and comps lists must have equal length"},
		{"comps no scalar", "[{name: a, fields: ka.uri, comps: [in], values: [x]}]", nil, "Fields and comps must both be strings"},
		{"more values", "[{name: a, fields: [ka.uri], values: [[x, y]]}]", nil, "Fields and values lists must have equal length"},
		{"flat values", "[{name: a, fields: [ka.uri], values: [x]}]", nil, "Expected values array to contain a list of strings"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := "- {list: some, items: [one, two]}\n" + auditRule("A", "ka.verb exists", "  exceptions: "+tc.exceptions+"\n")
			set, err := rule.Load(rule.File{Name: "f.yaml", Data: []byte(file)})
			if tc.event == nil {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("Load = %v, want %s", err, tc.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := len(set.Match(newEvent(tc.event), rule.First)) == 1; got != (tc.want == "match") {
				x, _ := set.Explain("A", newEvent(tc.event))
				t.Errorf("match = %v\n%s", got, x)
			}
		})
	}
}

func TestAppendedExceptions(t *testing.T) {
	base := auditRule("A", "ka.verb exists or ka.uri exists", "  exceptions: [{name: a, fields: [ka.uri], values: [[x]]}, {name: empty, fields: ka.verb}]\n")
	y := newEvent(fields{"ka.uri": event.Text("y")})
	for more, want := range map[string]string{
		"[{name: a, values: [[y]]}]":                           "",
		"[{name: a, values: [[z]]}]":                           "match",
		"[{name: b, fields: ka.uri, values: [y]}]":             "",
		"[{name: empty, values: [x]}]":                         "match",
		"[{name: a}]":                                          "match LOAD_APPEND_NO_VALUES",
		"[{name: a, fields: [ka.uri], values: [[y]]}]":         "Can not append exception fields or comps to existing exception, only values",
		"[{name: new, values: [[y]]}]":                         "Rule exception item must have fields property",
		"[{name: a, values: [y]}]":                             "Expected values array to contain a list of strings",
		"[{name: a, values: [[y]]}, {name: a, values: [[z]]}]": "",
	} {
		t.Run(more, func(t *testing.T) {
			set, results := rule.Options{}.Load(rule.File{Name: "f.yaml", Data: []byte(base + "- {rule: A, append: true, exceptions: " + more + "}\n")})
			if set == nil {
				if want == "" || !strings.Contains(results[0].Errors.Error(), want) {
					t.Errorf("errors %v, want %s", results[0].Errors, want)
				}
				return
			}
			got := ""
			if len(set.Match(y, rule.First)) == 1 {
				got = "match"
			}
			for _, w := range set.Warnings() {
				if w.Code == "LOAD_APPEND_NO_VALUES" {
					got += " " + w.Code
				}
			}
			if got != want {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}

// Lists are put into conditions as text, whatever the text means there.
func TestListsAreText(t *testing.T) {
	e := newEvent(fields{"ka.verb": event.Text("get"), "ka.uri": event.Text("( get, list )"), "ka.user.name": event.Text("get , list")})
	for _, tc := range []struct {
		preamble, condition string
		want                bool
	}{
		{"- {list: l, items: [get, list]}", `ka.uri = "(l)"`, true},                         // in quotes too
		{"- {list: get, items: [put]}", `ka.verb = get`, false},                             // a value that is called like a list
		{"- {list: e, items: []}\n- {list: l, items: [get]}", `ka.verb in (e, e, l)`, true}, // both commas go
		{"- {list: l, items: ['\"get\"']}", `ka.verb in (l)`, true},
		{"- {list: a, items: [b]}\n- {list: b, items: [get]}", `ka.verb in (a)`, true}, // scanned again
		{"- {list: 'k:x', items: [get]}", `ka.verb in (k:x)`, true},
	} {
		set, err := load(tc.preamble, tc.condition)
		if err != nil {
			t.Errorf("%s: %v", tc.condition, err)
			continue
		}
		if got := len(set.Match(e, rule.First)) == 1; got != tc.want {
			t.Errorf("%s: match = %v, want %v", tc.condition, got, tc.want)
		}
	}
}

func TestVersions(t *testing.T) {
	for item, want := range map[string]string{
		"- required_engine_version: 15":                              "",
		"- required_engine_version: 63":                              "",
		"- required_engine_version: 0.57.0":                          "",
		"- required_engine_version: 64":                              "Rules require engine version 0.64.0, but engine version is 0.63.0",
		"- required_engine_version: 1.0.0":                           "Rules require engine version 1.0.0",
		"- required_engine_version: soon":                            "Unable to parse engine version 'soon'",
		"- required_engine_version: [1]":                             "Value is not a scalar value",
		"- required_plugin_versions: [{name: json, version: 0.7.0}]": "",
		"- required_plugin_versions: [{name: k8saudit, version: 0.18.0, alternatives: [{name: k8saudit-eks, version: 0.12.0}]}]": "",
		"- required_plugin_versions: [{name: k8saudit-eks, version: 0.12.0, alternatives: [{name: k8saudit, version: 0.1.0}]}]":  "",
		"- required_plugin_versions: [{name: okta, version: 0.1.0}]":                                                             "Plugin requirement not satisfied, must load one of: okta:0.1.0",
		"- required_plugin_versions: [{name: json, version: 0.8.0}]":                                                             "must load one of: json:0.8.0",
		"- required_plugin_versions: [{name: json, version: 0.7.0, alternatives: [{name: json, version: 0.6.0}]}]":               "Defined multiple alternative version requirements for plugin 'json'",
		"- required_plugin_versions: [{name: json}]":                                                                             "must have version property",
		"- required_plugin_versions: [{version: 1.0.0}]":                                                                         "must have name property",
		"- required_plugin_versions: [{name: json, version: x}]":                                                                 "Unable to parse plugin version 'x'",
		"- required_plugin_versions: {name: json}":                                                                               "must be a sequence",
	} {
		_, err := rule.Load(rule.File{Name: "f.yaml", Data: []byte(item)})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %s", item, err, want)
		}
	}
}

// Each warning has Falco's code.
func TestWarnings(t *testing.T) {
	valid := auditRule("A", "ka.verb exists", "")
	syscall := func(condition, more string) string {
		return strings.Replace(auditRule("S", condition, more), "  source: k8s_audit\n", "", 1)
	}
	for _, tc := range []struct{ name, file, want string }{
		{"none", valid, ""},
		{"unknown key", valid + "  colour: red\n", "LOAD_UNKNOWN_KEY"},
		{"unknown item", "- {foo: x}\n" + valid, "LOAD_UNKNOWN_ITEM"},
		{"unknown source", strings.Replace(valid, "k8s_audit", "okta", 1), "LOAD_UNKNOWN_SOURCE"},
		{"switch of an unknown source", strings.Replace(valid, "k8s_audit", "okta", 1) + "- {rule: A, enabled: false}", "LOAD_UNKNOWN_SOURCE"},
		{"unused macro", "- {macro: m, condition: ka.verb exists}\n" + valid, "LOAD_UNUSED_MACRO"},
		{"unused list", "- {list: l, items: [a]}\n" + valid, "LOAD_UNUSED_LIST"},
		{"used by a list", "- {list: l, items: [a]}\n- {list: k, items: [l]}\n" + auditRule("A", "ka.verb in (k)", ""), ""},
		{"list name", "- {list: a b, items: [a]}\n" + valid, "LOAD_INVALID_LIST_NAME LOAD_UNUSED_LIST"},
		{"macro name", "- {macro: a-b, condition: ka.verb exists}\n" + valid, "LOAD_INVALID_MACRO_NAME LOAD_UNUSED_MACRO"},
		{"NA", auditRule("A", "ka.verb != <NA>", ""), "LOAD_UNSAFE_NA_CHECK"},
		{"NA in a list", auditRule("A", "jevt.value[/a] in (a, <NA>)", ""), "LOAD_UNSAFE_NA_CHECK"},
		{"NA of a prefix", auditRule("A", "ka.verb startswith <NA>", ""), ""},
		{"append", valid + "- {rule: A, condition: and ka.verb exists, append: true}", "LOAD_DEPRECATED_ITEM"},
		{"enabled alone", valid + "- {rule: A, enabled: false}", "LOAD_DEPRECATED_ITEM"},
		{"exception name", auditRule("A", "ka.verb exists", "  exceptions: [{name: a, fields: ka.uri, values: [x]}, {name: a, fields: ka.uri, values: [y]}]\n"), "LOAD_EXCEPTION_NAME_NOT_UNIQUE"},
		{"field as a constant", auditRule("A", "ka.verb = ka.uri", ""), "LOAD_COMPILE_CONDITION"},
		{"transformer as a constant", auditRule("A", `ka.verb = "tolower(ka.uri)"`, ""), "LOAD_COMPILE_CONDITION"},
		{"slow expression", auditRule("A", `ka.verb regex "get.*"`, ""), "LOAD_COMPILE_CONDITION"},
		{"needed expression", auditRule("A", `ka.verb regex "get.+"`, ""), ""},
		{"no event type", syscall("proc.name = x", ""), "LOAD_NO_EVTTYPE"},
		{"no event type wanted", syscall("proc.name = x", "  warn_evttypes: false\n"), ""},
		{"event type", syscall("evt.type in (open, openat) and proc.name = x", ""), ""},
		{"either has a type", syscall("(evt.type = open or evt.type = connect) and not proc.name = x", ""), ""},
		{"one without a type", syscall("evt.type = open or proc.name = x", ""), "LOAD_NO_EVTTYPE"},
		{"all but one type", syscall("not evt.type = open", ""), "LOAD_NO_EVTTYPE"},
		{"negation goes inwards", syscall("not (not evt.type = open or proc.name = x)", ""), ""},
		{"never", syscall("evt.num = 0", ""), ""},
		{"always", syscall("evt.num >= 0", ""), "LOAD_NO_EVTTYPE"},
		{"never or a type", syscall("evt.num = 0 or evt.type = open", ""), ""},
		{"unknown field", auditRule("A", "ka.new = x", "  skip-if-unknown-filter: true\n"), "LOAD_UNKNOWN_FILTER"},
		{"unknown event type", syscall("evt.type = brandnew", "  skip-if-unknown-filter: true\n"), "LOAD_UNKNOWN_FILTER"},
		{"unknown field in the output", strings.Replace(auditRule("A", "ka.verb exists", "  skip-if-unknown-filter: true\n"), "output: o", "output: x %ka.new", 1), "LOAD_UNKNOWN_FILTER"},
		{"deprecated field", syscall("evt.type = open and evt.dir = <", ""), "LOAD_DEPRECATED_ITEM"},
		{"container.info", strings.Replace(syscall("evt.type = open", ""), "output: o", "output: x %container.info", 1), "LOAD_DEPRECATED_ITEM"},
		{"capture", valid + "  capture: true\n", "LOAD_WARNING_EXTENSION"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			set, results := rule.Options{}.Load(rule.File{Name: "f.yaml", Data: []byte(tc.file)})
			if set == nil {
				t.Fatal(results[0].Errors)
			}
			var got []string
			for _, w := range results[0].Warnings {
				got = append(got, w.Code)
			}
			slices.Sort(got)
			if strings.Join(got, " ") != tc.want {
				t.Errorf("warnings %v, want %s", results[0].Warnings, tc.want)
			}
		})
	}
}

// A rule that may be skipped takes no other with it.
func TestSkippedRule(t *testing.T) {
	file := "- {macro: m, condition: ka.new = x}\n" + auditRule("A", "m", "  skip-if-unknown-filter: true\n") + auditRule("B", "ka.verb exists", "")
	set, err := rule.Load(rule.File{Name: "f.yaml", Data: []byte(file)})
	if err != nil || len(set.Rules()) != 1 {
		t.Fatalf("Load = %v", err)
	}
	if _, err := rule.Load(rule.File{Name: "f.yaml", Data: []byte(file + auditRule("C", "m", ""))}); err == nil {
		t.Error("a rule that must not be skipped is")
	}
}

func TestSelection(t *testing.T) {
	warning := alert.Warning
	file := rule.File{Name: "f.yaml", Data: []byte(
		auditRule("Pod one", "ka.verb exists", "  tags: [k8s]\n") + auditRule("Pod two", "ka.verb exists", "") +
			strings.Replace(auditRule("Quiet", "ka.verb exists", ""), "error", "notice", 1))}
	e := newEvent(fields{"ka.verb": event.Text("get")})
	for _, tc := range []struct {
		opts rule.Options
		want string
	}{
		{rule.Options{}, "Pod one, Pod two, Quiet"},
		{rule.Options{Minimum: &warning}, "Pod one, Pod two"},
		{rule.Options{Select: []rule.Selection{{Rule: "Pod*"}}}, "Quiet"},
		{rule.Options{Select: []rule.Selection{{Rule: "*"}, {Tag: "k8s", On: true}}}, "Pod one"},
		{rule.Options{Select: []rule.Selection{{Rule: "Pod [ot]*"}}}, "Pod one, Pod two, Quiet"},
	} {
		set, results := tc.opts.Load(file)
		if set == nil {
			t.Fatal(results)
		}
		var got []string
		for _, a := range set.Match(e, rule.All) {
			got = append(got, a.Rule)
		}
		if strings.Join(got, ", ") != tc.want {
			t.Errorf("%+v: alerts of %v, want %s", tc.opts, got, tc.want)
		}
	}
}

func TestOutputs(t *testing.T) {
	e := newEvent(fields{"ka.verb": event.Text("get"), "ka.user.groups": list("a", "b")})
	for _, tc := range []struct {
		output, want string
		field        string // an output field that must be there
		more         []rule.Append
	}{
		{output: "x %ka.verb. y", want: "x get. y", field: "ka.verb"},
		{output: "*%ka.verb", want: "get"},
		{output: "%toupper(ka.verb)!", want: "GET!"},
		{output: "%len(ka.user.groups) %5ka.verb|", want: "2 get  |"},
		{output: "%concat(ka.verb, \"-x\") %join(\"+\", ka.user.groups)", want: "get-x a+b"},
		{output: "%ka.uri %tolower(ka.uri)", want: "<NA> <NA>"},
		{output: "%static.cluster", want: "prod", field: "static.cluster"},
		{output: "a", more: []rule.Append{{Output: "on %static.cluster"}}, want: "a on prod", field: "static.cluster"},
		{output: "a", more: []rule.Append{{Source: "syscall", Output: "b"}, {Rule: "A", Output: "c"}, {Tags: []string{"t", "u"}, Output: "d"}}, want: "a c"},
		{output: "a", more: []rule.Append{{Suggested: true}}, want: "a"},
		{output: "a", more: []rule.Append{{Fields: []rule.Extra{{Name: "ka.uri"}, {Name: "who", Format: "v=%ka.verb"}}}}, want: "a", field: "who"},
	} {
		t.Run(tc.output+tc.want, func(t *testing.T) {
			text := strings.Replace(auditRule("A", "ka.verb exists", "  tags: [t]\n"), "output: o", "output: "+fmt.Sprintf("%q", tc.output), 1)
			set, results := rule.Options{Static: map[string]string{"cluster": "prod"}, Append: tc.more}.Load(rule.File{Name: "f.yaml", Data: []byte(text)})
			if set == nil {
				t.Fatal(results[0].Errors)
			}
			a := set.Match(e, rule.First)[0]
			if _, got, _ := strings.Cut(a.Output, ": Error "); got != tc.want {
				t.Errorf("output %q, want %q", got, tc.want)
			}
			if tc.field != "" && a.OutputFields[tc.field] == nil {
				t.Errorf("output fields %v have no %s", a.OutputFields, tc.field)
			}
			if a.OutputFields["toupper(ka.verb)"] != nil {
				t.Error("a transformed field is an output field")
			}
		})
	}
}

func TestSuggestedOutput(t *testing.T) {
	set, results := rule.Options{Append: []rule.Append{{Suggested: true}}}.Load(rule.File{Name: "f.yaml", Data: []byte(
		strings.Replace(auditRule("A", "evt.type exists", ""), "  source: k8s_audit\n", "", 1))})
	if set == nil {
		t.Fatal(results)
	}
	e := newEvent(fields{"evt.type": event.Text("open"), "container.id": event.Text("host")})
	e.Source = event.Syscall
	if a := set.Match(e, rule.First); len(a) != 1 || !strings.Contains(a[0].Output, "o container_id=host container_name=<NA> ") {
		t.Errorf("alerts %+v", a)
	}
}
