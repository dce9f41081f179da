package tool_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/kubeguardian/kubeguardian/fact"
	"github.com/kubeguardian/kubeguardian/tool"
)

// Every need of the matrix is served by something open, and most on each cloud.
func TestBuiltIn(t *testing.T) {
	m := tool.BuiltIn()
	levels, tools := map[string]int{}, 0
	for _, n := range m.Needs {
		levels[n.Level]++
		tools += len(n.Tools)
		if !slices.ContainsFunc(n.Tools, func(t tool.Tool) bool { return t.On == "open" }) {
			t.Errorf("%s: nothing open serves it", n.ID)
		}
		for _, of := range n.Tools {
			signs := len(of.Images) + len(of.Groups) + len(of.Kinds) + len(of.Annotations) + len(of.Namespaces) + len(of.Drivers) +
				len(of.Systems) + len(of.Resources) + len(of.Files) + len(of.Evidence) + len(of.Steps)
			if signs == 0 {
				t.Errorf("%s: %s cannot be recognised by anything", n.ID, of.Name)
			}
		}
	}
	if len(levels) != 5 || tools < 100 {
		t.Errorf("levels %v, %d tools", levels, tools)
	}
	if m.Needs[0].Level != "infrastructure" || m.Needs[len(m.Needs)-1].Level != "code" {
		t.Error("needs are not in the order of the levels")
	}
}

