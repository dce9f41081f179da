package k8saudit_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/k8saudit"
)

// podEvent has what the fields ask for. Its bodies are not honest: they hold a
// pod, a role, a binding, a service and a config map at once.
const podEvent = `{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"RequestResponse","auditID":"a-1","stage":"ResponseComplete",
"requestURI":"/api/v1/namespaces/shop/pods?command=ls&command=-l&dry%20run=a%2Fb&bad=%zz","verb":"create",
"user":{"username":"ann","groups":["dev","ops"]},"impersonatedUser":{"username":"bob"},
"sourceIPs":["1.2.3.4","10.0.0.1"],"userAgent":"kubectl/v1.37.1",
"objectRef":{"resource":"pods","namespace":"shop","apiVersion":"v1"},
"responseStatus":{"metadata":{},"code":201,"reason":"Created"},
"requestObject":{"kind":"Pod","data":{"b": "<&>","a":"é"},"roleRef":{"name":"admin"},
 "subjects":[{"kind":"User","name":"u"},{"kind":"Group","name":"g"},{"kind":"ServiceAccount","name":"s","namespace":"n"},{"kind":"ServiceAccount","name":"t"}],
 "rules":[{"apiGroups":[""],"resources":["pods","secrets"],"verbs":["get"]},{"nonResourceURLs":["/x"],"verbs":["post"]}],
 "spec":{"type":"NodePort","ports":[{"port": 80}],"hostNetwork":true,"hostPID":false,
  "securityContext":{"runAsUser":1000,"fsGroup":5,"supplementalGroups":[7,8]},
  "volumes":[{"name":"v","hostPath":{"path":"/etc"}},{"name":"w","emptyDir":{}},{"name":"x","hostPath":{"path":"/var/run/docker.sock"}},{"name":"y","flexVolume":{"driver":"d"}}],
  "containers":[{"name":"c","image":"reg:5000/app:1","command":["sh","-c"],"securityContext":{"privileged":true,"runAsUser":0,"capabilities":{"add":["SYS_ADMIN","NET_RAW"]}},"ports":[{"hostPort":8080,"containerPort":80},{"containerPort":81}]},
   {"name":"d","image":"busybox@sha256:1","args":["a","b"],"securityContext":{"allowPrivilegeEscalation":false,"readOnlyRootFilesystem":true,"procMount":"Default","runAsGroup":9}}],
  "initContainers":[{"name":"i"}]}},
"responseObject":{"kind":"Pod","metadata":{"name":"web-x7"}},
"stageTimestamp":"2026-03-04T05:06:07.000089Z",
"annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""}}`

func oneLine(s string) string { return strings.ReplaceAll(s, "\n", "") }

var errEnough = errors.New("enough")

// decode returns the events of a document and fails on anything else in it.
// Each event is of a reading of its own, which ends there, so that they stay
// valid together.
func decode(t *testing.T, doc string) []*event.Event {
	t.Helper()
	var events []*event.Event
	for {
		n, got := 0, len(events)
		stats, err := k8saudit.Decode(strings.NewReader(doc), func(e *event.Event) error {
			if n++; n > got {
				events = append(events, e)
				return errEnough
			}
			return nil
		})
		if stats.Malformed != 0 || err != nil && !errors.Is(err, errEnough) {
			t.Fatalf("Decode = %+v, %v", stats, err)
		}
		if err == nil {
			return events
		}
	}
}

func value(t *testing.T, e *event.Event, name string, arg *string) event.Value {
	t.Helper()
	f, ok := event.Lookup(event.K8sAudit, name)
	if !ok {
		t.Fatalf("no field %s", name)
	}
	ref, err := event.Resolve(f, arg)
	if err != nil {
		t.Fatal(err)
	}
	return e.Value(ref)
}

