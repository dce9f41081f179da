package repository

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/fact"
)

func workflowOf(name, text string) *Workflow {
	return workflow(name, []byte(text), func(line int) string { return fmt.Sprint(line) })
}

const hub, lab = ".github/workflows/ci.yml", ".gitlab-ci.yml"

var sha = strings.Repeat("a1", 20)

func TestDependencies(t *testing.T) {
	for _, tt := range []struct{ file, text, want string }{
		{hub, "jobs: {a: {steps: [{uses: 'actions/checkout@v6'}]}}", "actions/checkout@v6 loose"},
		{hub, "jobs: {a: {steps: [{uses: 'actions/checkout@" + sha + "'}]}}", "actions/checkout@" + sha + " pinned"},
		{hub, "jobs: {a: {steps: [{uses: ./build}]}}", ""},
		{hub, "jobs: {a: {uses: 'o/r/.github/workflows/x.yml@main'}}", "o/r/.github/workflows/x.yml@main loose"},
		{hub, "jobs: {a: {container: 'node:24', services: {db: {image: 'db@sha256:" + strings.Repeat("0", 64) + "'}}}}",
			"node:24 loose, db@sha256:" + strings.Repeat("0", 64) + " pinned"},
		{hub, "jobs: {a: {container: '${{ matrix.image }}'}}", ""},
		{lab, "image: node:24\na: {services: [db, {name: 'c:1'}], script: x}", "node:24 loose, db loose, c:1 loose"},
		{lab, "include: [{local: a.yml}, {template: Security/SAST.gitlab-ci.yml}, {remote: 'https://x/y.yml'}, {project: g/p, ref: " + sha + "}, {component: h/c@1.0}]",
			"https://x/y.yml loose, g/p pinned, h/c@1.0 loose"},
		{lab, "include: https://x/y.yml", "https://x/y.yml loose"},
		{".tekton/run.yaml", "spec: {tasks: [{taskSpec: {steps: [{image: 'go:1'}]}}]}", "go:1 loose"},
	} {
		var got []string
		for _, d := range workflowOf(tt.file, tt.text).Uses {
			got = append(got, d.Name+map[bool]string{true: " pinned", false: " loose"}[d.Pinned])
		}
		if strings.Join(got, ", ") != tt.want {
			t.Errorf("%s: %q, want %q", tt.text, got, tt.want)
		}
	}
}

