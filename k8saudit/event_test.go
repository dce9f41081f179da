package k8saudit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/event"
)

// member writes a member of an object whose name may have escapes.
func (w *writer) member(name string, value func()) {
	if w.Len() > 0 && w.Bytes()[w.Len()-1] != '{' {
		w.WriteByte(',')
	}
	if w.IntN(10) == 0 {
		name = fmt.Sprintf(`\u%04x%s`, name[0], name[1:])
	}
	w.WriteString(`"` + name + `":`)
	value()
}

// object writes an object with some of the members, in any order, some twice.
func (w *writer) object(members map[string]func()) {
	w.WriteByte('{')
	for range 2 {
		for name, value := range members { // in random order
			if w.IntN(4) > 0 {
				w.member(name, value)
			}
		}
	}
	w.WriteByte('}')
}

func (w *writer) any() { w.value(2) }

func (w *writer) auditEvent() {
	user := func() {
		if w.IntN(8) == 0 {
			w.any()
			return
		}
		w.object(map[string]func(){"username": w.text, "groups": func() { w.pick(`["a","b\u0063"]`, `[]`, `null`, `"x"`, `[1]`) }, "extra": w.any})
	}
	w.object(map[string]func(){
		"verb": w.text, "stage": w.text, "level": w.text, "requestURI": w.text, "userAgent": w.text, "user": user, "impersonatedUser": user, "unknown": w.any,
		"objectRef": func() {
			w.object(map[string]func(){"resource": w.text, "namespace": w.text, "name": w.text, "subresource": w.text, "apiGroup": w.text, "apiVersion": w.text, "uid": w.text})
		},
		"responseStatus": func() {
			w.object(map[string]func(){"code": func() { w.pick("200", "404", "0", "null") }, "reason": w.text, "metadata": w.any})
		},
		"requestObject": w.any, "responseObject": w.any,
		"annotations": func() { w.object(map[string]func(){"authorization.k8s.io/decision": w.text, "x": w.text}) },
		"sourceIPs":   func() { w.pick(`["1.2.3.4"]`, `[]`, `null`) },
	})
}

// oracle returns the value at a path as encoding/json has it: of members with
// the same name the last one counts.
func oracle(data []byte, path ...string) json.RawMessage {
	for _, key := range path {
		var object map[string]json.RawMessage
		if json.Unmarshal(data, &object) != nil {
			return nil
		}
		data = object[key]
	}
	return data
}

// Events of any form read as encoding/json reads them.
func TestEventsAgainstStandard(t *testing.T) {
	w := &writer{Rand: rand.New(rand.NewPCG(3, 4))}
	fields := map[string][]string{
		"ka.verb": {"verb"}, "ka.stage": {"stage"}, "ka.uri": {"requestURI"}, "ka.useragent": {"userAgent"}, "ka.user.name": {"user", "username"},
		"ka.impuser.name": {"impersonatedUser", "username"}, "ka.target.resource": {"objectRef", "resource"}, "ka.target.namespace": {"objectRef", "namespace"},
		"ka.target.name": {"objectRef", "name"}, "ka.target.subresource": {"objectRef", "subresource"}, "ka.response.code": {"responseStatus", "code"},
		"ka.response.reason": {"responseStatus", "reason"}, "ka.auth.decision": {"annotations", "authorization.k8s.io/decision"},
	}
	for range 1000 {
		w.Reset()
		w.auditEvent()
		data := bytes.Clone(w.Bytes())
		data = append(append(data[:len(data)-1:len(data)-1], `,"auditID":"a","stageTimestamp":"2026-03-04T05:06:07Z"}`...), ' ')
		data = bytes.Replace(data, []byte("{,"), []byte("{"), 1)
		e, err := Parse(data)
		if err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		for field, path := range fields {
			want, raw := "", oracle(data, path...)
			if raw != nil && json.Unmarshal(raw, &want) != nil {
				want = string(bytes.TrimSpace(raw))
			}
			if field == "ka.response.code" && want == "0" {
				want = ""
			}
			if got := ask(t, e, field, ""); got.Text != want {
				t.Fatalf("%s of %s = %q, want %q", field, data, got.Text, want)
			}
		}
		for _, name := range []string{"requestObject", "responseObject", "unknown", "user", "objectRef", "level", "verb"} {
			got, raw := ask(t, e, "jevt.value", "/"+name), oracle(data, name)
			if got.Missing() != (raw == nil) {
				t.Fatalf("%s of %s is missing: %v", name, data, got.Missing())
			}
			if raw != nil && !strings.HasPrefix(strings.TrimSpace(string(raw)), `"`) {
				sameJSON(t, got.Text, raw)
			}
		}
		for _, path := range [][]string{{"user", "extra"}, {"user", "groups", "1"}, {"impersonatedUser", "username"}, {"objectRef", "uid"}, {"responseStatus", "metadata"}, {"annotations", "x"}, {"sourceIPs", "0"}, {"unknown", "a"}} {
			parent, last := oracle(data, path[:len(path)-1]...), path[len(path)-1]
			raw := oracle(parent, last)
			var list []json.RawMessage
			if i, err := strconv.Atoi(last); err == nil && json.Unmarshal(parent, &list) == nil && i < len(list) {
				raw = list[i]
			}
			want := ""
			if raw != nil && json.Unmarshal(raw, &want) != nil || string(raw) == "null" {
				want = "" // compared below
			}
			got := ask(t, e, "jevt.value", "/"+strings.Join(path, "/"))
			if got.Missing() != (raw == nil) || raw != nil && raw[0] == '"' && got.Text != want {
				t.Fatalf("%s of %s = %q, want %s", path, data, got, raw)
			}
		}
		var groups []string
		if raw := oracle(data, "user", "groups"); json.Unmarshal(raw, &groups) == nil {
			if got := ask(t, e, "ka.user.groups", ""); strings.Join(got.List, ",") != strings.Join(groups, ",") {
				t.Fatalf("groups of %s = %q, want %q", data, got.List, groups)
			}
		}
	}
}

func ask(t *testing.T, e *event.Event, name, arg string) event.Value {
	t.Helper()
	f, _ := event.Lookup(event.K8sAudit, name)
	key := &arg
	if arg == "" {
		key = nil
	}
	ref, err := event.Resolve(f, key)
	if err != nil {
		t.Fatal(err)
	}
	return e.Value(ref)
}

// The body of one event, however large, does not keep rules from seeing the
// next one, nor from seeing the first one again.
func TestLargeBodies(t *testing.T) {
	large := `{"kind":"Event","auditID":"large","stageTimestamp":"2026-03-04T05:06:07Z","responseObject":{"spec":{}},"requestObject":[` + strings.Repeat("0,", 1_500_000) + `{"op":"add","path":"/spec/volumes/-","value":{"hostPath":{"path":"/etc"}}}]}`
	small := `{"kind":"Event","auditID":"small","stageTimestamp":"2026-03-04T05:06:07Z","requestObject":{"spec":{"volumes":[{"hostPath":{"path":"/root"}}]}}}`
	b := newBatch(3, Falco)
	for _, doc := range []string{large, small, large} {
		if _, err := b.add(&reader{b: []byte(doc)}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		for i, want := range []string{"(/etc)", "(/root)", "(/etc)"} {
			if got := ask(t, b.list[i], "ka.hostpaths", "").String(); got != want {
				t.Errorf("event %d: host paths %s, want %s", i, got, want)
			}
		}
	}
	if n := len(b.arena.cells); n > 1_600_000 {
		t.Errorf("%d cells: those of a large body were not given back", n)
	}
}