func TestFields(t *testing.T) {
	e := decode(t, oneLine(podEvent))[0]
	for field, want := range map[string]string{
		"ka.auditid":                          "a-1",
		"ka.stage":                            "ResponseComplete",
		"ka.auth.decision":                    "allow",
		"ka.auth.reason":                      "", // present, and empty
		"ka.cluster.name":                     event.NA,
		"ka.user.name":                        "ann",
		"ka.user.groups":                      "(dev,ops)",
		"ka.user.groups[1]":                   "(ops)",
		"ka.user.groups[2]":                   event.NA,
		"ka.impuser.name":                     "bob",
		"ka.verb":                             "create",
		"ka.uri.param[command]":               "ls",
		"ka.uri.param[dry run]":               "a/b",
		"ka.uri.param[bad]":                   event.NA,
		"ka.uri.param[none]":                  event.NA,
		"ka.target.name":                      event.NA,
		"ka.target.namespace":                 "shop",
		"ka.target.resource":                  "pods",
		"ka.target.subresource":               event.NA,
		"ka.target.pod.name":                  "web-x7",
		"ka.resp.name":                        "web-x7",
		"ka.response.code":                    "201",
		"ka.response.reason":                  "Created",
		"ka.useragent":                        "kubectl/v1.37.1",
		"ka.sourceips":                        "(1.2.3.4,10.0.0.1)",
		"ka.sourceips[0]":                     "(1.2.3.4)",
		"ka.req.binding.role":                 "admin",
		"ka.req.binding.subjects[0]":          `({"kind":"User","name":"u"})`,
		"ka.req.binding.subjects.user_names":  "(u)",
		"ka.req.binding.subjects.group_names": "(g)",
		"ka.req.binding.subjects.serviceaccount_names":            "(s,t)",
		"ka.req.binding.subjects.serviceaccount_ns_names":         "(n:s)",
		"ka.req.configmap.obj":                                    `{"b":"<&>","a":"é"}`,
		"ka.req.role.rules[1]":                                    `({"nonResourceURLs":["/x"],"verbs":["post"]})`,
		"ka.req.role.rules.resources":                             "(pods,secrets)",
		"ka.req.role.rules.verbs":                                 "(get,post)",
		"ka.req.role.rules.verbs[1]":                              "(post)",
		"ka.req.role.rules.nonResourceURLs":                       "(/x)",
		"ka.req.role.rules.apiGroups":                             "()",
		"ka.req.service.type":                                     "NodePort",
		"ka.req.service.ports":                                    `([{"port":80}])`,
		"ka.req.pod.host_network":                                 "true",
		"ka.req.pod.host_pid":                                     "false",
		"ka.req.pod.host_ipc":                                     event.NA,
		"ka.req.pod.run_as_user":                                  "1000",
		"ka.req.pod.fs_group":                                     "5",
		"ka.req.pod.supplemental_groups":                          "(7,8)",
		"ka.req.pod.volumes.hostpath":                             "(/etc,/var/run/docker.sock)",
		"ka.req.pod.volumes.hostpath[2]":                          "(/var/run/docker.sock)",
		"ka.req.pod.volumes.hostpath[1]":                          event.NA,
		"ka.hostpaths":                                            "(/etc,/var/run/docker.sock)",
		"ka.req.pod.volumes.flexvolume_driver":                    "(d)",
		"ka.req.pod.volumes.volume_type":                          "(hostPath,emptyDir,hostPath,flexVolume)",
		"ka.req.pod.containers.name":                              "(c,d)",
		"ka.req.pod.containers.image":                             "(reg:5000/app:1,busybox@sha256:1)",
		"ka.req.pod.containers.image.repository":                  "(reg,busybox)",
		"ka.req.pod.containers.command":                           "(sh -c,)",
		"ka.req.pod.containers.args[1]":                           "(a b)",
		"ka.req.pod.containers.privileged":                        "(true)",
		"ka.req.pod.containers.privileged[1]":                     event.NA,
		"ka.req.pod.containers.allow_privilege_escalation":        "(false)",
		"ka.req.pod.containers.read_only_fs":                      "(true)",
		"ka.req.pod.containers.run_as_user":                       "(0)",
		"ka.req.pod.containers.run_as_group":                      "(9)",
		"ka.req.pod.containers.proc_mount":                        "(Default)",
		"ka.req.pod.containers.eff_run_as_user":                   "(0,0)",
		"ka.req.pod.containers.eff_run_as_user[1]":                "(0)",
		"ka.req.pod.initContainers.eff_run_as_group":              "(0)",
		"ka.req.pod.ephemeralContainers.eff_run_as_user":          event.NA,
		"ka.req.binding.subject.has_name[x]":                      "true",
		"ka.req.pod.containers.add_capabilities":                  `(["SYS_ADMIN","NET_RAW"])`,
		"ka.req.pod.containers.host_port":                         "(8080,81)",
		"ka.req.pod.initContainers.name":                          "(i)",
		"ka.req.pod.initContainers.image":                         event.NA, // a container lacks it
		"ka.req.pod.ephemeralContainers.privileged":               event.NA,
		"ka.req.container.image":                                  "reg:5000/app:1",
		"ka.req.container.image.repository":                       "reg",
		"ka.req.container.privileged":                             "true",
		"ka.req.container.host_network":                           "true",
		"ka.req.volume.hostpath[/etc]":                            "true",
		"ka.req.volume.hostpath[/var/*]":                          "true",
		"ka.req.volume.hostpath[/usr]":                            "false",
		"jevt.value[/stage]":                                      "ResponseComplete",
		"jevt.value[stage]":                                       "ResponseComplete",
		"jevt.value[/verb]":                                       "create",
		"jevt.value[/level]":                                      "RequestResponse",
		"jevt.value[/annotations/authorization.k8s.io~1decision]": "allow",
		"jevt.value[/requestObject/spec/containers/1/args]":       `["a","b"]`,
		"jevt.value[/requestObject/spec/containers/9]":            event.NA,
		"jevt.value[/responseObject/metadata/name]":               "web-x7",
		"jevt.value[/responseStatus/code]":                        "201",
		"json.value[/nothing/here]":                               event.NA,
		"jevt.rawtime":                                            "1772600767000089000",
		"json.rawtime":                                            "1772600767000089000",
		"evt.rawtime":                                             "1772600767000089000",
		"evt.time.iso8601":                                        "2026-03-04T05:06:07.000089000Z",
		"evt.source":                                              "k8s_audit",
	} {
		t.Run(field, func(t *testing.T) {
			name, arg, ok := strings.Cut(strings.TrimSuffix(field, "]"), "[")
			var key *string
			if ok {
				key = &arg
			}
			if got := value(t, e, name, key).String(); got != want {
				t.Errorf("= %q, want %q", got, want)
			}
		})
	}
	if got := value(t, e, "jevt.obj", nil).Text; !strings.Contains(got, "\n    \"username\": \"ann\"") {
		t.Errorf("jevt.obj = %.200s…", got)
	}
}

