package rule_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
)

// checkLoad loads a file; whatever it holds, it is a set on which the evaluators
// agree, or mistakes that each have a place in the file.
func checkLoad(t *testing.T, data []byte) {
	set, results := rule.Options{}.Load(rule.File{Name: "f.yaml", Data: data})
	checkResult(t, data, results[0])
	if set == nil {
		return
	}
	for _, source := range event.Sources() {
		e := newEvent(fields{
			"ka.verb": event.Text("get"), "ka.user.groups": list("a"), "evt.type": event.Text("open"), "proc.name": event.Text("sh"),
			"fd.snet": addr("10.0.0.1"), "proc.pid": event.Number(1), "proc.aname": list("a", "sh"), "evt.buffer": event.Bytes("ab"),
		})
		e.Source = source
		compare(t, set, e, string(data))
	}
}

func checkResult(t *testing.T, data []byte, result rule.Result) {
	if _, err := json.Marshal(result); err != nil || result.Verbose() == "" || len(result.Errors) > 100 || len(result.Warnings) > 100 {
		t.Fatalf("result %v: %v", result, err)
	}
	lines := 2 // a mistake may be behind the last line
	for _, r := range string(data) {
		if strings.ContainsRune("\r\n\u0085\u2028\u2029", r) {
			lines++
		}
	}
	for _, e := range slices.Concat(result.Errors, result.Warnings) {
		if e.Line < 1 || e.Line > lines || e.Column < 1 || e.Message == "" || e.Code == "" {
			t.Errorf("mistake without a place: %#v", e)
		}
		if excerpt := e.Excerpt(); excerpt != "" && strings.Count(excerpt, "\n") != 1 {
			t.Errorf("excerpt %q is not two lines", excerpt)
		}
	}
}

func FuzzFile(f *testing.F) {
	f.Add([]byte(valid))
	f.Add([]byte("- {list: l, items: [a, b c]}\n- {macro: m, condition: ka.verb in (l)}\n" + strings.Replace(valid, "ka.verb exists", ">\n    m\n    or not ka.uri = \"x\"", 1)))
	f.Add([]byte("- {rule: A, enabled: false}\n---\n- &a {macro: m, condition: &c ka.verb exists}\n- *a\n"))
	f.Add([]byte("- rule: [\n"))
	f.Add([]byte("- required_engine_version: 15\n- required_plugin_versions: [{name: json, version: 0.7.0, alternatives: [{name: x, version: 1.0.0}]}]\n" + valid))
	f.Add([]byte(valid + "  exceptions: [{name: x, fields: [ka.verb, ka.uri], comps: [in, startswith anyof], values: [[[a, b c], /x]]}, {name: y, fields: tolower(ka.uri), values: [q]}]\n" +
		"- {rule: A, exceptions: [{name: y, values: [z]}], tags: [t], override: {exceptions: append, tags: append}}\n- {rule: A, condition: or ka.uri = x, append: true}\n"))
	f.Add([]byte("- {list: l, items: [a]}\n- {list: l, items: [b], override: {items: append}}\n- {macro: m, condition: evt.type in (l)}\n- {macro: m, condition: or m, append: true}\n"))
	f.Add([]byte("- {rule: S, desc: d, condition: evt.type = open and fd.net in (10.0.0.0/8) and proc.aname = sh, output: '%10proc.name %concat(proc.name, \"x\")', priority: info, skip-if-unknown-filter: true}\n"))
	f.Add([]byte("# nothing\n---\n"))
	f.Fuzz(checkLoad)
}

func FuzzCondition(f *testing.F) {
	for _, seed := range []string{
		`ka.verb = get and not (ka.uri contains "a\"b" or m)`,
		`ka.user.groups[1] intersects (l, 'x y') and jevt.value[/a/b] exists`,
		`ka.verb glob "[a-c]*?" or ka.uri pmatch (/a/b*, /c) or evt.rawtime >= 0x1f`,
		`ka.verb = val(ka.uri) and ka.verb in l`,
		`not(not not ka.verb startswith a)`,
		`ka.verb regex "g(e|o)t.*" and ka.uri iglob "*X" and ka.verb = anyof (a, get) or ka.uri contains oneof (l)`,
		`join(",", ka.user.groups) = concat(ka.verb, "x") and len(ka.user.groups) >= 0x1`,
		`getopt(("-a", ka.verb), "a:")[a] = get or b64(toupper(ka.uri)) != basename(ka.verb)`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, condition string) {
		indented := strings.ReplaceAll(condition, "\n", "\n    ")
		checkLoad(t, []byte("- {list: l, items: [a, b c]}\n- {macro: m, condition: ka.verb in (l)}\n"+
			strings.Replace(valid, "ka.verb exists", "|-\n    "+indented, 1)))
	})
}
