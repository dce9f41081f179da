package enrichment_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/enrichment"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/k8saudit"
)

// read returns the enriched event that the JSON members make.
func read(t testing.TB, en *enrichment.Enricher, members string) *event.Event {
	t.Helper()
	text := `{"kind":"Event","auditID":"1","stage":"ResponseComplete","stageTimestamp":"2026-01-01T00:00:00.000000Z",` + members + `}`
	var out *event.Event
	if stats, err := k8saudit.Decode(strings.NewReader(text), func(e *event.Event) error { out = e; return nil }); err != nil || out == nil {
		t.Fatalf("%v, %v: %s", stats.Problems, err, text)
	}
	en.Enrich(out)
	return out
}

func value(e *event.Event, name string) event.Value {
	f, _ := event.Lookup(event.K8sAudit, name)
	ref, _ := event.Resolve(f, nil) // without the argument that some need
	return e.Value(ref)
}

const (
	newPod     = `"verb":"create","objectRef":{"resource":"pods","namespace":"a"},"responseStatus":{"code":201},`
	patched    = `"verb":"patch","objectRef":{"resource":"deployments","namespace":"a"},"responseStatus":{"code":200},`
	debugged   = `"verb":"patch","objectRef":{"resource":"pods","subresource":"ephemeralcontainers"},"responseStatus":{"code":200},`
	inResponse = `"responseObject":{"spec":{"template":{"spec":{"containers":[{"image":"x"}]}}}}`
)

func TestFields(t *testing.T) {
	for _, tc := range []struct{ name, event, field, want string }{
		{"person", `"user":{"username":"alice"}`, "kg.user.class", "person"},
		{"application", `"user":{"username":"system:serviceaccount:shop:web"}`, "kg.user.class", "workload"},
		{"controller", `"user":{"username":"system:serviceaccount:kube-system:job-controller"}`, "kg.user.class", "controller"},
		{"node", `"user":{"username":"system:node:a","groups":["system:nodes"]}`, "kg.user.class", "node"},
		{"only called a node", `"user":{"username":"system:node:a"}`, "kg.user.class", "person"},
		{"control plane", `"user":{"username":"system:kube-scheduler"}`, "kg.user.class", "control-plane"},
		{"anonymous", `"user":{"username":"system:anonymous"}`, "kg.user.class", "anonymous"},
		{"nobody", `"verb":"get"`, "kg.user.class", "anonymous"},
		{"namespace", `"user":{"username":"system:serviceaccount:shop:web"}`, "kg.user.namespace", "shop"},
		{"no account", `"user":{"username":"system:serviceaccount:shop"}`, "kg.user.namespace", "<NA>"},

		{"images of all containers", newPod + `"requestObject":{"spec":{"containers":[{"image":"b"}],"initContainers":[{"image":"a"}]}}`, "kg.pod.images", "(a,b)"},
		{"what a webhook put in", newPod + `"requestObject":{"spec":{"containers":[{"image":"b"}]}},"responseObject":{"spec":{"containers":[{"image":"b"},{"image":"c"}]}}`, "kg.pod.images", "(b,c)"},
		{"template", patched + `"requestObject":{"spec":{"template":{"spec":{"containers":[{"name":"c"}]}}}},` + inResponse, "kg.pod.images", "(x)"},
		{"patch of something else", patched + `"requestObject":{"spec":{"replicas":1}},` + inResponse, "kg.pod.images", "<NA>"},
		{"JSON patch", patched + `"requestObject":[{"op":"add","path":"/spec/template/spec/x"}],` + inResponse, "kg.pod.images", "(x)"},
		{"JSON patch of something else", patched + `"requestObject":[{"op":"add","path":"/spec/replicas"}],` + inResponse, "kg.pod.images", "<NA>"},
		{"debugging container", debugged + `"requestObject":{"spec":{"ephemeralContainers":[{"image":"d"}]}},"responseObject":{"spec":{"containers":[{"image":"old"}],"ephemeralContainers":[{"image":"d"}]}}`, "kg.pod.images", "(d)"},
		{"cron job", strings.Replace(newPod, "pods", "cronjobs", 1) + `"requestObject":{"spec":{"jobTemplate":{"spec":{"template":{"spec":{"containers":[{"image":"j"}]}}}}}}`, "kg.pod.images", "(j)"},
		{"read", `"verb":"get","objectRef":{"resource":"pods"},"responseObject":{"spec":{"containers":[{"image":"b"}]}}`, "kg.pod.images", "<NA>"},
		{"bodies are not what they should be", newPod + `"requestObject":"x","responseObject":{"spec":{"containers":7}}`, "kg.pod.images", "<NA>"},

		{"registries", newPod + `"requestObject":{"spec":{"containers":[{"image":"nginx"},{"image":"shop/web"},{"image":"quay.io/a"},{"image":"localhost/a"},{"image":"r:5000/a"}]}}`, "kg.pod.registries", "(docker.io,localhost,quay.io,r:5000)"},
		{"unversioned", newPod + `"requestObject":{"spec":{"containers":[{"image":"r:5000/a"},{"image":"b:latest"},{"image":"c:1"},{"image":"d@sha256:0"},{"image":"e:latest@sha256:0"}]}}`, "kg.pod.unversioned", "(b:latest,r:5000/a)"},
		{"capabilities", newPod + `"requestObject":{"spec":{"containers":[{"securityContext":{"capabilities":{"add":["cap_net_admin","ALL"]}}}]}}`, "kg.pod.capabilities", "(ALL,NET_ADMIN)"},
		{"host namespaces", newPod + `"requestObject":{"spec":{"hostPID":true,"hostNetwork":true,"hostIPC":false}}`, "kg.pod.host_namespaces", "(network,pid)"},
		{"node", newPod + `"requestObject":{"spec":{"nodeName":"n"}}`, "kg.pod.node", "n"},
		{"no node", newPod + `"requestObject":{"spec":{}}`, "kg.pod.node", "<NA>"},
		{"tolerates all", newPod + `"requestObject":{"spec":{"tolerations":[{"operator":"Exists"}]}}`, "kg.pod.tolerates_all", "true"},
		{"tolerates one", newPod + `"requestObject":{"spec":{"tolerations":[{"key":"a","operator":"Exists"}]}}`, "kg.pod.tolerates_all", "<NA>"},

		{"everything", `"requestObject":{"rules":[{"verbs":["*"],"apiGroups":["*"],"resources":["*"]}]}`, "kg.role.powers", "(everything)"},
		{"powers", `"requestObject":{"rules":[{"verbs":["*"],"apiGroups":["rbac.authorization.k8s.io"],"resources":["roles"]},{"verbs":["get"],"apiGroups":[""],"resources":["*"]}]}`, "kg.role.powers", "(bind,escalate,exec,nodes-proxy,secrets)"},
		{"no power", `"requestObject":{"rules":[{"verbs":["get"],"apiGroups":["apps"],"resources":["*"]}]}`, "kg.role.powers", "<NA>"},
		{"JSON patch of a role", `"requestObject":[{"op":"add","path":"/rules/-"}],"responseObject":{"rules":[{"verbs":["get"],"apiGroups":[""],"resources":["secrets"]}]}`, "kg.role.powers", "(secrets)"},
		{"what Falco knows", `"verb":"get"`, "ka.verb", "get"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := value(read(t, enrichment.New(), tc.event), tc.field).String(); got != tc.want {
				t.Errorf("%s = %s, want %s", tc.field, got, tc.want)
			}
		})
	}
}

