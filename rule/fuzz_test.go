package rule_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
)

// checkLoad loads a file; whatever it holds, it is a set that matches events or
// mistakes that each have a place in the file.
func checkLoad(t *testing.T, data []byte) {
	set, err := rule.Load(rule.File{Name: "f.yaml", Data: data})
	if err == nil {
		set.Match(newEvent(fields{"ka.verb": event.Text("get"), "ka.user.groups": list("a")}), rule.All)
		return
	}
	var errs rule.Errors
	if !errors.As(err, &errs) || len(errs) == 0 || len(errs) > 100 {
		t.Fatalf("Load = %v, want 1 to 100 mistakes", err)
	}
	lines := 2 // a mistake may be behind the last line
	for _, r := range string(data) {
		if strings.ContainsRune("\r\n\u0085\u2028\u2029", r) {
			lines++
		}
	}
	for _, e := range errs {
		if e.Line < 1 || e.Line > lines || e.Column < 1 || e.Message == "" {
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
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, condition string) {
		indented := strings.ReplaceAll(condition, "\n", "\n    ")
		checkLoad(t, []byte("- {list: l, items: [a, b c]}\n- {macro: m, condition: ka.verb in (l)}\n"+
			strings.Replace(valid, "ka.verb exists", "|-\n    "+indented, 1)))
	})
}
