package document_test

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/document"
	"github.com/kubeguardian/kubeguardian/notify/notifytest"
)

// samples are notifications with all that a document can have, and with as
// little as there can be.
func samples() []notify.Notification {
	at := time.Date(2026, 11, 26, 12, 0, 0, 123456789, time.UTC)
	full := alert.Alert{
		ID: "a1", Time: at, Rule: "Shell in a container", Priority: alert.Emergency, Source: "syscall", Output: "a shell",
		OutputFields: map[string]any{
			"user.name": "root", "proc.name": "sh", "proc.pid": json.Number("4711"), "proc.cmdline": "sh -i",
			"container.id": "3f2a9c01d7be", "container.image.repository": "ghcr.io/shop/web", "container.image.tag": "1.2",
		},
		Hostname: "node-1", Tags: []string{"T1059", "T1059.004", "mitre_execution"}, Tactics: []string{"execution", "of-my-own"},
		Subject:  finding.Subject{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: "web", Container: "app"},
		Entities: []alert.Entity{{Kind: alert.Address, Name: "203.0.113.7"}},
	}
	bare := alert.Alert{ID: "a2", Time: at, Rule: "R", Priority: alert.Debug}
	closed := &incident.Incident{ID: "i1", Story: "it ended.", State: incident.Closed, Reason: "a test", Assignee: "ann", First: at, Last: at, Worst: alert.Error}
	for i := range 300 {
		s := incident.FromAlert(&full)
		s.Time = at.Add(time.Duration(i) * time.Second)
		closed.Signals = append(closed.Signals, s)
	}
	acknowledged := &incident.Incident{ID: "i2", Story: "it goes on.", State: incident.Acknowledged, First: at, Last: at, Worst: alert.Notice, Tactics: []string{"impact"}}
	return append(notifytest.Notifications(12),
		notify.Notification{Key: "k1", Alert: full, Count: 3, First: at, Last: at.Add(time.Minute), URL: "https://guardian.example/alerts/a1"},
		notify.Notification{Key: "k2", Alert: bare, First: at, Last: at},
		notify.Notification{Key: "k3", Alert: full, Count: 1, First: at, Last: at, Incident: closed},
		notify.Notification{Key: "k4", Alert: bare, Count: 1, First: at, Last: at, Incident: acknowledged},
	)
}

