package tuning

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
)

// TestPage: the page shows what is proposed for a backup and somebody else.
func TestPage(t *testing.T) {
	page, err := os.ReadFile("../docs/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := content.Read[rule.File](content.Rules())
	if err != nil {
		t.Fatal(err)
	}
	name := "Secret of another namespace read"
	backup := raise(288, name, fields{
		"ka.user.name": "system:serviceaccount:velero:velero", "ka.impuser.name": nil, "ka.verb": "get", "ka.sourceips": []string{"10.0.3.7"},
		"ka.target.namespace": "shop", "ka.target.resource": "secrets", "ka.target.name": func(i int) any { return fmt.Sprint("db-", i%12) },
	})
	other := raise(2, name, fields{
		"ka.user.name": "system:serviceaccount:web:frontend", "ka.impuser.name": nil, "ka.verb": "get", "ka.sourceips": []string{"10.0.5.2"},
		"ka.target.namespace": "shop", "ka.target.resource": "secrets", "ka.target.name": "db-1",
	})
	alerts := slices.Concat(backup, other)
	for i := range alerts {
		a := &alerts[i]
		a.Priority, a.Time = alert.Warning, start.Add(time.Duration(i)*5*time.Minute)
		a.Output = fmt.Sprintf("%s: Warning %s read secret %s", a.Time.Format("15:04:05.000000000"), a.OutputFields["ka.user.name"], a.OutputFields["ka.target.name"])
	}
	proposals, _, err := Propose(alerts, Options{Rules: files, Min: 10})
	if err != nil || len(proposals) != 1 {
		t.Fatalf("%v, %v", proposals, err)
	}
	text := strings.Join(proposals[0].Lines(false), "\n") + "\n"
	file := string(YAML(proposals))
	for kind, want := range map[string]string{"text": text, "yaml tuned": file} {
		if !strings.Contains(string(page), "\n```"+kind+"\n"+want+"```\n") {
			t.Errorf("docs/rules.md does not show, as %s,\n%s", kind, want)
		}
	}
	set, err := rule.Load(append(files, rule.File{Name: "tuned.yaml", Data: []byte(file)})...)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(set.Rules(), func(r rule.Rule) bool { return r.Name == name && r.Source == event.K8sAudit }) {
		t.Errorf("there is no rule %q", name)
	}
}
