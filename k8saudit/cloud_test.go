package k8saudit_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/k8saudit"
)

func quoted(s string) string {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// googleEntry is a LogEntry as Cloud Logging exports it.
const googleEntry = `{"insertId":"g-1","timestamp":"2026-03-04T05:06:07.000089Z","receiveTimestamp":"2026-03-04T05:06:08Z",
"labels":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"because"},
"resource":{"type":"k8s_cluster","labels":{"cluster_name":"prod","location":"europe-west1"}},
"protoPayload":{"@type":"type.googleapis.com/google.cloud.audit.AuditLog","serviceName":"k8s.io","methodName":"METHOD","resourceName":"RESOURCE",
"authenticationInfo":{"principalEmail":"ann@example.com"},"requestMetadata":{"callerIp":"1.2.3.4","callerSuppliedUserAgent":"kubectl/v1.37"},STATUS
"request":{"spec":{"hostNetwork":true}},"response":{"metadata":{"name":"web"}}}}`

func google(method, resource, status string) string {
	return strings.NewReplacer("METHOD", method, "RESOURCE", resource, "STATUS", status, "\n", "").Replace(googleEntry)
}

func TestEnvelopes(t *testing.T) {
	azure := func(category, log string) string {
		return `{"time":"2026-03-04T05:06:07Z","category":"` + category + `","properties":{"log":` + quoted(log) + `,"pod":"kube-apiserver-1"}}`
	}
	aws := func(stream string, messages ...string) string {
		var events []string
		for _, m := range messages {
			events = append(events, `{"id":"1","timestamp":1,"message":`+quoted(m)+`}`)
		}
		return `{"messageType":"DATA_MESSAGE","logGroup":"/aws/eks/prod/cluster","logStream":"` + stream + `","logEvents":[` + strings.Join(events, ",") + `]}`
	}
	pushed := `{"message":{"data":"` + base64.StdEncoding.EncodeToString([]byte(google("io.k8s.core.v1.pods.get", "core/v1/namespaces/shop/pods/web", ""))) + `","messageId":"1"},"subscription":"s"}`
	for _, tc := range []struct {
		name, in, ids string
		faults        k8saudit.Faults
		problem       string // part of the first one
	}{
		{name: "Event Hub", in: `{"records":[` + azure("kube-audit", minimal("a")) + "," + azure("kube-audit-admin", minimal("b")) + `]}`, ids: "ab"},
		{name: "Event Hub shared with other logs", in: `{"records":[` + azure("kube-apiserver", "I0304 started") + "," + azure("kube-audit", minimal("a")) + "," + azure("cluster-autoscaler", "{}") + `]}`, ids: "a", faults: k8saudit.Faults{Foreign: 2}},
		{name: "records of a storage account", in: azure("kube-audit", minimal("a")) + "\n" + azure("kube-audit", minimal("b")), ids: "ab"},
		{name: "log that is an object", in: `{"records":[{"category":"kube-audit","properties":{"log":` + minimal("a") + `}}]}`, ids: "a"},
		{name: "record without a log", in: `{"records":[{"category":"kube-audit","properties":{}}]}`, faults: k8saudit.Faults{Event: 1}, problem: "without properties.log"},
		{name: "a bad record among good ones", in: `{"records":[` + azure("kube-audit", `{"auditID":`) + "," + azure("kube-audit", minimal("a")) + `,3]}`, ids: "a", faults: k8saudit.Faults{JSON: 1, Event: 1}},
		{name: "CloudWatch subscription", in: aws("kube-apiserver-audit-1", minimal("a"), minimal("b")), ids: "ab"},
		{name: "CloudWatch stream of another component", in: aws("authenticator-1", "time=x"), faults: k8saudit.Faults{Foreign: 1}},
		{name: "CloudWatch cuts a line", in: aws("kube-apiserver-audit-1", `{"kind":"Event","auditID":"x-7","requestObject":{"a":"[Truncated...]`, minimal("a")), ids: "a", faults: k8saudit.Faults{Cut: 1}, problem: "event x-7 was cut"},
		{name: "CloudWatch control message", in: `{"messageType":"CONTROL_MESSAGE","logEvents":[{"id":"","timestamp":1,"message":"CWL CONTROL MESSAGE: Checking health"}]}`, faults: k8saudit.Faults{Foreign: 1}},
		{name: "CloudWatch export", in: "2026-03-04T05:06:07.000Z " + minimal("a") + "\n2026-03-04T05:06:07.000Z " + `{"auditID":"x[Truncated...]` + "\n" + minimal("b"), ids: "ab", faults: k8saudit.Faults{Cut: 1}},
		{name: "filter-log-events", in: "{\n\"events\":[{\"logStreamName\":\"kube-apiserver-audit-1\",\"message\":" + quoted(minimal("a")) + "}]}", ids: "a"},
		{name: "LogEntry", in: google("io.k8s.core.v1.pods.get", "core/v1/namespaces/shop/pods/web", ""), ids: "g-1"},
		{name: "LogEntries", in: "[" + google("io.k8s.core.v1.pods.get", "core/v1/pods", "") + "," + google("io.k8s.core.v1.pods.list", "core/v1/pods", "") + "]", ids: "g-1g-1"},
		{name: "LogEntry of another service", in: strings.Replace(google("compute.insert", "x", ""), `"serviceName":"k8s.io"`, `"serviceName":"compute"`, 1), faults: k8saudit.Faults{Foreign: 1}},
		{name: "LogEntry without method", in: google("", "core/v1/pods", ""), faults: k8saudit.Faults{Event: 1}, problem: "no methodName"},
		{name: "Pub/Sub", in: pushed, ids: "g-1"},
		{name: "Pub/Sub without data", in: `{"message":{"data":""}}`, faults: k8saudit.Faults{Event: 1}, problem: "without data"},
		{name: "envelopes without end", in: strings.Repeat(`{"records":[`, 40) + minimal("a") + strings.Repeat(`]}`, 40), faults: k8saudit.Faults{Event: 1}, problem: "more than 4 envelopes"},
		{name: "bodies cut by the API server", in: with("a", `"level":"RequestResponse","annotations":{"audit.k8s.io/truncated":"true"}`), ids: "a", faults: k8saudit.Faults{Bodies: 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ids := ""
			stats, err := k8saudit.Decode(strings.NewReader(tc.in), func(e *event.Event) error { ids += auditID(e); return nil })
			if err != nil || ids != tc.ids || stats.Faults != tc.faults || uint64(stats.Malformed) != tc.faults.Malformed() {
				t.Fatalf("events %q, %+v, %v; want %q, %+v", ids, stats, err, tc.ids, tc.faults)
			}
			if tc.problem != "" && (len(stats.Problems) == 0 || !strings.Contains(stats.Problems[0].Error(), tc.problem)) {
				t.Errorf("problems = %v, want %s", stats.Problems, tc.problem)
			}
		})
	}
}

func TestReconstruct(t *testing.T) {
	const failed = `"status":{"code":7,"message":"pods is forbidden"},`
	for _, tc := range []struct {
		name, in string
		want     map[string]string
	}{
		{"get", google("io.k8s.core.v1.pods.get", "core/v1/namespaces/shop/pods/web", ""), map[string]string{
			"ka.verb": "get", "ka.target.resource": "pods", "ka.target.namespace": "shop", "ka.target.name": "web", "ka.target.subresource": event.NA,
			"ka.user.name": "ann@example.com", "ka.sourceips": "(1.2.3.4)", "ka.useragent": "kubectl/v1.37", "ka.response.code": "200", "ka.stage": "ResponseComplete",
			"ka.uri": "/core/v1/namespaces/shop/pods/web", "ka.auth.decision": "allow", "ka.auth.reason": "because", "ka.cluster.name": "prod", "ka.user.groups": event.NA,
			"ka.req.pod.host_network": "true", "ka.resp.name": "web", "ka.auditid": "g-1", "jevt.rawtime": "1772600767000089000",
			"jevt.value[/annotations/kubeguardian.dev~1inferred]": "level,objectRef,requestURI,stage,verb,responseStatus",
		}},
		{"exec", google("io.k8s.core.v1.pods.exec.create", "core/v1/namespaces/shop/pods/web/exec", ""), map[string]string{
			"ka.verb": "create", "ka.target.subresource": "exec", "ka.stage": "ResponseStarted", "ka.response.code": "101",
		}},
		{"failure", google("io.k8s.core.v1.secrets.create", "core/v1/namespaces/shop/secrets", failed), map[string]string{
			"ka.response.code": "403", "ka.response.reason": "pods is forbidden", "ka.target.name": event.NA,
			"jevt.value[/annotations/kubeguardian.dev~1inferred]": "level,objectRef,requestURI,stage,verb",
		}},
		{"group", google("io.k8s.authorization.rbac.v1.clusterrolebindings.create", "rbac.authorization.k8s.io/v1/clusterrolebindings/x", ""), map[string]string{
			"ka.target.resource": "clusterrolebindings", "ka.target.name": "x", "ka.target.namespace": event.NA, "ka.response.code": "201", "jevt.value[/objectRef/apiGroup]": "rbac.authorization.k8s.io",
		}},
		{"namespace", google("io.k8s.core.v1.namespaces.delete", "core/v1/namespaces/shop", ""), map[string]string{
			"ka.target.resource": "namespaces", "ka.target.name": "shop", "ka.target.namespace": "shop",
		}},
		{"status of a namespace", google("io.k8s.core.v1.namespaces.update", "core/v1/namespaces/shop/finalize", ""), map[string]string{
			"ka.target.resource": "namespaces", "ka.target.name": "shop", "ka.target.subresource": "finalize",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := decode(t, tc.in)[0]
			for field, want := range tc.want {
				name, arg, ok := strings.Cut(strings.TrimSuffix(field, "]"), "[")
				var key *string
				if ok {
					key = &arg
				}
				if got := value(t, e, name, key).String(); got != want {
					t.Errorf("%s = %q, want %q", field, got, want)
				}
			}
		})
	}
}