// The fields that depart from their names in the reference, and how they are
// without that.
func TestCompat(t *testing.T) {
	doc := strings.Replace(oneLine(podEvent), `"apiVersion":"v1"}`, `"apiVersion":"v1","subresource":"exec"}`, 1)
	for field, want := range map[string]struct{ falco, fixed string }{
		"ka.req.pod.containers.add_capabilities": {`(["SYS_ADMIN","NET_RAW"])`, "(SYS_ADMIN,NET_RAW)"},
		"ka.req.pod.containers.image.repository": {"(reg,busybox)", "(reg:5000/app,busybox)"},
		"ka.req.container.image.repository":      {"reg", "reg:5000/app"},
		"ka.req.pod.containers.eff_run_as_user":  {"(0,0)", "(0,1000)"},
		"ka.req.pod.containers.eff_run_as_group": {"(0,0)", "(9)"},
		"ka.uri.param[command]":                  {"ls", "ls -l"},
		"ka.sourceips":                           {"(1.2.3.4,10.0.0.1)", "(1.2.3.4,10.0.0.1)"},
	} {
		for name, want := range map[string]string{"falco": want.falco, "fixed": want.fixed} {
			compat, err := k8saudit.ParseCompat(name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := compat.Decode(strings.NewReader(doc), func(e *event.Event) error {
				field, arg, ok := strings.Cut(strings.TrimSuffix(field, "]"), "[")
				key := &arg
				if !ok {
					key = nil
				}
				if got := value(t, e, field, key).String(); got != want {
					t.Errorf("%s: %s = %s, want %s", name, field, got, want)
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := k8saudit.ParseCompat("other"); err == nil || !strings.Contains(err.Error(), "want falco or fixed") {
		t.Errorf("ParseCompat = %v", err)
	}
}

func TestHostPaths(t *testing.T) {
	spec := `{"volumes":[{"name":"a","emptyDir":{}},{"name":"v","hostPath":{"path":"PATH"}}]}`
	for _, tc := range []struct{ name, members, want, requested string }{
		{"pod", `"requestObject":{"spec":` + spec + `}`, "(/x)", "(/x)"},
		{"untidy", `"requestObject":{"spec":` + strings.Replace(spec, "PATH", "//var/./lib/", 1) + `}`, "(/var/lib)", "(/var/lib)"},
		{"root", `"requestObject":{"spec":` + strings.Replace(spec, "PATH", "//", 1) + `}`, "(/)", "(/)"},
		{"template", `"requestObject":{"spec":{"template":{"spec":` + spec + `}}}`, "(/x)", event.NA},
		{"cron job", `"requestObject":{"spec":{"jobTemplate":{"spec":{"template":{"spec":` + spec + `}}}}}`, "(/x)", event.NA},
		{"response", `"requestObject":[{"op":"add","path":"/a","value":1}],"responseObject":{"spec":{"template":{"spec":` + spec + `}}}`, "(/x)", event.NA},
		{"each once", `"requestObject":{"spec":{"template":{"spec":` + spec + `}}},"responseObject":{"spec":{"template":{"spec":` + spec + `}}}`, "(/x)", event.NA},
		{"patch adds a volume", `"requestObject":[{"op":"add","path":"/spec/template/spec/volumes/-","value":{"name":"v","hostPath":{"path":"/x"}}}]`, "(/x)", event.NA},
		{"patch adds a host path", `"requestObject":[{"op":"add","path":"/spec/template/spec/volumes/0/hostPath","value":{"path":"/x"}}]`, "(/x)", event.NA},
		{"patch adds a path", `"requestObject":[{"op":"replace","path":"/spec/template/spec/volumes/0/hostPath/path","value":"/x/"}]`, "(/x)", event.NA},
		{"none", `"requestObject":{"metadata":{"annotations":{"hostPath":"/x"}},"spec":{"volumes":[{"hostPath":null}]}}`, event.NA, event.NA},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := decode(t, with("a", strings.ReplaceAll(tc.members, "PATH", "/x")))[0]
			if got := value(t, e, "ka.hostpaths", nil).String(); got != tc.want {
				t.Errorf("ka.hostpaths = %s, want %s", got, tc.want)
			}
			if got := value(t, e, "ka.req.pod.volumes.hostpath", nil).String(); got != tc.requested {
				t.Errorf("ka.req.pod.volumes.hostpath = %s, want %s", got, tc.requested)
			}
		})
	}
}

// A patch is logged as it was sent. Text in it must not hide behind escapes
// that mean the same.
func TestEscapesAreUndone(t *testing.T) {
	e := decode(t, with("a", `"requestObject":[{"privi\u006ceged":true,"a":"\u003c\"\\ud83d","n":1.50}]`))[0]
	pointer := "/requestObject"
	if got, want := value(t, e, "jevt.value", &pointer).Text, `[{"privileged":true,"a":"<\"\\ud83d","n":1.50}]`; got != want {
		t.Errorf("= %s, want %s", got, want)
	}
}

// Every field of the schema has a value in some event, so none is only a name.
func TestEveryFieldIsExtracted(t *testing.T) {
	full := strings.NewReplacer(
		`"initContainers":[{"name":"i"}]`, `"hostIPC":true,"ephemeralContainers":CONTAINERS,"initContainers":CONTAINERS`,
		`"runAsUser":1000`, `"runAsUser":1000,"runAsGroup":3`,
		`"apiVersion":"v1"}`, `"apiVersion":"v1","name":"web"}`,
		`"authorization.k8s.io/reason":""`, `"authorization.k8s.io/reason":"r","authentication.openshift.io/decision":"allow",
		"authentication.openshift.io/username":"o","validation.policy.admission.k8s.io/validation_failure":"[]",
		"pod-security.kubernetes.io/audit-violations":"v","cluster_name":"c"`,
	).Replace(podEvent)
	container := `[{"name":"i","image":"j","command":["k"],"args":["l"],"ports":[{"hostPort":1}],"securityContext":{"privileged":true,
	"allowPrivilegeEscalation":true,"readOnlyRootFilesystem":true,"runAsUser":1,"runAsGroup":1,"procMount":"p","capabilities":{"add":["A"]}}}]`
	full = strings.ReplaceAll(full, "CONTAINERS", container)
	events := decode(t, oneLine(full))
	events = append(events, decode(t, strings.Replace(oneLine(full), `"resource":"pods"`, `"resource":"pods","subresource":"exec"`, 1))...)
	for _, f := range event.Fields(event.K8sAudit) {
		if f.Name == "evt.hostname" || strings.HasPrefix(f.Name, "kg.") {
			continue // an audit event does not say where; package enrichment adds the others
		}
		var arg *string
		switch f.Arg {
		case event.KeyArg:
			arg = new("command")
		case event.PointerArg:
			arg = new("/auditID")
		}
		got := slices.ContainsFunc(events, func(e *event.Event) bool {
			v := value(t, e, f.Name, arg)
			return !v.Missing() && v.Type == f.Type
		})
		if !got || f.Desc == "" {
			t.Errorf("%s: no value of type %s, or no description", f.Name, f.Type)
		}
	}
}

func TestSubject(t *testing.T) {
	for _, tc := range []struct {
		name, ref, verb string
		want            event.Subject
	}{
		{"object", `{"resource":"secrets","namespace":"shop","name":"db","apiVersion":"v1"}`, "get", event.Subject{APIVersion: "v1", Kind: "Secret", Namespace: "shop", Name: "db"}},
		{"group", `{"resource":"ingresses","namespace":"shop","name":"i","apiGroup":"networking.k8s.io","apiVersion":"v1"}`, "get", event.Subject{APIVersion: "networking.k8s.io/v1", Kind: "Ingress", Namespace: "shop", Name: "i"}},
		{"subresource", `{"resource":"pods","namespace":"shop","name":"p","apiVersion":"v1","subresource":"exec"}`, "create", event.Subject{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: "p"}},
		{"namespace", `{"resource":"namespaces","namespace":"shop","name":"shop","apiVersion":"v1"}`, "delete", event.Subject{APIVersion: "v1", Kind: "Namespace", Name: "shop"}},
		{"list", `{"resource":"secrets","apiVersion":"v1"}`, "list", event.Subject{APIVersion: "v1", Kind: "Secret"}},
		{"generated name", `{"resource":"pods","namespace":"shop","apiVersion":"v1"}`, "create", event.Subject{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: "web-x7"}},
		{"unknown kind", `{"resource":"widgets","name":"w","apiGroup":"example.com","apiVersion":"v1"}`, "get", event.Subject{APIVersion: "example.com/v1", Kind: "widgets", Name: "w"}},
		{"name of a built-in in another group", `{"resource":"pods","name":"w","apiGroup":"example.com","apiVersion":"v1"}`, "get", event.Subject{APIVersion: "example.com/v1", Kind: "pods", Name: "w"}},
		{"no resource", `{}`, "get", event.Subject{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			doc := strings.NewReplacer(`{"resource":"pods","namespace":"shop","apiVersion":"v1"}`, tc.ref, `"verb":"create"`, `"verb":"`+tc.verb+`"`).Replace(oneLine(podEvent))
			if got := decode(t, doc)[0].Record.Subject(); got != tc.want {
				t.Errorf("= %+v, want %+v", got, tc.want)
			}
		})
	}
}

func minimal(id string) string {
	return `{"auditID":"` + id + `","stageTimestamp":"2026-03-04T05:06:07Z"}`
}

// with returns a minimal event with one more member.
func with(id, member string) string {
	return strings.TrimSuffix(minimal(id), "}") + "," + member + "}"
}

func auditID(e *event.Event) string {
	return strings.Clone(e.Value(event.Ref{Field: event.Field{Name: "ka.auditid"}, Index: -1}).Text)
}

// The client of the API server chooses the audit ID, so that a request of
// somebody else, or another of theirs, must not pass for the same because of it.
func TestIdentity(t *testing.T) {
	const first = `{"auditID":"a","stage":"ResponseStarted","requestURI":"/x","verb":"get","user":{"username":"u"},` +
		`"requestReceivedTimestamp":"2026-03-04T05:06:07.000001Z","stageTimestamp":"2026-03-04T05:06:08Z"}`
	id := decode(t, first)[0].ID
	later := strings.NewReplacer("ResponseStarted", "ResponseComplete", "06:08Z", "06:59Z").Replace(first)
	if got := decode(t, later)[0].ID; got != id {
		t.Errorf("a later stage has id %q, want %q", got, id)
	}
	for _, change := range [][2]string{
		{`"auditID":"a"`, `"auditID":"b"`},
		{"07.000001Z", "07.000002Z"},
		{`"username":"u"`, `"username":"v"`},
		{`"verb":"get"`, `"verb":"create"`},
		{`"requestURI":"/x"`, `"requestURI":"/y"`},
	} {
		e := decode(t, strings.Replace(first, change[0], change[1], 1))[0]
		if e.ID == id {
			t.Errorf("with %s the id is the same", change[1])
		}
	}
}

// An event whose body is over the limits still says who did what.
func TestTrimmedEvent(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 300) + "1" + strings.Repeat("}", 300)
	var events []*event.Event
	stats, err := k8saudit.Decode(strings.NewReader(with("a", `"verb":"patch","requestObject":`+deep+`,"responseObject":{"kind":"Pod"}`)), func(e *event.Event) error {
		events = append(events, e)
		return nil
	})
	if err != nil || stats.Events != 1 || stats.Malformed != 1 {
		t.Fatalf("Decode = %+v, %v; want an event that is also malformed", stats, err)
	}
	for pointer, want := range map[string]string{"/verb": "patch", "/requestObject": "null", "/responseObject/kind": "Pod"} {
		if got := value(t, events[0], "jevt.value", &pointer).String(); got != want {
			t.Errorf("%s = %s, want %s", pointer, got, want)
		}
	}
}

func TestDecode(t *testing.T) {
	deep := func(levels int) string { return strings.Repeat("[", levels) + strings.Repeat("]", levels) }
	long := strings.Repeat("x", 257<<20)
	huge := with("b", `"requestObject":"`+long[:64<<20]+`"`)
	for _, tc := range []struct {
		name, in string
		ids      string   // of the events, joined
		problems []string // parts of them, in order
		err      string
	}{
		{name: "empty"},
		{name: "blank lines", in: "\n \n\r\n"},
		{name: "lines", in: minimal("a") + "\n" + minimal("b") + "\r\n\n" + minimal("c"), ids: "abc"},
		{name: "line longer than any buffer", in: strings.Replace(minimal("a"), "{", "{"+strings.Repeat(" ", 1<<20), 1) + "\n" + minimal("b"), ids: "ab"},
		{name: "list", in: `{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[` + minimal("a") + "," + minimal("b") + `]}`, ids: "ab"},
		{name: "lists in lines", in: `{"kind":"EventList","items":[` + minimal("a") + "]}\n" + `[` + minimal("b") + `]`, ids: "ab"},
		{name: "packed", in: zip(minimal("a") + "\n" + minimal("b") + "\n"), ids: "ab"},
		{name: "packed, cut short", in: zip(minimal("a") + "\n" + minimal("b") + "\n")[:40], err: "read audit events: line 1: unexpected EOF"},
		{name: "empty list", in: `{"kind":"EventList","items":null}`},
		{name: "over several lines", in: "\n{\n\"kind\":\n\"EventList\",\"items\":[" + minimal("a") + ",\n" + minimal("b") + "]}\n" + minimal("c"), ids: "abc"},
		{name: "array over several lines", in: "[\n" + minimal("a") + ",\n" + minimal("b") + "\n]\n", ids: "ab"},
		{name: "bad line", in: minimal("a") + "\n{\"auditID\":\n" + minimal("b"), ids: "ab", problems: []string{"line 2: parse JSON: unexpected end"}},
		{name: "first line is the end of another", in: "\"}}\n" + minimal("b"), ids: "b", problems: []string{"line 1: parse JSON"}},
		{name: "bad items", in: `[` + minimal("a") + `,1,null,{"auditID":3},{"verb":"get"},` + minimal("b") + `]`, ids: "ab", problems: []string{
			"line 1: want an audit event, got a JSON number", "line 1: want an audit event, got a JSON null",
			"line 1: field auditID must not be a JSON number", "line 1: event without auditID",
		}},
		{name: "no time", in: `{"auditID":"a"}`, problems: []string{"line 1: event without stageTimestamp"}},
		{name: "bad time", in: `{"auditID":"a","stageTimestamp":"now"}`, problems: []string{`line 1: field stageTimestamp: parsing time`}},
		{name: "another kind", in: `{"kind":"Pod","auditID":"a"}`, problems: []string{`line 1: kind "Pod": want Event or EventList`}},
		{name: "another object", in: `{"a":1}`, problems: []string{`line 1: neither an Event nor an EventList`}},
		{name: "another version", in: `{"kind":"Event","apiVersion":"audit.k8s.io/v1beta1","auditID":"a","stageTimestamp":"2026-03-04T05:06:07Z"}`, problems: []string{`line 1: apiVersion "audit.k8s.io/v1beta1": want audit.k8s.io/v1`}},
		{name: "deep body", in: minimal("a") + "\n" + with("b", `"requestObject":`+deep(199)), ids: "ab"},
		{name: "too deep body", in: minimal("a") + "\n" + with("b", `"requestObject":`+deep(200)) + "\n" + minimal("c"), ids: "abc", problems: []string{"line 2: body left out: JSON nested deeper than 200 levels"}},
		{name: "too deep body first", in: with("a", `"requestObject":`+deep(20000)) + "\n" + minimal("b"), ids: "ab", problems: []string{"line 1: body left out: JSON nested deeper than 200 levels"}},
		{name: "too deep body in a list", in: `{"kind":"EventList","items":[` + minimal("a") + "," + with("b", `"responseObject":`+deep(20000)) + "," + minimal("c") + `]}`, ids: "abc", problems: []string{"line 1: body left out: JSON nested deeper"}},
		{name: "too deep elsewhere", in: "[" + minimal("a") + "," + with("b", `"user":`+deep(20000)) + "," + minimal("c") + "," + deep(201) + "]", ids: "ac", problems: []string{"line 1: JSON nested deeper", "line 1: JSON nested deeper"}},
		{name: "wrong brackets in an item", in: "[" + minimal("a") + `,{"a":[}},` + minimal("b") + "]", ids: "ab", problems: []string{"line 1: parse JSON"}},
		{name: "wrong brackets around the items", in: "[" + minimal("a") + "}\n" + minimal("b"), ids: "ab", problems: []string{`line 1: parse JSON: unexpected character '}'`}},
		{name: "more after the list", in: minimal("a") + "\n[" + minimal("b") + "]]\n" + minimal("c"), ids: "abc", problems: []string{`line 2: parse JSON: unexpected character ']'`}},
		{name: "brackets in text", in: strings.Replace(minimal("a"), "{", `{"verb":"`+strings.Repeat(`[\"`, 300)+`",`, 1), ids: "a"},
		{name: "too large", in: minimal("a") + "\n" + huge + "\n" + minimal("c"), ids: "abc", problems: []string{"line 2: body left out: event of 67108938 bytes: the limit is 67108864"}},
		{name: "too large without a body", in: with("a", `"userAgent":"`+long[:64<<20]+`"`) + "\n" + minimal("b"), ids: "b", problems: []string{"line 1: event of"}},
		{name: "line too long", in: minimal("a") + "\n" + long + "\n" + minimal("b"), ids: "ab", problems: []string{"line 2: longer than 268435456 bytes"}},
		{name: "last line too long", in: minimal("a") + "\n" + long, ids: "a", problems: []string{"line 2: longer than 268435456 bytes"}},
		{name: "document too long", in: "{\n" + long, err: "read audit events: line 1: JSON over several lines is longer than 268435456 bytes: write one event on each line"},
		{name: "broken document", in: "[\n" + minimal("a") + ",\n}", err: "read audit events: line 3: parse JSON: invalid character '}'"},
		{name: "unfinished document", in: "{\n\"a\":\n", err: "read audit events: line 3: parse JSON: unexpected EOF"},
		{name: "binary", in: "\x00\x01\xff", problems: []string{"line 1: parse JSON"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ids := ""
			if testing.Short() && len(tc.in) > 32<<20 {
				t.Skip("hundreds of MiB")
			}
			stats, err := k8saudit.Decode(strings.NewReader(tc.in), func(e *event.Event) error {
				ids += auditID(e)
				return nil
			})
			if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Fatalf("Decode = %v, want %q", err, tc.err)
			}
			if ids != tc.ids || stats.Events != len(ids) || stats.Malformed != len(tc.problems) {
				t.Fatalf("events %q, %+v; want %q, %d malformed", ids, stats, tc.ids, len(tc.problems))
			}
			for i, want := range tc.problems {
				if got := stats.Problems[i].Error(); !strings.Contains(got, want) {
					t.Errorf("problem %d = %s, want %s", i, got, want)
				}
			}
		})
	}
}

func TestDecodeStops(t *testing.T) {
	full := errors.New("store is full")
	stats, err := k8saudit.Decode(strings.NewReader(minimal("a")+"\n"+minimal("b")), func(*event.Event) error { return full })
	if !errors.Is(err, full) || stats.Events != 1 {
		t.Errorf("Decode = %+v, %v; want the error of yield after one event", stats, err)
	}
	broken := io.MultiReader(strings.NewReader(minimal("a")+"\n"), errReader{})
	if stats, err = k8saudit.Decode(broken, func(*event.Event) error { return nil }); err == nil || stats.Events != 1 {
		t.Errorf("Decode = %+v, %v; want the error of the reader after one event", stats, err)
	}
	stats, err = k8saudit.Decode(strings.NewReader(strings.Repeat("x\n", 50)), nil)
	if err != nil || stats.Malformed != 50 || len(stats.Problems) != 10 {
		t.Errorf("Decode = %d malformed, %d problems, %v; want 50, 10", stats.Malformed, len(stats.Problems), err)
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("disk is gone") }

func zip(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, s); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.String()
}

func TestReceiver(t *testing.T) {
	tooLarge := ""
	if !testing.Short() {
		tooLarge = strings.Repeat(" ", 257<<20)
	}
	batch := `{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[` + minimal("a") + `,{"bad":1},` + minimal("b") + `]}`
	for _, tc := range []struct {
		name, method, media, encoding, body string
		fail                                error
		code                                int
		header                              string // that must be set
		ids                                 string
		want                                k8saudit.Counters
	}{
		{name: "batch", body: batch, code: 200, ids: "ab", want: k8saudit.Counters{Batches: 1, Events: 2, Faults: k8saudit.Faults{Event: 1}}},
		{name: "gzip", encoding: "gzip", body: zip(batch), code: 200, ids: "ab", want: k8saudit.Counters{Batches: 1, Events: 2, Faults: k8saudit.Faults{Event: 1}}},
		{name: "charset", media: "application/json; charset=utf-8", body: batch, code: 200, ids: "ab", want: k8saudit.Counters{Batches: 1, Events: 2, Faults: k8saudit.Faults{Event: 1}}},
		{name: "an item too deep for any decoder", body: strings.Replace(batch, `{"bad":1}`, with("c", `"requestObject":`+strings.Repeat("[", 20000)+strings.Repeat("]", 20000)), 1), code: 200, ids: "acb", want: k8saudit.Counters{Batches: 1, Events: 3, Faults: k8saudit.Faults{Depth: 1}}},
		{name: "lines", body: minimal("a") + "\n" + batch + "\n" + minimal("c") + "\n", code: 200, ids: "aabc", want: k8saudit.Counters{Batches: 1, Events: 4, Faults: k8saudit.Faults{Event: 1}}},
		{name: "a line that is cut", body: minimal("a") + "\n" + minimal("b")[:20], code: 400, ids: "a", want: k8saudit.Counters{Events: 1, Rejected: k8saudit.Rejected{Invalid: 1}}},
		{name: "nothing in it", body: `{"kind":"EventList","items":[{}]}`, code: 200, want: k8saudit.Counters{Batches: 1, Faults: k8saudit.Faults{Event: 1}}},
		{name: "method", method: "GET", code: 405, header: "Allow", want: k8saudit.Counters{Rejected: k8saudit.Rejected{Method: 1}}},
		{name: "media type", media: "text/plain", body: batch, code: 415, want: k8saudit.Counters{Rejected: k8saudit.Rejected{MediaType: 1}}},
		{name: "encoding", encoding: "br", body: batch, code: 415, header: "Accept-Encoding", want: k8saudit.Counters{Rejected: k8saudit.Rejected{MediaType: 1}}},
		{name: "empty", code: 400, want: k8saudit.Counters{Rejected: k8saudit.Rejected{Invalid: 1}}},
		{name: "no JSON", body: "{", code: 400, want: k8saudit.Counters{Rejected: k8saudit.Rejected{Invalid: 1}}},
		{name: "no list", body: `{"kind":"PodList","items":[]}`, code: 400, want: k8saudit.Counters{Rejected: k8saudit.Rejected{Invalid: 1}}},
		{name: "other version", body: `{"kind":"EventList","apiVersion":"v1","items":[]}`, code: 400, want: k8saudit.Counters{Rejected: k8saudit.Rejected{Invalid: 1}}},
		{name: "no gzip", encoding: "gzip", body: batch, code: 400, want: k8saudit.Counters{Rejected: k8saudit.Rejected{Invalid: 1}}},
		{name: "cut gzip", encoding: "gzip", body: zip(batch)[:40], code: 400, want: k8saudit.Counters{Rejected: k8saudit.Rejected{Incomplete: 1}}},
		{name: "too large", body: tooLarge, code: 413, want: k8saudit.Counters{Rejected: k8saudit.Rejected{TooLarge: 1}}},
		{name: "gzip bomb", encoding: "gzip", body: zip(tooLarge), code: 413, want: k8saudit.Counters{Rejected: k8saudit.Rejected{TooLarge: 1}}},
		{name: "not handled", body: batch, fail: errors.New("disk full at /secret/path"), code: 503, header: "Retry-After", ids: "ab", want: k8saudit.Counters{Rejected: k8saudit.Rejected{Failed: 1}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if testing.Short() && tc.code == http.StatusRequestEntityTooLarge {
				t.Skip("hundreds of MiB")
			}
			ids := ""
			r := k8saudit.NewReceiver(k8saudit.ReceiverOptions{Handle: func(_ context.Context, events []*event.Event) error {
				for _, e := range events {
					ids += auditID(e)
				}
				return tc.fail
			}})
			server := httptest.NewServer(r)
			defer server.Close()
			res, body := send(t, server.URL, tc.method, tc.media, tc.encoding, tc.body)
			if res.StatusCode != tc.code || tc.header != "" && res.Header.Get(tc.header) == "" {
				t.Errorf("answer = %d %v, want %d with header %q", res.StatusCode, res.Header, tc.code, tc.header)
			}
			if ids != tc.ids {
				t.Errorf("events = %q, want %q", ids, tc.ids)
			}
			if got := r.Counters(); got != tc.want {
				t.Errorf("counters = %+v, want %+v", got, tc.want)
			}
			if strings.Contains(body, "secret") {
				t.Errorf("answer %q tells the caller about the inside", body)
			}
		})
	}
}

func send(t *testing.T, url, method, media, encoding, body string) (*http.Response, string) {
	t.Helper()
	if method == "" {
		method = http.MethodPost
	}
	if media == "" {
		media = "application/json"
	}
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", media)
	if encoding != "" {
		req.Header.Set("Content-Encoding", encoding)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(answer)
}

// While a batch is in flight a second one is refused, and taken afterwards.
func TestReceiverBusy(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	r := k8saudit.NewReceiver(k8saudit.ReceiverOptions{Batches: 1, Handle: func(context.Context, []*event.Event) error {
		entered <- struct{}{}
		<-leave
		return nil
	}})
	server := httptest.NewServer(r)
	defer server.Close()
	done := make(chan int)
	post := func() {
		res, _ := send(t, server.URL, "", "", "", minimal("a"))
		done <- res.StatusCode
	}
	go post()
	<-entered
	if res, _ := send(t, server.URL, "", "", "", minimal("b")); res.StatusCode != http.StatusTooManyRequests || res.Header.Get("Retry-After") == "" {
		t.Errorf("second batch = %d %v, want 429 with Retry-After", res.StatusCode, res.Header)
	}
	leave <- struct{}{}
	if code := <-done; code != 200 {
		t.Errorf("first batch = %d, want 200", code)
	}
	go post()
	<-entered
	leave <- struct{}{}
	if code := <-done; code != 200 {
		t.Errorf("third batch = %d, want 200", code)
	}
	if got := r.Counters(); got.Rejected.Busy != 1 || got.Batches != 2 {
		t.Errorf("counters = %+v", got)
	}
}

// Batches in flight are bounded by their bytes: a second one waits, and one
// alone may be larger than the bound. A list of any length is handled in parts.
func TestReceiverBytes(t *testing.T) {
	const events = 2000
	entered, leave, seen := make(chan struct{}, events), make(chan struct{}), 0
	r := k8saudit.NewReceiver(k8saudit.ReceiverOptions{Batches: 4, Bytes: 100 << 10, Handle: func(_ context.Context, list []*event.Event) error {
		entered <- struct{}{}
		<-leave
		seen += len(list)
		return nil
	}})
	server := httptest.NewServer(r)
	defer server.Close()
	large := "[" + strings.Repeat(minimal("a")+",", events-1) + minimal("b") + "]"
	done := make(chan int)
	go func() {
		res, _ := send(t, server.URL, "", "", "", large)
		done <- res.StatusCode
	}()
	<-entered
	for _, second := range []string{minimal("c"), large} {
		if res, _ := send(t, server.URL, "", "", "", second); res.StatusCode != http.StatusTooManyRequests || res.Header.Get("Retry-After") == "" {
			t.Errorf("second batch of %d bytes = %d %v, want 429 with Retry-After", len(second), res.StatusCode, res.Header)
		}
	}
	close(leave)
	if code := <-done; code != 200 || seen != events {
		t.Errorf("large batch = %d, %d events handled, want %d", code, seen, events)
	}
	if res, _ := send(t, server.URL, "", "", "gzip", zip(large)); res.StatusCode != 200 || seen != 2*events {
		t.Errorf("large batch afterwards = %d, %d events handled", res.StatusCode, seen)
	}
	if got := r.Counters(); got.Rejected.Busy != 2 || got.Batches != 2 || got.Events != 2*events {
		t.Errorf("counters = %+v", got)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(oneLine(podEvent)))
	f.Add([]byte(podEvent))
	f.Add([]byte(`{"kind":"EventList","items":[` + minimal("a") + `,null,3]}` + "\n" + minimal("b")))
	f.Add([]byte("[" + minimal("a") + "]\n{\"\n"))
	f.Add([]byte("{\n\"auditID\": 1}"))
	f.Add([]byte(google("io.k8s.core.v1.pods.create", "core/v1/namespaces/shop/pods/web", "")))
	f.Add([]byte(`{"records":[{"category":"kube-audit","properties":{"log":` + quoted(minimal("a")) + `}}]}`))
	f.Add([]byte(`{"logStream":"kube-apiserver-audit-1","logEvents":[{"message":` + quoted(minimal("a")) + `},{"message":"{\"auditID\":\"b[Truncated...]"}]}`))
	fields := event.Fields(event.K8sAudit)
	f.Fuzz(func(t *testing.T, data []byte) {
		events := 0
		stats, err := k8saudit.Decode(bytes.NewReader(data), func(e *event.Event) error {
			events++
			if e.ID == "" || e.Time.Equal(time.Time{}) {
				t.Error("event without id or time")
			}
			for _, field := range fields {
				var arg *string
				if field.Arg == event.KeyArg || field.Arg == event.PointerArg {
					arg = new("/requestObject/spec/containers/0/name")
				}
				ref, err := event.Resolve(field, arg)
				if err != nil {
					t.Fatal(err)
				}
				if v := e.Value(ref); !v.Missing() && v.Type != field.Type {
					t.Errorf("%s is a %s, want a %s", field.Name, v.Type, field.Type)
				}
			}
			e.Record.Subject()
			return nil
		})
		if stats.Events != events {
			t.Errorf("%d events counted, %d seen", stats.Events, events)
		}
		if len(bytes.TrimSpace(data)) > 0 && err == nil && stats.Events+stats.Malformed == 0 && !bytes.Contains(data, []byte("[")) && !bytes.Contains(data, []byte("EventList")) {
			t.Errorf("input %q is skipped silently", data)
		}
	})
}

func TestSchemaNamesAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range event.Fields(event.K8sAudit) {
		if seen[f.Name] {
			t.Errorf("field %s is there twice", f.Name)
		}
		seen[f.Name] = true
	}
	for _, ref := range event.AlertFields(event.K8sAudit) {
		if !seen[ref.Name] {
			t.Errorf("alert field %s is no field; fields are %v", ref.Name, slices.Sorted(maps.Keys(seen)))
		}
	}
	if got := event.Fields("other"); got != nil {
		t.Errorf("fields of an unknown source = %v", got)
	}
}
