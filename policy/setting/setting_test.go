package setting_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/engine"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/setting"
)

const head = "apiVersion: kubeguardian.dev/v1alpha1\nkind: PolicySettings\n"

func parse(t *testing.T, text string) *setting.Settings {
	t.Helper()
	s, err := setting.Parse("settings.yaml", []byte(head+text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const policies = `# Few are enough.
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: replicas
  annotations: {kubeguardian.dev/parameters: "most, teams"}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [apps], apiVersions: [v1], operations: [CREATE], resources: [deployments]}]}
  variables:
  - {name: most, expression: "2"}
  - {name: teams, expression: "['red']"} # who may
  validations:
  - expression: >-
      object.spec.replicas <= variables.most ||
      object.metadata.name in variables.teams
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: replicas}
spec: {policyName: replicas, validationActions: [Deny]}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: some}
spec:
  policyName: replicas
  validationActions: [Audit]
  matchResources: {namespaceSelector: {matchLabels: {stage: test}, matchExpressions: [{key: a, operator: Exists}]}}
`

const gatekeeper = `apiVersion: templates.gatekeeper.sh/v1
kind: ConstraintTemplate
metadata: {name: owned}
spec:
  crd: {spec: {names: {kind: Owned}}}
  targets:
  - target: admission.k8s.gatekeeper.sh
    code: [{engine: K8sNativeValidation, source: {validations: [{expression: "false"}]}}]
---
apiVersion: constraints.gatekeeper.sh/v1beta1
kind: Owned
metadata: {name: all}
spec: {match: {excludedNamespaces: [a]}}
---
apiVersion: constraints.gatekeeper.sh/v1beta1
kind: Owned
metadata: {name: some}
spec:
  enforcementAction: scoped
  scopedEnforcementActions:
  - {action: deny, enforcementPoints: [{name: "*"}]}
  - {action: warn, enforcementPoints: [{name: audit.gatekeeper.sh}]}
---
apiVersion: mutations.gatekeeper.sh/v1
kind: AssignMetadata
metadata: {name: team}
spec:
  location: metadata.labels.team
  parameters: {assign: {value: red}}
---
apiVersion: kubeguardian.dev/v1alpha1
kind: ImagePolicy
metadata: {name: ours}
spec:
  validationActions: [Deny]
  mutateDigest: false
  match: {images: ['**']}
  rules: {requireDigest: false, allowedImages: ['a.example.com/**']}
`

// apply returns the text of policies with settings. It must load.
func apply(t *testing.T, settings, text string) string {
	t.Helper()
	files, err := parse(t, settings).Apply([]policy.File{{Name: "p.yaml", Data: []byte(text)}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := engine.Load(files...); err != nil {
		t.Errorf("%v in\n%s", err, files[0].Data)
	}
	return string(files[0].Data)
}

func TestApply(t *testing.T) {
	for _, test := range []struct {
		name, settings, text string
		want, not            []string
	}{
		{"nothing", "", policies, []string{policies}, nil},
		{"default", "enforcement: {default: warn}", policies, []string{"# Few are enough.", "{policyName: replicas, validationActions: [Warn, Audit]}", "  validationActions: [Warn, Audit]\n"}, []string{"Deny", "[Audit]"}},
		{"named", "enforcement: {default: deny, policies: {replicas: dryrun}}", policies, []string{"{policyName: replicas, validationActions: [Audit]}"}, []string{"Deny"}},
		{"deny", "enforcement: {policies: {replicas: deny}}", policies, nil, []string{"[Audit]"}},
		{"constraints", "enforcement: {default: warn, policies: {Owned/some: dryrun}}", gatekeeper, []string{
			"enforcementAction: warn}", "action: dryrun, enforcementPoints: [{name: \"*\"}]", "action: dryrun, enforcementPoints: [{name: audit.gatekeeper.sh}]", "validationActions: [Warn, Audit]",
		}, []string{"action: deny", "Deny"}},
		{"constraints of a kind", "enforcement: {policies: {Owned: warn, ours: dryrun}}", gatekeeper, []string{"enforcementAction: warn}", "action: warn, enforcementPoints: [{name: \"*\"}]", "validationActions: [Audit]"}, []string{"action: deny"}},
		{"exempt", "exemptNamespaces: [legacy, old]", policies, []string{
			"validationActions: [Deny], matchResources: {namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: [legacy, old]}]}}",
			"matchLabels: {stage: test}, matchExpressions: [{key: a, operator: Exists}, {key: kubernetes.io/metadata.name, operator: NotIn, values: [legacy, old]}]",
		}, nil},
		{"exempt of others", "exemptNamespaces: [legacy]", gatekeeper, []string{
			"excludedNamespaces: [a, legacy]", "match:\n    excludedNamespaces: [legacy]", "location: metadata.labels.team", "match: {images: ['**'], namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: [legacy]}]}}",
		}, nil},
		{"parameters", `parameters: {most: 7, teams: ["it's", 'a"b\n']}`, policies, []string{`{name: most, expression: "7"}`, `{name: teams, expression: "['it\\'s', 'a\\\"b\\\\n']"} # who may`}, nil},
		{"a parameter", `parameters: {teams: []}`, policies, []string{`{name: most, expression: "2"}`, `{name: teams, expression: "[]"}`}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			have := apply(t, test.settings, test.text)
			for _, want := range test.want {
				if !strings.Contains(have, want) {
					t.Errorf("no %q in\n%s", want, have)
				}
			}
			for _, not := range test.not {
				if strings.Contains(have, not) {
					t.Errorf("%q in\n%s", not, have)
				}
			}
		})
	}
}

func TestMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"enforcement: {default: block}":                         `settings.yaml:3: enforcement.default: unknown stage "block": want one of dryrun, warn, deny`,
		"enforcement:\n  policies:\n    a: Deny":                `settings.yaml:5: enforcement.policies.a: unknown stage "Deny"`,
		"exemptNamespaces:\n- a\n- 'B'":                         `settings.yaml:5: "B" is not the name of a namespace`,
		"parameters:\n  a: {b: c}":                              `settings.yaml:4: parameters.a: want a text, a whole number`,
		"parameters:\n  a: [b, 1]":                              `settings.yaml:4: parameters.a: item 2 is no text`,
		"enforced: all":                                         `settings.yaml:3: unknown key enforced`,
		"---\n" + head:                                          `more than 1 documents`,
		"enforcement:\n  policies: {none: warn}":                `settings.yaml:4: enforcement.policies: no policy that judges is called "none"`,
		"parameters:\n  least: 1":                               `settings.yaml:4: parameters: no policy has a parameter "least"`,
		"parameters:\n  most: [a]":                              `settings.yaml:4: parameters.most: want a whole number, as the default in policy replicas is`,
		"parameters:\n  teams: a":                               `settings.yaml:4: parameters.teams: want a list of texts`,
		"parameters: {a: [" + strings.Repeat("x,", 1001) + "]}": "1001 items are more than the limit of 1000",
	} {
		s, err := setting.Parse("settings.yaml", []byte(head+text))
		if err == nil {
			_, err = s.Apply([]policy.File{{Name: "p.yaml", Data: []byte(policies)}})
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\nis %v, want %s", text, err, want)
		}
	}
	for _, text := range []string{"", "kind: PolicySettings\n", "apiVersion: v1\nkind: ConfigMap\n"} {
		if _, err := setting.Parse("settings.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), "want") {
			t.Errorf("%q is %v", text, err)
		}
	}
	if _, err := setting.Stage("block"); err == nil || !strings.Contains(err.Error(), `unknown stage "block"`) {
		t.Errorf("stage: %v", err)
	}
}

// TestPlaces: what is wrong with policies has the lines of their files, and what
// settings make wrong names the settings.
func TestPlaces(t *testing.T) {
	load := func(files []policy.File) (*engine.Set, error) { return engine.Load(files...) }
	s := parse(t, "enforcement: {default: warn}\nexemptNamespaces: [legacy]")
	_, err := setting.With(s, []policy.File{{Name: "p.yaml", Data: []byte(policies + "---\n" + strings.ReplaceAll(policies, "variables.most", "variables.least"))}}, load)
	if err == nil || !strings.Contains(err.Error(), "p.yaml:42: ") && !strings.Contains(err.Error(), "p.yaml:4") || strings.Contains(err.Error(), "settings.yaml") {
		t.Errorf("broken policies: %v", err)
	}
	undeclared := strings.Replace(policies, "most, teams", "most, least", 1)
	if _, err := setting.With(s, []policy.File{{Name: "p.yaml", Data: []byte(undeclared)}}, load); err == nil || !strings.Contains(err.Error(), `p.yaml:2: the annotation kubeguardian.dev/parameters names "least", which is no variable`) {
		t.Errorf("undeclared: %v", err)
	}
	broken := errors.New("broken")
	calls := 0
	_, err = setting.With(s, []policy.File{{Name: "p.yaml", Data: []byte(policies)}}, func([]policy.File) (int, error) {
		if calls++; calls == 1 {
			return 0, broken
		}
		return 0, nil
	})
	if err == nil || err.Error() != "settings.yaml: policies with these settings: broken" {
		t.Errorf("settings that break policies: %v", err)
	}
	shared := strings.Replace(policies, "validationActions: [Deny]", "validationActions: &a [Deny]", 1)
	if _, err := s.Apply([]policy.File{{Name: "p.yaml", Data: []byte(shared)}}); err == nil || !strings.Contains(err.Error(), "p.yaml:17: set spec.validationActions: validationActions is shared by an alias") {
		t.Errorf("shared: %v", err)
	}
}

// TestBuiltIn sets every parameter that the built-in policies have.
func TestBuiltIn(t *testing.T) {
	files, err := content.Read[policy.File](content.Policies())
	if err != nil {
		t.Fatal(err)
	}
	s := parse(t, `enforcement: {default: deny, policies: {image-digest: dryrun}}
exemptNamespaces: [legacy]
parameters:
  administratorGroups: ["system:masters", platform]
  allowedCapabilities: [NET_BIND_SERVICE]
  allowedRegistries: [registry.example.com]
  allowedSysctls: []
  allowedVolumeTypes: [configMap, secret, nfs]
  lowestId: 1000
  sensitivePaths: [/etc/, /data/]
`)
	set, err := setting.With(s, files, func(files []policy.File) (*engine.Set, error) { return engine.Load(files...) })
	if err != nil || set.Len() != len(files) {
		t.Fatalf("%v, %v", set, err)
	}
	for _, f := range files {
		for name := range strings.SplitSeq(annotation(string(f.Data)), ",") {
			if _, ok := s.Parameters[name]; name != "" && !ok {
				t.Errorf("%s: parameter %s is not set here", f.Name, name)
			}
		}
	}
}

func annotation(text string) string {
	_, after, _ := strings.Cut(text, "kubeguardian.dev/parameters: ")
	if after == "" {
		return ""
	}
	line, _, _ := strings.Cut(after, "\n")
	return line
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "settings.yaml")
	if err := os.WriteFile(file, []byte(head+"enforcement: {default: warn}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := setting.Load(file); err != nil || s.Enforcement.Default != "warn" {
		t.Errorf("%+v, %v", s, err)
	}
	if err := os.WriteFile(file, make([]byte, 1<<20+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := setting.Load(file); err == nil || !strings.Contains(err.Error(), "more than the limit") {
		t.Errorf("large: %v", err)
	}
	if _, err := setting.Load(filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "read settings of policies") {
		t.Errorf("missing: %v", err)
	}
}

// FuzzSettings: what can be applied to policies that load leaves policies that
// load.
func FuzzSettings(f *testing.F) {
	f.Add([]byte(head+"enforcement: {default: warn, policies: {replicas: deny}}\nexemptNamespaces: [a]\nparameters: {most: 3, teams: [\"a'b\\\\\"]}\n"), []byte(policies))
	f.Add([]byte(head+"enforcement: {policies: {Owned: dryrun}}\nexemptNamespaces: [a]\n"), []byte(gatekeeper))
	f.Fuzz(func(t *testing.T, settings, text []byte) {
		s, err := setting.Parse("s", settings)
		if err != nil {
			return
		}
		files := []policy.File{{Name: "p", Data: text}}
		if _, err := engine.Load(files...); err != nil {
			return
		}
		changed, err := s.Apply(files)
		if err != nil {
			return
		}
		if _, err := engine.Load(changed...); err != nil && len(s.Parameters) == 0 {
			t.Errorf("%v in\n%s", err, changed[0].Data)
		}
	})
}
