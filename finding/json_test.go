package finding

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"testing"
	"time"
)

// A record is a finding with its keys in order.
type record struct {
	Control      string              `json:"control"`
	Title        string              `json:"title"`
	Level        Level               `json:"level"`
	Severity     Severity            `json:"severity"`
	Status       Status              `json:"status"`
	Reason       string              `json:"reason,omitempty"`
	Subject      Subject             `json:"subject"`
	Message      string              `json:"message,omitempty"`
	Evidence     string              `json:"evidence,omitempty"`
	EvidenceKind string              `json:"evidenceKind,omitempty"`
	Fix          string              `json:"fix,omitempty"`
	Frameworks   map[string][]string `json:"frameworks,omitempty"`
	Exposure     Exposure            `json:"exposure,omitempty"`
	Gain         float64             `json:"gain,omitempty"`
	ObservedAt   time.Time           `json:"observedAt"`
	Hides        int                 `json:"hides,omitempty"`
	Grantees     []Grantee           `json:"grantees,omitempty"`
}

// plainly is what encoding/json makes of a finding by reflection.
func plainly(t *testing.T, f *Finding) string {
	t.Helper()
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	err := e.Encode(record{
		f.Control, f.Title, f.Level, f.Severity, f.Status, f.Reason, *f.Subject, f.Message, f.Evidence, f.EvidenceKind, f.Fix,
		f.Frameworks, f.Exposure, f.Gain, f.ObservedAt, f.Hides, f.Grantees,
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSuffix(out.Bytes(), []byte("\n")))
}

func checkJSON(t *testing.T, e *Encoder, f *Finding) {
	t.Helper()
	text, err := e.Append(nil, f)
	if err != nil {
		t.Fatal(err)
	}
	if want := plainly(t, f); string(text) != want {
		t.Errorf("Append writes\n%s, want\n%s", text, want)
	}
	var back, again Finding
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	second, err := json.Marshal(back)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(second, &again); err != nil || !reflect.DeepEqual(back, again) {
		t.Errorf("%s becomes %s, %v", text, second, err)
	}
}

func TestJSON(t *testing.T) {
	noon := time.Date(2026, 11, 26, 12, 0, 0, 123, time.FixedZone("", 3600))
	def := &Definition{Control: "CON-SEC-01", Title: `<b> & "quotes"`, Level: Container, Severity: Critical,
		Frameworks: map[string][]string{"pss": {"baseline"}, "cis-1.12": {"5.2.2", "5.2.3"}, "mitre": nil}}
	plain := &Finding{Definition: &Definition{}, Detail: &Detail{}, Subject: &Subject{}}
	full := &Finding{
		Definition: def,
		Detail:     &Detail{"because", "a\\b\n\t\x7f\u2028\U000E0001é", "\xff", "api", "do it", noon, AnyNumber, []Grantee{{"Group", "", "devs & ops"}, {"ServiceAccount", "shop", "web"}}},
		Subject:    &Subject{"apps/v1", "Deployment", "shop", "web", "a,b", "f.yaml:1", "chart"},
		Status:     Fail, Exposure: Internet, Gain: 1.0 / 3,
	}
	tiny, huge, lost := *full, *full, *full
	tiny.Gain, huge.Gain = 1e-9, -1e21
	lost.Amend(func(d *Detail) { d.ObservedAt = time.Time{} })
	e := &Encoder{}
	for _, f := range []*Finding{full, plain, full, &tiny, &huge, &lost, full} {
		checkJSON(t, e, f)
	}
	late := *full
	late.Amend(func(d *Detail) { d.ObservedAt = time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC) })
	if _, err := e.Append(nil, &late); err == nil {
		t.Error("a year that JSON does not have is written")
	}
	checkJSON(t, e, full)
}

// TestEmptyJSON expects a finding that can be used, whatever its text leaves out.
func TestEmptyJSON(t *testing.T) {
	for _, text := range []string{`{}`, `{"subject":null}`, `null`} {
		var f Finding
		if err := json.Unmarshal([]byte(text), &f); err != nil {
			t.Fatal(err)
		}
		checkJSON(t, &Encoder{}, &f)
	}
	if err := json.Unmarshal([]byte(`{"subject":1}`), &Finding{}); err == nil {
		t.Error("a subject that is a number is read")
	}
}

// TestAmend expects others that share a detail to keep it.
func TestAmend(t *testing.T) {
	a := Finding{Detail: &Detail{Reason: "old", Fix: "this"}}
	b := a
	b.Amend(func(d *Detail) { d.Reason = "new" })
	if a.Reason != "old" || b.Reason != "new" || b.Fix != "this" {
		t.Errorf("have %+v and %+v", *a.Detail, *b.Detail)
	}
}

func FuzzJSON(f *testing.F) {
	f.Add("CON-SEC-01", "title", "a\u2028b", "<&>", 0.25, int64(1))
	f.Add("", "", "\xff\x00\"", "\\", -1e-7, int64(-1))
	f.Fuzz(func(t *testing.T, control, title, message, name string, gain float64, seconds int64) {
		if math.IsNaN(gain) || math.IsInf(gain, 0) {
			return // JSON has no such number
		}
		finding := &Finding{
			Definition: &Definition{Control: control, Title: title, Frameworks: map[string][]string{title: {name}, name: {message}}},
			Detail:     &Detail{Message: message, Reason: name, ObservedAt: time.Unix(seconds%(1<<37), seconds%1e9).UTC()},
			Subject:    &Subject{Name: name, Source: message}, Status: Status(title), Gain: gain,
		}
		checkJSON(t, &Encoder{}, finding)
	})
}