func TestEveryFieldIsDescribed(t *testing.T) {
	n := 0
	for _, f := range event.Fields(event.K8sAudit) {
		if strings.HasPrefix(f.Name, "kg.") {
			n++
			if f.Desc == "" || f.Type == event.None {
				t.Errorf("%s: %s, %q", f.Name, f.Type, f.Desc)
			}
		}
	}
	if n == 0 {
		t.Error("no field")
	}
}

func TestOtherSourcesStayAsTheyAre(t *testing.T) {
	e := &event.Event{Source: "other"}
	if enrichment.New().Enrich(e); e.Record != nil {
		t.Errorf("%+v", e)
	}
}

func FuzzEnrich(f *testing.F) {
	for _, body := range []string{`{}`, `[]`, `"x"`, `{"spec":{"template":null,"jobTemplate":{"spec":null},"containers":[null]}}`, `{"rules":[null,{"verbs":["*"]}]}`} {
		f.Add("deployments", "patch", body, body)
		f.Add("pods", "create", body, "null")
	}
	f.Fuzz(func(t *testing.T, resource, verb, request, response string) {
		text := fmt.Sprintf(`{"auditID":"1","stageTimestamp":"2026-01-01T00:00:00.000000Z","verb":%q,"objectRef":{"resource":%q},"requestObject":%s,"responseObject":%s}`, verb, resource, request, response)
		en := enrichment.New()
		_, _ = k8saudit.Decode(strings.NewReader(text), func(e *event.Event) error {
			en.Enrich(e)
			for _, field := range event.Fields(event.K8sAudit) {
				if v := value(e, field.Name); strings.HasPrefix(field.Name, "kg.") && !v.Missing() && v.Type != field.Type {
					t.Errorf("%s is a %s, want a %s", field.Name, v.Type, field.Type)
				}
			}
			return nil
		})
	})
}
