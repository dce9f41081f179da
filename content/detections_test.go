package content_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
)

// docs/detections.md lists every rule with its priority, tactic and techniques, in
// the order of the rules, and every field of our own.
func TestDetectionsAreDocumented(t *testing.T) {
	data, err := os.ReadFile("../docs/detections.md")
	if err != nil {
		t.Fatal(err)
	}
	_, tables, _ := strings.Cut(string(data), "\n## The rules for the audit log\n")
	audit, syscall, _ := strings.Cut(tables, "\n## The rules for system calls\n")
	for source, table := range map[string]string{event.K8sAudit: audit, event.Syscall: syscall} {
		rules := builtinRules(t, source)
		checkTable(t, listedRules(t, table), rules)
		if !strings.Contains(string(data), fmt.Sprintf("%d built-in rules for %s", len(rules), map[string]string{event.K8sAudit: "the audit log", event.Syscall: "system calls"}[source])) {
			t.Errorf("nothing says that there are %d rules for %s", len(rules), source)
		}
	}
	builtin, err := content.Read[rule.File](content.Rules())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mine.yaml", "node.yaml"} {
		_, shown, _ := strings.Cut(string(data), "```yaml "+name+"\n")
		shown, _, _ = strings.Cut(shown, "```")
		if _, err := rule.Load(append(builtin, rule.File{Name: name, Data: []byte(shown)})...); err != nil || shown == "" {
			t.Errorf("the example %s does not load: %v", name, err)
		}
	}
	for _, f := range event.Fields(event.K8sAudit) {
		if strings.HasPrefix(f.Name, "kg.") && !strings.Contains(string(data), "`"+f.Name+"`") {
			t.Errorf("field %s is not documented", f.Name)
		}
	}
}

// listedRules returns the rows of a table, without what to do.
func listedRules(t *testing.T, table string) []string {
	t.Helper()
	section, listed := "", []string{}
	for line := range strings.Lines(table) {
		if heading, ok := strings.CutPrefix(line, "### "); ok {
			section = strings.TrimSpace(heading)
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 4 || strings.HasPrefix(line, "| rule ") || strings.HasPrefix(line, "|---") {
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if cells[3] == "" {
			t.Errorf("rule %q: nothing says what to do", cells[0])
		}
		listed = append(listed, strings.Join(append([]string{section}, cells[:3]...), " | "))
	}
	return listed
}

func checkTable(t *testing.T, listed []string, rules []rule.Rule) {
	t.Helper()
	for i, r := range rules {
		var techniques []string
		for _, tag := range r.Tags {
			if technique.MatchString(tag) {
				techniques = append(techniques, tag)
			}
		}
		for _, tag := range r.Tags {
			if strings.HasPrefix(tag, "MS-TA") {
				techniques = append(techniques, tag)
			}
		}
		tactic := strings.ReplaceAll(strings.Join(alert.Tactics(r.Tags), " "), "-", " ")
		want := fmt.Sprintf("%s | %s | %s | %s", r.Priority, r.Name, tactic, strings.Join(techniques, ", "))
		if i >= len(listed) || listed[i] != want {
			t.Fatalf("row %d must be %s", i+1, want)
		}
	}
	if len(listed) != len(rules) {
		t.Errorf("%d rows for %d rules", len(listed), len(rules))
	}
}
