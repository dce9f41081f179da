package podsecurity_test

import (
	"encoding/json"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/check/podsecurity"
)

// TestContexts merges a pod's security context with that of one container.
func TestContexts(t *testing.T) {
	tests := []struct{ name, pod, container, want string }{
		{"nothing said", "", "", `{}`},
		{"pod alone", "{runAsUser: 1, runAsGroup: 2, runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}", "",
			`{"runAsUser":1,"runAsGroup":2,"runAsNonRoot":true,"seccompProfile":{"type":"RuntimeDefault"}}`},
		{"container alone", "", "{privileged: true, procMount: Unmasked, readOnlyRootFilesystem: true, allowPrivilegeEscalation: false}",
			`{"privileged":true,"readOnlyRootFilesystem":true,"allowPrivilegeEscalation":false,"procMount":"Unmasked"}`},
		{"container overrides", "{runAsUser: 1, runAsNonRoot: true}", "{runAsUser: 0, runAsNonRoot: false}", `{"runAsUser":0,"runAsNonRoot":false}`},
		{"field by field", "{runAsUser: 1, runAsGroup: 2}", "{runAsUser: 3}", `{"runAsUser":3,"runAsGroup":2}`},
		{"what only pods have", "{fsGroup: 1, supplementalGroups: [0], sysctls: [{name: a, value: b}]}", "", `{}`},
		{"a label as a whole", "{seLinuxOptions: {level: a, type: b}}", "{seLinuxOptions: {level: c}}", `{"seLinuxOptions":{"level":"c"}}`},
		{"a profile as a whole", "{seccompProfile: {type: Localhost, localhostProfile: a}}", "{seccompProfile: {type: Unconfined}}", `{"seccompProfile":{"type":"Unconfined"}}`},
		{"capabilities", "{runAsUser: 1}", "{capabilities: {drop: [ALL]}}", `{"capabilities":{"drop":["ALL"]},"runAsUser":1}`},
		{"options of Windows", "{windowsOptions: {hostProcess: true, runAsUserName: a, gmsaCredentialSpecName: s}}", "{windowsOptions: {runAsUserName: b}}",
			`{"windowsOptions":{"gmsaCredentialSpecName":"s","runAsUserName":"b","hostProcess":true}}`},
		{"credential of Windows", "{windowsOptions: {gmsaCredentialSpecName: a, gmsaCredentialSpec: b}}", "{windowsOptions: {gmsaCredentialSpecName: c, hostProcess: false}}",
			`{"windowsOptions":{"gmsaCredentialSpecName":"c","hostProcess":false}}`},
		{"AppArmor", "{appArmorProfile: {type: RuntimeDefault}}", "{appArmorProfile: {type: Unconfined}}", `{"appArmorProfile":{"type":"Unconfined"}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			template := corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web"}}}}
			for text, into := range map[string]any{tt.pod: &template.Spec.SecurityContext, tt.container: &template.Spec.Containers[0].SecurityContext} {
				if err := yaml.UnmarshalStrict([]byte(text), into); err != nil {
					t.Fatal(err)
				}
			}
			before, _ := json.Marshal(template)
			got, err := json.Marshal(podsecurity.Contexts(&template)[0].SecurityContext)
			if err != nil || string(got) != tt.want {
				t.Errorf("%s, want %s (%v)", got, tt.want, err)
			}
			if after, _ := json.Marshal(template); string(after) != string(before) {
				t.Errorf("the pod is changed to %s", after)
			}
		})
	}
}

func TestContextsOfAllContainers(t *testing.T) {
	var template corev1.PodTemplateSpec
	err := yaml.UnmarshalStrict([]byte(`
metadata:
  annotations:
    container.apparmor.security.beta.kubernetes.io/web: unconfined
    container.apparmor.security.beta.kubernetes.io/proxy: localhost/proxy
    container.apparmor.security.beta.kubernetes.io/setup: runtime/default
spec:
  securityContext: {runAsUser: 1, appArmorProfile: {type: Localhost, localhostProfile: ours}}
  initContainers: [{name: setup, image: a}]
  containers: [{name: web, image: a}, {name: proxy, image: a}, {name: plain, image: a}]
  ephemeralContainers: [{name: debug, image: a, securityContext: {runAsUser: 0, appArmorProfile: {type: RuntimeDefault}}}]
`), &template)
	if err != nil {
		t.Fatal(err)
	}
	want := []struct {
		name, profile string
		user          int64
		ephemeral     bool
	}{
		{"setup", "RuntimeDefault", 1, false}, {"web", "Unconfined", 1, false}, {"proxy", "Localhost", 1, false},
		{"plain", "Localhost", 1, false}, {"debug", "RuntimeDefault", 0, true},
	}
	got := podsecurity.Contexts(&template)
	if len(got) != len(want) {
		t.Fatalf("%d contexts", len(got))
	}
	for i, w := range want {
		if c := got[i]; c.Container != w.name || string(c.AppArmorProfile.Type) != w.profile || *c.RunAsUser != w.user || c.Ephemeral != w.ephemeral {
			t.Errorf("%+v, want %+v", c, w)
		}
	}
	if name := got[2].AppArmorProfile.LocalhostProfile; name == nil || *name != "proxy" {
		t.Errorf("profile %v", name)
	}
}
