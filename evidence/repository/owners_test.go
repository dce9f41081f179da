package repository

import (
	"strings"
	"testing"
)

func TestOwners(t *testing.T) {
	for _, tt := range []struct{ rules, file, want string }{
		{"* @all", "a/b.yaml", "@all"},
		{"* @all\n*.yaml @yaml", "a/b.yaml", "@yaml"},
		{"*.yaml @yaml\n* @all", "a/b.yaml", "@all"}, // the last one counts
		{"/deploy/ @ops", "deploy/x/y.yaml", "@ops"},
		{"/deploy/ @ops", "app/deploy/y.yaml", ""},
		{"deploy/ @ops", "app/deploy/y.yaml", "@ops"},
		{"/deploy @ops", "deploy/y.yaml", "@ops"},
		{"deploy/ @ops", "deploy", ""}, // a file of that name
		{"/deploy/* @ops", "deploy/y.yaml", "@ops"},
		{"/deploy/* @ops", "deploy/x/y.yaml", ""}, // not deeper
		{"/deploy/** @ops", "deploy/x/y.yaml", "@ops"},
		{"**/k8s/ @ops", "a/b/k8s/y.yaml", "@ops"},
		{"/a/**/y.yaml @ops", "a/y.yaml", "@ops"},
		{"/a/**/y.yaml @ops", "a/b/c/y.yaml", "@ops"},
		{"docs/*.md @docs", "docs/a.md", "@docs"},
		{"docs/*.md @docs", "x/docs/a.md", ""},
		{"* @all\n/deploy/", "deploy/y.yaml", ""}, // taken away
		{"* @all # comment", "a", "@all"},
		{"# * @all", "a", ""},
		{`/my\ folder/ @ops`, "my folder/a", "@ops"},
		{"* ops@example.com", "a", "ops@example.com"},
		{"* nobody", "a", ""},
		{"[Ops] @ops\n/deploy/", "deploy/a", "@ops"},
		{"^[Ops][2] @ops\n/deploy/ @other", "deploy/a", "@other"},
		{"[ @ops", "a", ""}, // a broken pattern matches nothing
	} {
		if got := strings.Join(parseOwners(tt.rules).of(tt.file), " "); got != tt.want {
			t.Errorf("%q: %s is of %q, want %q", tt.rules, tt.file, got, tt.want)
		}
	}
}

func FuzzOwners(f *testing.F) {
	f.Add("* @a\n/x/**/y @b", "x/z/y")
	f.Fuzz(func(t *testing.T, rules, file string) {
		if o := parseOwners(rules); len(o) > maxOwnerRules {
			t.Errorf("%d rules", len(o))
		} else {
			o.of(file)
		}
	})
}

func TestSecretLines(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		want int
	}{
		"base64":         {"apiVersion: v1\nkind: Secret\ndata: {a: aHVudGVyMg==}", 1},
		"text":           {"apiVersion: v1\nkind: Secret\nstringData: {a: hunter2}", 1},
		"JSON":           {`{"apiVersion": "v1", "kind": "Secret", "stringData": {"a": "hunter2"}}`, 1},
		"two":            {"apiVersion: v1\nkind: Secret\nstringData: {a: hunter2}\n---\napiVersion: v1\nkind: Secret\nstringData: {a: hunter2}", 2},
		"alias":          {"apiVersion: v1\nkind: Secret\nx: &x {a: hunter2}\nstringData: *x", 1},
		"empty":          {"apiVersion: v1\nkind: Secret\nstringData: {a: ''}", 0},
		"no data":        {"apiVersion: v1\nkind: Secret\ntype: kubernetes.io/service-account-token", 0},
		"another kind":   {"apiVersion: v1\nkind: ConfigMap\ndata: {Secret: aHVudGVyMg==}", 0},
		"another group":  {"apiVersion: x.io/v1\nkind: Secret\ndata: {a: aHVudGVyMg==}", 0},
		"no base64":      {"apiVersion: v1\nkind: Secret\ndata: {a: '{{ x }}'}", 0},
		"a template":     {"apiVersion: v1\nkind: Secret\ndata:\n  a: {{ .Values.a }}", 0},
		"a reference":    {"apiVersion: v1\nkind: Secret\nstringData: {a: 'ref+vault://secret/a'}", 0},
		"a certificate":  {"apiVersion: v1\nkind: Secret\ndata: {tls.crt: aHVudGVyMg==}", 0},
		"a key":          {"apiVersion: v1\nkind: Secret\ndata: {tls.crt: aHVudGVyMg==, tls.key: aHVudGVyMg==}", 1},
		"encrypted":      {"apiVersion: v1\nkind: Secret\ndata: {a: aHVudGVyMg==}\nsops: {}", 0},
		"generator":      {"secretGenerator: [{name: a, literals: ['a=hunter2']}]", 1},
		"generator file": {"secretGenerator: [{name: a, files: [a.txt]}]", 0},
		"broken":         {"kind: Secret\n  a: b", 0},
	} {
		if got := len(secretLines([]byte(tt.text))); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}

func FuzzSecretLines(f *testing.F) {
	f.Add([]byte("apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Secret, data: &a {x: eA==, y: *a}}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, line := range secretLines(data) {
			if line < 1 {
				t.Errorf("line %d", line)
			}
		}
	})
}
