package rule_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
)

// fenced returns the blocks of docs/rules.md of one kind.
func fenced(t *testing.T, kind string) (blocks []string) {
	t.Helper()
	page, err := os.ReadFile("../docs/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	for i, part := range strings.Split(string(page), "\n```") {
		if info, text, _ := strings.Cut(part, "\n"); i%2 == 1 && info == kind {
			blocks = append(blocks, text+"\n")
		}
	}
	return blocks
}

// The page shows rules that load, and what explain says of the first file.
func TestPage(t *testing.T) {
	files := fenced(t, "yaml rules")
	if len(files) != 2 {
		t.Fatalf("%d files, want 2", len(files))
	}
	set, results := rule.Options{}.Load(rule.File{Name: "own.yaml", Data: []byte(files[0])}, rule.File{Name: "later.yaml", Data: []byte(files[1])})
	for _, r := range results {
		if r.String() != r.Name+": Ok" {
			t.Error(r.Verbose())
		}
	}
	request := fields{"ka.verb": event.Text("list"), "ka.target.resource": event.Text("secrets"), "ka.user.name": event.Text("restic"), "ka.target.namespace": event.Text("shop")}
	if got := set.Match(newEvent(request), rule.First); got != nil {
		t.Errorf("the appended exception has no effect: %v", got)
	}
	request["ka.target.namespace"] = event.Text("billing")
	if got := set.Match(newEvent(request), rule.First); len(got) != 1 || strings.Join(got[0].Tags, " ") != "k8s mitre_credential_access reviewed" {
		t.Errorf("alerts %v", got)
	}

	set, _ = rule.Options{}.Load(rule.File{Name: "own.yaml", Data: []byte(files[0])})
	e := newEvent(fields{"ka.verb": event.Text("list"), "ka.target.resource": event.Text("pods"), "ka.user.name": event.Text("eve"), "ka.target.namespace": event.Text("shop")})
	e.Time = time.Date(2026, 11, 20, 10, 0, 0, 2000, time.UTC)
	x, ok := set.Explain("Secrets read", e)
	if !ok {
		t.Fatal("no such rule")
	}
	shown := fenced(t, "")
	if got := "event of 2026-11-20T10:00:00.000002Z\n" + x.String(); len(shown) != 1 || shown[0] != got {
		t.Errorf("docs/rules.md shows %q\nwant\n%s", shown, got)
	}
}