func TestLoadBadInput(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"unknown key": {"level: code\nneeds: [{id: a, title: A, tool: []}]", "field tool not found"},
		"no title":    {"level: code\nneeds: [{id: a}]", `need "a": want an id of its own, a title`},
		"twice":       {"level: code\nneeds: [{id: a, title: A}, {id: a, title: A}]", "an id of its own"},
		"no cloud":    {"level: code\nneeds: [{id: a, title: A, tools: [{name: X, on: ibm}]}]", `tool "X": want a name, and on`},
		"two ways":    {"level: code\nneeds: [{id: a, title: A, tools: [{name: X, on: open, steps: [{action: a/b, command: b, for: [sast]}]}]}]", "one of action, command and template"},
		"no purpose":  {"level: code\nneeds: [{id: a, title: A, tools: [{name: X, on: open, steps: [{command: b, for: [fun]}]}]}]", `cannot be for "fun"`},
	} {
		if _, err := tool.Load(fstest.MapFS{"code.yaml": {Data: []byte(tt.text)}}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
	if _, err := tool.Load(fstest.MapFS{}); err == nil {
		t.Error("no files: no error")
	}
}

// show writes uses as "Trivy manifests yes".
func show(uses []tool.Use) string {
	var out []string
	for _, u := range uses {
		out = append(out, fmt.Sprintf("%s %s %s", u.Tool, strings.Join(u.For, "+"), []string{"unknown", "no", "yes"}[u.Fails]))
	}
	return strings.Join(out, "; ")
}

func TestScript(t *testing.T) {
	for script, want := range map[string]string{
		"gosec ./...":                     "gosec sast yes",
		"gosec -no-fail ./...":            "gosec sast no",
		"gosec ./... || true":             "gosec sast no",
		"gosec ./... || (echo x; exit 1)": "gosec sast yes",
		"set +e\ngosec ./...":             "gosec sast no",
		"go run github.com/securego/gosec/v2/cmd/gosec@v2.22.0 ./...": "gosec sast yes",
		"go install github.com/securego/gosec/v2/cmd/gosec@latest":    "",
		"echo gosec":                           "",
		"# gosec":                              "",
		"cat x | gosec -stdin":                 "gosec sast yes",
		"if ! gosec ./...; then exit 1; fi":    "gosec sast yes",
		"GOFLAGS=-mod=mod sudo gosec .":        "gosec sast yes",
		"trivy config .":                       "Trivy manifests no",
		"trivy --quiet config --exit-code 1 .": "Trivy manifests yes",
		"trivy config --exit-code=0 .":         "Trivy manifests no",
		"trivy fs --exit-code 1 .":             "Trivy dependencies+secrets yes",
		"trivy version":                        "",
		`docker run --rm -v "$PWD:/src" aquasec/trivy:0.69 config --exit-code 1 /src`:  "Trivy manifests yes",
		"docker pull aquasec/trivy:0.69":                                               "",
		"docker build -t trivy config":                                                 "",
		"kubeguardian scan ./deploy --fail-on none":                                    "KubeGuardian manifests no",
		"kubeguardian scan ./deploy --fail-on=critical":                                "KubeGuardian manifests yes",
		"kubeguardian replay events.jsonl":                                             "",
		"npm ci && npm audit --audit-level=high":                                       "npm and yarn audit dependencies yes",
		"npx semgrep ci":                                                               "Semgrep sast yes",
		"semgrep --config auto":                                                        "Semgrep sast no",
		"python -m bandit -r src --exit-zero":                                          "Bandit sast no",
		"gitleaks detect --exit-code 0":                                                "gitleaks secrets no",
		"cosign sign --yes $IMAGE\ncosign attest --yes $IMAGE":                         "cosign signing yes; cosign signing+provenance yes",
		"checkov -d . --soft-fail":                                                     "Checkov manifests+infrastructure no",
		"docker run -t ghcr.io/zaproxy/zaproxy:stable zap-baseline.py -t https://x -I": "ZAP dast no",
		"trivy config \\\n  --exit-code 1 \\\n  .":                                     "Trivy manifests yes",
	} {
		if got := show(tool.BuiltIn().Script(script)); got != want {
			t.Errorf("%q: %q, want %q", script, got, want)
		}
	}
}

func TestAction(t *testing.T) {
	type inputs = map[string]string
	for _, tt := range []struct {
		uses string
		with inputs
		want string
	}{
		{"aquasecurity/trivy-action@0.30.0", nil, "Trivy images no"},
		{"AquaSecurity/trivy-action@0.30.0", inputs{"scan-type": "config", "exit-code": "1"}, "Trivy manifests yes"},
		{"aquasecurity/trivy-action@0.30.0", inputs{"scan-type": "fs", "exit-code": "0"}, "Trivy dependencies no"},
		{"github/codeql-action/analyze@v4", nil, "GitHub Advanced Security sast unknown; CodeQL sast unknown"},
		{"github/codeql-action/init@v4", nil, ""},
		{"anchore/scan-action@v7", nil, "Grype images+dependencies yes"},
		{"anchore/scan-action@v7", inputs{"fail-build": "false"}, "Grype images+dependencies no"},
		{"securego/gosec@master", inputs{"args": "-no-fail ./..."}, "gosec sast no"},
		{"slsa-framework/slsa-github-generator/.github/workflows/generator_container_slsa3.yml@v2.1.0", nil, "SLSA generators provenance yes"},
		{"actions/checkout@v6", nil, ""},
	} {
		if got := show(tool.BuiltIn().Action(tt.uses, tt.with)); got != tt.want {
			t.Errorf("%s %v: %q, want %q", tt.uses, tt.with, got, tt.want)
		}
	}
	if got := show(tool.BuiltIn().Template("Jobs/SAST.latest.gitlab-ci.yml")); got != "GitLab SAST sast unknown" {
		t.Errorf("template: %q", got)
	}
}

func TestCalls(t *testing.T) {
	for script, want := range map[string]bool{
		"make check": true, "./ci/run": true, "bash scripts/x.sh": true, "npm run lint": true, "go test ./... && task lint": true,
		"npm ci": false, "go test ./...": false, "echo make": false, "": false,
	} {
		if got := tool.Calls(script); got != want {
			t.Errorf("%q: %t", script, got)
		}
	}
}

func TestImageName(t *testing.T) {
	for image, want := range map[string]string{
		"nginx": "nginx", "cr.fluentbit.io/fluent/fluent-bit:4.1.0": "fluent-bit", "localhost:5000/a/b@sha256:00": "b",
	} {
		if got := tool.ImageName(image); got != want {
			t.Errorf("%s: %s", image, got)
		}
	}
}

func FuzzScript(f *testing.F) {
	f.Add("gosec ./... || true\n'\"")
	f.Fuzz(func(t *testing.T, script string) {
		for _, u := range tool.BuiltIn().Script(script) {
			if u.Tool == "" || u.Fails < fact.Unknown || u.Fails > fact.Yes {
				t.Errorf("%+v", u)
			}
		}
		tool.Calls(script)
	})
}
