package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/quick"
	"unicode/utf8"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/finding"
)

var update = flag.Bool("update", false, "write the golden files anew")

// load reads testdata/<name>.json: a report, and its fixes, which JSON leaves
// out.
func load(t *testing.T, name string) *Report {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var r Report
	fixes := struct{ Fixes *[]control.Fix }{&r.Fixes}
	if err := errors.Join(json.Unmarshal(data, &r), json.Unmarshal(data, &fixes)); err != nil {
		t.Fatal(err)
	}
	return &r
}

func write(t *testing.T, f Format, r *Report) string {
	t.Helper()
	var b strings.Builder
	if err := f.Write(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestText(t *testing.T) {
	tests := []struct {
		golden, report string
		format         Text
	}{
		{"mixed-80", "mixed", Text{Width: 80}},
		{"mixed-120", "mixed", Text{Width: 120}},
		{"mixed-log", "mixed", Text{}},
		{"mixed-all", "mixed", Text{Width: 80, All: true}},
		{"mixed-color", "mixed", Text{Width: 80, Color: true}},
		{"hostile-80", "hostile", Text{Width: 80, All: true}},
		{"empty-80", "empty", Text{Width: 80}},
	}
	for _, test := range tests {
		t.Run(test.golden, func(t *testing.T) {
			got := write(t, test.format, load(t, test.report))
			file := filepath.Join("testdata", test.golden+".golden")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("differs from %s (run with -update to accept):\n%s", file, got)
			}
		})
	}
}

// TestTextFits checks the width on lines that have a place to break.
func TestTextFits(t *testing.T) {
	for _, width := range []int{80, 100, 120} {
		for line := range strings.Lines(write(t, Text{Width: width, All: true}, load(t, "mixed"))) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > width {
				t.Errorf("%d columns at width %d: %s", n, width, line)
			}
		}
	}
}

func TestTextIsHarmless(t *testing.T) {
	for _, format := range []Format{Text{All: true}, Text{Width: 80}, JSON{}} {
		for _, r := range write(t, format, load(t, "hostile")) {
			if r != '\n' && hidden(r) {
				t.Errorf("%T writes %U", format, r)
			}
		}
	}
}

func TestJSON(t *testing.T) {
	for _, name := range []string{"mixed", "hostile", "empty"} {
		t.Run(name, func(t *testing.T) {
			want := load(t, name)
			text := write(t, JSON{}, want)
			var got Report
			dec := json.NewDecoder(strings.NewReader(text))
			dec.DisallowUnknownFields()
			if err := dec.Decode(&got); err != nil {
				t.Fatalf("%v in\n%s", err, text)
			}
			got.Fixes = want.Fixes
			if !reflect.DeepEqual(&got, want) {
				t.Errorf("reads back as\n%+v\nwant\n%+v", got, want)
			}
		})
	}
}

func TestJSONKeys(t *testing.T) {
	text := write(t, JSON{}, load(t, "mixed"))
	for _, prefix := range []string{`{"schema":"kubeguardian.dev/report/v1","catalogue":"2026.11","time":"2026-11-02T03:04:05Z","scanned":["deploy"],"score":{"total":`, `"findings":[` + "\n" + `{"control":"CON-SEC-01","title":`} {
		if !strings.Contains(text, prefix) {
			t.Errorf("no %s in\n%s", prefix, text)
		}
	}
	if text := write(t, JSON{}, &Report{}); !strings.Contains(text, `"findings":[]`) {
		t.Errorf("no findings are written as\n%s", text)
	}
}

func TestPoints(t *testing.T) {
	for _, test := range []struct {
		x    float64
		want string
	}{
		{0, "0"}, {1e-12, "0"}, {1e-6, "0.1"}, {0.04, "0.1"}, {0.26, "0.3"}, {58.8235, "58.8"},
		{99.94, "99.9"}, {99.96, "99.9"}, {100 - 1e-6, "99.9"}, {100 - 1e-12, "100"}, {100, "100"},
	} {
		if got := Points(test.x, 100); got != test.want {
			t.Errorf("Points(%v) = %s, want %s", test.x, got, test.want)
		}
	}
}