func TestPermissions(t *testing.T) {
	for text, want := range map[string]fact.Fact{
		"permissions: read-all\njobs: {a: {}}":                          fact.Yes,
		"permissions: {}\njobs: {a: {}}":                                fact.Yes,
		"permissions: {contents: read, id-token: write}\njobs: {a: {}}": fact.Yes,
		"permissions: write-all\njobs: {a: {}}":                         fact.No,
		"permissions: {issues: write}\njobs: {a: {}}":                   fact.No,
		"jobs: {a: {}}": fact.Unknown,
		"jobs: {a: {permissions: {contents: write}}}":                                fact.Yes, // each job says what it needs
		"jobs: {a: {permissions: {contents: read}}, b: {}}":                          fact.Unknown,
		"permissions: read-all\njobs: {a: {permissions: write-all}}":                 fact.No,
		"permissions: {contents: read}\njobs: {a: {permissions: {contents: write}}}": fact.Yes,
		"": fact.Unknown,
	} {
		if got := workflowOf(hub, text).ReadOnly; got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}

func TestCredentials(t *testing.T) {
	step := func(s string) string { return "jobs: {a: {steps: [" + s + "]}}" }
	for _, tt := range []struct{ file, text, want string }{
		{hub, step("{run: x, env: {A: '${{ secrets.AWS_SECRET_ACCESS_KEY }}'}}"), "secret AWS_SECRET_ACCESS_KEY"},
		{hub, step("{run: x, env: {A: \"${{ secrets['STAGING_KUBECONFIG'] }}\"}}"), "secret STAGING_KUBECONFIG"},
		{hub, step("{run: x, env: {A: '${{ secrets.GITHUB_TOKEN }}', B: '${{ secrets.AWS_ROLE_ARN }}'}}"), ""},
		{hub, step("{uses: azure/login@v2, with: {creds: '${{ secrets.X }}'}}"), "creds of azure/login"},
		{hub, step("{uses: azure/login@v2, with: {client-id: '${{ secrets.X }}', tenant-id: y}}"), "federated"},
		{hub, step("{uses: google-github-actions/auth@v3, with: {workload_identity_provider: p}}"), "federated"},
		{hub, step("{uses: azure/k8s-set-context@v4, with: {kubeconfig: '${{ steps.x.outputs.file }}'}}"), ""},
		{hub, "jobs: {a: {uses: 'o/r/.github/workflows/x.yml@v1', secrets: inherit}}", "inherits"},
		{hub, "jobs: {a: {uses: ./.github/workflows/x.yml, secrets: inherit}}", ""},
		{lab, "variables: {ARM_CLIENT_SECRET: x}\na: {script: y}", "variable ARM_CLIENT_SECRET"},
		{lab, "a: {script: ['kubectl --token $KUBE_TOKEN get pods']}", "variable KUBE_TOKEN"},
		{lab, "a: {script: ['echo KUBE_TOKEN $HOME']}", ""},
		{lab, ".x: &x [\"aws s3 ls ${AWS_ACCESS_KEY_ID}\"]\na: {script: [*x]}", "variable AWS_ACCESS_KEY_ID"},
		{lab, "a: {id_tokens: {T: {aud: x}}, script: y}", "federated"},
	} {
		w := workflowOf(tt.file, tt.text)
		var got []string
		for _, c := range w.Credentials {
			got = append(got, c.Name)
		}
		if len(w.Federated) > 0 {
			got = append(got, "federated")
		}
		if len(w.Inherits) > 0 {
			got = append(got, "inherits")
		}
		if strings.Join(got, ", ") != tt.want {
			t.Errorf("%s: %q, want %q", tt.text, got, tt.want)
		}
	}
}

func TestSteps(t *testing.T) {
	for _, tt := range []struct{ file, text, want string }{
		{hub, "jobs:\n  a:\n    steps:\n    - run: gosec ./...", "gosec@4 yes"},
		{hub, "jobs:\n  a:\n    continue-on-error: true\n    steps:\n    - run: gosec ./...", "gosec@5 no"},
		{lab, "a:\n  script:\n  - gosec ./...", "gosec@3 yes"},
		{lab, "a:\n  script: [gosec ./...]\n  allow_failure: true", "gosec@2 no"},
		{lab, "a:\n  script: [gosec ./...]\n  allow_failure: {exit_codes: 1}", "gosec@2 no"},
		{lab, "a:\n  script: [gosec ./...]\n  when: manual", "gosec@2 no"},
		{lab, "include: [{template: Security/SAST.gitlab-ci.yml}]", "GitLab SAST@1 unknown"},
		{"Jenkinsfile", "node { sh 'gosec ./...'\n sh \"\"\"\n trivy config .\n\"\"\" }", "gosec@0 yes, Trivy@0 no"},
		{".tekton/x.yaml", "spec:\n  steps:\n  - script: gosec ./...", "gosec@3 yes"},
	} {
		var got []string
		for _, s := range workflowOf(tt.file, tt.text).Steps {
			got = append(got, fmt.Sprintf("%s@%s %s", s.Tool, s.Place, []string{"unknown", "no", "yes"}[s.Fails]))
		}
		if strings.Join(got, ", ") != tt.want {
			t.Errorf("%s: %q, want %q", tt.text, got, tt.want)
		}
	}
}

// TestBlind tells a pipeline that is seen as a whole from others.
func TestBlind(t *testing.T) {
	for _, tt := range []struct{ file, text, want string }{
		{hub, "jobs: {a: {steps: [{run: go test ./...}]}}", ""},
		{hub, "jobs: {a: {steps: [{run: make check}]}}", "1 runs what is written elsewhere"},
		{hub, "jobs: {a: {uses: 'o/r/.github/workflows/x.yml@v1'}}", "1 runs what is written elsewhere"},
		{hub, "jobs: [", "0: it is no YAML"},
		{"Jenkinsfile", "", "a Jenkinsfile is a program"},
	} {
		tree := &Tree{Workflows: []Workflow{*workflowOf(tt.file, tt.text)}}
		if got := tree.Blind(); tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.text, got, tt.want)
		}
	}
	if (&Tree{}).Blind() == "" {
		t.Error("without a pipeline a step may be anywhere")
	}
}

func FuzzWorkflow(f *testing.F) {
	f.Add(hub, "permissions: x\njobs: {a: {steps: [{uses: a/b@c, with: {creds: d}}, {run: 'trivy config .'}]}}")
	f.Add(lab, "include: [{template: SAST}]\na: {script: [[*a, x]], variables: {AWS_SECRET_ACCESS_KEY: y}}")
	f.Add("Jenkinsfile", "sh '''x'''")
	f.Fuzz(func(t *testing.T, name, text string) {
		if w := workflowOf(name, text); (w == nil) != (workflowKind(name) == "") {
			t.Errorf("%q: %v", name, w)
		}
	})
}
