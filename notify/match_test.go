package notify_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/notifytest"
)

func TestMatchers(t *testing.T) {
	list := notifytest.Notifications(3)
	single, joined := list[0], list[2]
	single.Alert.OutputFields["list"] = []any{"x", 5}
	for text, want := range map[string][2]bool{ // of an alert, and of an incident
		`rule="Secret read by exec"`:        {true, true},
		`rule=~"Secret.*"`:                  {true, true},
		`rule=~Secret`:                      {false, false},
		`rule!~"Secret.*"`:                  {false, false},
		`priority=critical`:                 {true, true},
		`tags=k8s`:                          {true, true},
		`tags!=k8s`:                         {false, false},
		`tags!=other`:                       {true, true},
		`namespace=shop`:                    {true, true},
		`kind=Pod`:                          {true, true},
		`name = web`:                        {true, true},
		`subject="Pod/shop/web"`:            {true, true},
		`cluster=prod`:                      {true, true},
		`user=eve`:                          {true, true},
		`pod=shop/web`:                      {true, true},
		`k8s.ns.name!="kube-system"`:        {true, true},
		`k8s.ns.name=""`:                    {false, false},
		`no.such.field=""`:                  {true, true},
		`no.such.field!=""`:                 {false, false},
		`proc.pid=9007199254740993`:         {true, true},
		`list=x`:                            {true, false},
		`list=5`:                            {true, false},
		`state=new`:                         {false, true},
		`score=~"[5-9].|100"`:               {false, true},
		`story=~".*credential access.*"`:    {false, true},
		`assignee=""`:                       {true, true},
		`tactics=credential-access`:         {true, true},
		`source=~"k8s_audit|syscall"`:       {true, true},
		`output=~".*user=eve.*"`:            {true, true},
		`hostname=node-1`:                   {true, true},
		`rule="with \"quotes\" and \\ one"`: {false, false},
	} {
		m, err := notify.ParseMatcher(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := [2]bool{m.Match(&single), m.Match(&joined)}; got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	quoted := single
	quoted.Alert.Rule = `a "b" \c`
	if m, err := notify.ParseMatcher(`rule="a \"b\" \\c"`); err != nil || !m.Match(&quoted) {
		t.Errorf("quotes in a value: %v", err)
	}
	for text, want := range map[string]string{
		"":                        "want a field",
		"rule":                    "want a field",
		"=x":                      "want a field",
		"rule==x":                 "",
		`rule="x`:                 "closing quote is missing",
		`rule="x" y`:              "follows the closing quote",
		`rule=x y`:                "written in quotes",
		`rule=~"("`:               "missing closing )",
		strings.Repeat("x", 5000): "more than 4096",
	} {
		if _, err := notify.ParseMatcher(text); want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.20s: %v, want %s", text, err, want)
		}
	}
}

func FuzzMatcher(f *testing.F) {
	for _, seed := range []string{`rule="x"`, `tags=~"a|b"`, `k8s.ns.name!="kube-system"`, `a[0]!~".*\\\""`} {
		f.Add(seed)
	}
	n := notifytest.Notifications(3)[2]
	f.Fuzz(func(t *testing.T, text string) {
		m, err := notify.ParseMatcher(text)
		if err == nil {
			m.Match(&n)
		} else if !utf8.ValidString(err.Error()) {
			t.Errorf("%q: the error is no text", text)
		}
	})
}

func TestTemplates(t *testing.T) {
	n := notifytest.Notifications(3)[2]
	for text, want := range map[string]string{
		`{{.Rule}} {{.Priority}} {{upper (.Field "k8s.ns.name")}} x{{.Count}}`: "Secret read by exec Critical SHOP x3",
		`{{json .Tags}} {{.Incident.Score}} {{.Field "nothing"}}`:              `["k8s","mitre_credential_access"] 60 `,
		`{{range $k, $v := .OutputFields}}{{$k}},{{end}}`:                      "k8s.none,k8s.ns.name,k8s.pod.name,ka.user.name,proc.pid,team,",
	} {
		tmpl, err := notify.ParseTemplate("t", text)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := notify.Execute(tmpl, notify.NewTemplateData(&n)); err != nil || got != want {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		`{{define "x"}}{{template "x"}}{{end}}{{template "x"}}`: "exceeded maximum template depth",
		`{{range 1000000000}}x{{end}}`:                          "more than",
		`{{printf "%1000000s" ""}}{{printf "%1000000s" ""}}`:    "1 MiB",
	} {
		tmpl, err := notify.ParseTemplate("t", text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := notify.Execute(tmpl, notify.NewTemplateData(&n)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := notify.ParseTemplate("t", strings.Repeat("x", 70000)); err == nil {
		t.Error("a template of any size is read")
	}
}

func TestTexts(t *testing.T) {
	if got := notify.Cut("äöü", 3); got != "äöü" {
		t.Errorf("got %q", got)
	}
	if got := notify.Cut("äöüß", 3); got != "äö…" {
		t.Errorf("got %q", got)
	}
	if got := notify.Clean("a\x00b\r\nc\x1b[31m\u202ed\xff\te"); got != "ab\nc[31md\ufffd\te" {
		t.Errorf("got %q", got)
	}
	n := notify.Notification{Alert: alert.Alert{Rule: "A\nB", Priority: alert.Error}, Count: 3}
	if got := n.Heading(); got != "Error: A B, 3 alerts" {
		t.Errorf("got %q", got)
	}
	n = notifytest.Notifications(3)[2]
	if got := n.Heading(); !strings.HasPrefix(got, "Incident, Critical: eve: credential access") {
		t.Errorf("got %q", got)
	}
}