// TestBars keeps a part that exists from vanishing from a bar, and a bar from
// changing its length.
func TestBars(t *testing.T) {
	law := func(a, b, c, d uint8, width uint8) bool {
		shares, n := []float64{float64(a), float64(b), float64(c % 2), float64(d % 3)}, 20+int(width)
		sum := shares[0] + shares[1] + shares[2] + shares[3]
		if sum == 0 {
			return true
		}
		for i := range shares {
			shares[i] /= sum
		}
		total := 0
		for i, c := range cells(shares, n) {
			if total += c; (c > 0) != (shares[i] > 0) || math.Abs(float64(c)-shares[i]*float64(n)) > 4 {
				return false
			}
		}
		return total == n
	}
	if err := quick.Check(law, &quick.Config{MaxCount: 20_000}); err != nil {
		t.Error(err)
	}
}

func TestCoverageIsNotRoundedAway(t *testing.T) {
	for _, test := range []struct {
		unknown float64
		want    string
	}{{0, "100% verified"}, {0.001, " 99% verified"}, {0.4, " 60% verified"}, {0.999, "  1% verified"}, {1, "  0% verified"}} {
		if got := coverage(control.LevelScore{Unknown: test.unknown, Coverage: 1 - test.unknown}); got != test.want {
			t.Errorf("coverage with %v unknown = %q, want %q", test.unknown, got, test.want)
		}
	}
}

func TestNewSortsWorstFirst(t *testing.T) {
	catalogue, err := control.LoadCatalogue(content.Controls())
	if err != nil {
		t.Fatal(err)
	}
	f := func(status finding.Status, severity finding.Severity, id, name string) finding.Finding {
		return finding.Finding{Definition: &finding.Definition{Control: id, Severity: severity, Level: finding.Container}, Detail: &finding.Detail{}, Status: status, Subject: &finding.Subject{Kind: "Pod", Name: name}}
	}
	r := New(catalogue, []finding.Finding{
		f(finding.NotApplicable, finding.Critical, "CON-SEC-01", "d"),
		f(finding.Pass, finding.Critical, "CON-SEC-01", "c"),
		f(finding.Unknown, finding.Critical, "CON-SEC-01", "b"),
		f(finding.Fail, finding.High, "CON-SEC-05", "a"),
		f(finding.Fail, finding.Critical, "CON-SEC-01", "z"),
		f(finding.Fail, finding.Critical, "CON-SEC-01", "a"),
	})
	var got []string
	for _, f := range r.Findings {
		got = append(got, fmt.Sprintf("%s-%s", f.Status, f.Subject.Name))
	}
	if want := "fail-a fail-z fail-a unknown-b pass-c not-applicable-d"; strings.Join(got, " ") != want {
		t.Errorf("order %v, want %s", got, want)
	}
	if r.Schema != Schema || r.Catalogue != catalogue.Version() || r.Score.Total == nil || len(r.Fixes) != 2 {
		t.Errorf("report %+v", r)
	}
	if got := [...]int{r.Failures(finding.Critical), r.Failures(finding.High), r.Failures(finding.Low)}; got != [...]int{2, 3, 3} {
		t.Errorf("Failures = %v", got)
	}
	view := r.Only(finding.Cluster)
	if len(view.Findings) != 0 || len(view.Fixes) != 0 || !reflect.DeepEqual(view.Score, r.Score) || len(r.Fixes) != 2 {
		t.Errorf("Only = %+v", view)
	}
}

// full is a disk without room.
type full struct{}

var errFull = errors.New("no space left on device")

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestWriteErrorsAreKept(t *testing.T) {
	for _, format := range []Format{Text{}, JSON{}} {
		if err := format.Write(full{}, load(t, "mixed")); !errors.Is(err, errFull) {
			t.Errorf("%T: %v", format, err)
		}
	}
	nan := math.NaN()
	if err := (JSON{}).Write(io.Discard, &Report{Score: control.Score{Total: &nan}}); err == nil {
		t.Error("a score that is no number is written")
	}
}

func FuzzPlain(f *testing.F) {
	f.Add("a\x1b[31mb\u202e\xff\x7f")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range Plain(s) {
			if hidden(r) {
				t.Errorf("%q has %U", Plain(s), r)
			}
		}
		text, err := json.Marshal(s)
		text = harmless(text)
		var back string
		if err != nil || json.Unmarshal(text, &back) != nil || back != strings.ToValidUTF8(s, "\ufffd") && utf8.ValidString(s) {
			t.Errorf("%q is encoded as %s: %v", s, text, err)
		}
		if bytes.ContainsFunc(text, hidden) {
			t.Errorf("%q is encoded as %q", s, text)
		}
	})
}
