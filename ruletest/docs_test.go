package ruletest_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/ruletest"
)

// The files that the documentation shows do what it says.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../docs/rule-tests.md")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	files := map[string]string{"audit-policy.yaml": string(content.AuditPolicy())}
	for _, m := range regexp.MustCompile("(?s)\n```(?:yaml|json) (\\S+)\n(.*?)\n```\n").FindAllStringSubmatch(string(text), -1) {
		files[m[1]] = m[2]
	}
	for name, data := range files {
		if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var passed strings.Builder
	for _, name := range []string{"rules.test.yaml", "calls.test.yaml", "policy.test.yaml"} {
		f, err := ruletest.Read(name, []byte(files[name]))
		if err != nil {
			t.Fatal(err)
		}
		results, err := f.Run(t.Context())
		if err != nil || len(results) == 0 {
			t.Fatalf("%s: %v", name, err)
		}
		for _, r := range results {
			if r.Err != nil {
				t.Errorf("%s: %v", r.Name, r.Err)
			}
			passed.WriteString("ok   " + r.Name + "\n")
			if strings.HasSuffix(r.Name, "as it was recorded") {
				_, output, _ := strings.Cut(r.Raised[0].Output, "000000: ")
				if !strings.Contains(string(text), output+`", …}`) {
					t.Errorf("docs/rule-tests.md does not show %s", output)
				}
			}
		}
		if name == "rules.test.yaml" && !strings.Contains(string(text), passed.String()+"4 passed, 0 failed\n") {
			t.Errorf("%s does not show\n%s", filepath.Base("docs/rule-tests.md"), passed.String())
		}
	}
}