func writer(t *testing.T, format string) document.Writer {
	t.Helper()
	w, err := document.New(format, notify.Options{Cluster: "prod", Version: "1.2.3"})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestOCSF holds the events to what the schema says of them, strictly.
func TestOCSF(t *testing.T) {
	file, err := os.Open("testdata/ocsf.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	text, err := jsonschema.UnmarshalJSON(file)
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("ocsf.json", text); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("ocsf.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{document.OCSF16, document.OCSF18} {
		w := writer(t, format)
		for i, n := range samples() {
			line, err := w.JSON(&n)
			if err != nil {
				t.Fatal(err)
			}
			event, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
			if err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(event); err != nil {
				t.Errorf("%s, notification %d: %v\n%s", format, i, err, line)
			}
			version := event.(map[string]any)["metadata"].(map[string]any)["version"]
			if "ocsf-"+version.(string) != format {
				t.Errorf("%s: version %s", format, version)
			}
		}
	}
	// A schema that accepts everything would prove nothing.
	if err := schema.Validate(map[string]any{"class_uid": 2004}); err == nil {
		t.Error("the schema accepts an event without what is required")
	}
}

func TestDetectionFinding(t *testing.T) {
	n := samples()[12]
	line, err := writer(t, document.OCSF18).JSON(&n)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"class_uid":2004`, `"type_uid":200401`, `"time":1795694400123`, `"severity":"Fatal"`, `"count":3`, `"is_alert":true`,
		`"uid":"k1"`, `"tactic":{"name":"Execution","uid":"TA0002"}`, `"technique":{"uid":"T1059"},"sub_technique":{"uid":"T1059.004"}`,
		`{"uid":"Pod/shop/web","name":"web","type":"Pod","namespace":"shop"},{"uid":"Node/node-1","name":"node-1","type":"Node"}`,
		`"process":{"name":"sh","pid":4711,"cmd_line":"sh -i"}`, `"image":{"uid":"ghcr.io/shop/web:1.2"`, `"ip":"203.0.113.7"`,
		`"cluster":"prod"`, `"src_url":"https://guardian.example/alerts/a1"`,
	} {
		if !strings.Contains(string(line), want) {
			t.Errorf("no %s in %s", want, line)
		}
	}
	if strings.Contains(string(line), "of-my-own") {
		t.Errorf("a tactic that ATT&CK does not have: %s", line)
	}
}

func TestIncidentFinding(t *testing.T) {
	n := samples()[14]
	line, err := writer(t, document.OCSF16).JSON(&n)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"class_uid":2005`, `"type_name":"Incident Finding: Close"`, `"status":"Closed"`, `"severity":"High"`, `"count":300`, `"desc":"it ended."`,
		`"assignee":{"name":"ann"}`, `"comment":"a test"`, `"correlation_uid":"i1"`, `"profiles":["incident"]`, `"version":"1.6.0"`,
	} {
		if !strings.Contains(string(line), want) {
			t.Errorf("no %s in %s", want, line[:2000])
		}
	}
	if got := bytes.Count(line, []byte(`"analytic"`)); got != 100 {
		t.Errorf("%d findings, want the first 100", got)
	}
}

// TestFalcoKeys: what reads Falco's alerts reads ours.
func TestFalcoKeys(t *testing.T) {
	batch := samples()
	lines, err := writer(t, "").Lines(batch)
	if err != nil {
		t.Fatal(err)
	}
	split := strings.Split(strings.TrimSuffix(string(lines), "\n"), "\n")
	if len(split) != len(batch) {
		t.Fatalf("%d lines, want %d", len(split), len(batch))
	}
	for i, line := range split {
		var d struct {
			Rule, Priority, Output, Hostname, Source, UUID, ID string
			Time                                               time.Time
			Fields                                             map[string]json.Number `json:"-"`
			Notification                                       struct{ Key string }
			Incident                                           *struct{ ID, Story string }
		}
		if err := json.Unmarshal([]byte(line), &d); err != nil {
			t.Fatal(err)
		}
		n := batch[i]
		if d.Priority != n.Alert.Priority.String() || !d.Time.Equal(n.Alert.Time) || d.UUID != n.Alert.ID || d.ID != n.Alert.ID || d.Notification.Key != n.Key {
			t.Errorf("notification %d: %s", i, line)
		}
		if (d.Incident != nil) != (n.Incident != nil) || d.Incident != nil && d.Incident.Story == "" {
			t.Errorf("notification %d: incident %+v", i, d.Incident)
		}
	}
	if !strings.Contains(split[0], `"proc.pid":9007199254740993`) {
		t.Errorf("a number is not exact: %s", split[0])
	}
}

func TestUnknownFormat(t *testing.T) {
	_, err := document.New("ocsf", notify.Options{})
	if err == nil || !strings.Contains(err.Error(), `unknown format "ocsf": want one of falco, ocsf-1.6.0, ocsf-1.8.0`) {
		t.Errorf("%v", err)
	}
	for _, f := range document.Formats() {
		if _, err := document.New(f, notify.Options{}); err != nil {
			t.Error(err)
		}
	}
}

func TestWhatCannotBeWritten(t *testing.T) {
	n := samples()[0]
	n.Alert.OutputFields = map[string]any{"f": func() {}}
	for _, format := range document.Formats() {
		if _, err := writer(t, format).Lines([]notify.Notification{n}); err == nil || !strings.Contains(err.Error(), "encode alert "+n.Alert.ID) {
			t.Errorf("%s: %v", format, err)
		}
	}
	if got := document.Field(&n.Alert, "f"); got != "" {
		t.Errorf("Field = %q", got)
	}
}

func TestClean(t *testing.T) {
	for _, tc := range []struct {
		text string
		most int
		want string
	}{
		{"a b", 10, "a b"},
		{"a\r\nb\x1b[31m\u009b", 20, "a  b [31m "},
		{"a\xffb", 10, "a\uFFFDb"},
		{"0123456789", 10, "0123456789"},
		{"0123456789x", 10, "0123456…"},
		{"éééééé", 8, "éé…"},
		{"abc", 1, "…"},
	} {
		if got := document.Clean(tc.text, tc.most); got != tc.want {
			t.Errorf("Clean(%q, %d) = %q, want %q", tc.text, tc.most, got, tc.want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("a\xff\x00é", 4)
	f.Fuzz(func(t *testing.T, text string, most int) {
		most = max(most, 3) % 5000
		if most < 3 {
			most += 3
		}
		out := document.Clean(text, most)
		if len(out) > most || !utf8.ValidString(out) || strings.ContainsFunc(out, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Errorf("Clean(%q, %d) = %q", text, most, out)
		}
	})
}

func TestField(t *testing.T) {
	a := &alert.Alert{OutputFields: map[string]any{"s": "x", "n": json.Number("12345678901234567890"), "b": true, "l": []any{"a", 1}, "null": nil, "f": 1.5}}
	got := []string{}
	for _, name := range []string{"s", "n", "b", "l", "null", "f", "none"} {
		got = append(got, document.Field(a, name))
	}
	if want := []string{"x", "12345678901234567890", "true", `["a",1]`, "", "1.5", ""}; !slices.Equal(got, want) {
		t.Errorf("Field = %q, want %q", got, want)
	}
}
