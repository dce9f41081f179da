package export_test

import (
	"encoding/csv"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/kubeguardian/kubeguardian/web/export"
)

// TestFormulas: no cell is a formula, also to who trims it or sees not all of it.
func TestFormulas(t *testing.T) {
	send := func(w http.ResponseWriter, data []byte) error { _, err := w.Write(data); return err }
	for cell, formula := range map[string]bool{
		"=1": true, "+1": true, "-1": true, "@x": true, "＝1": true, " =1": true, "\u00a0=1": true, "\ufeff=1": true, "\u200b \u202e@x": true, "\t1": true, "\x00=1": true,
		"": false, " ": false, "a=1": false, "192.0.2.1": false, "'=1": false, " a": false,
	} {
		r := httptest.NewRecorder()
		w := &export.Writer{W: r, Send: send, Name: "list", CSV: true, Columns: []string{"a", "b"}}
		if err := errors.Join(w.Add(nil, "first", cell), w.End()); err != nil {
			t.Fatal(err)
		}
		rows, err := csv.NewReader(r.Body).ReadAll()
		if err != nil || len(rows) != 2 {
			t.Fatalf("%q: %q, %v", cell, rows, err)
		}
		if want := map[bool]string{true: "'" + cell, false: cell}[formula]; rows[1][1] != want {
			t.Errorf("%q is written as %q", cell, rows[1][1])
		}
	}
}

func TestWriter(t *testing.T) {
	send := func(w http.ResponseWriter, data []byte) error { _, err := w.Write(data); return err }
	for csv, want := range map[bool]string{true: "a,b\n'=1+1,'@x\n\"x,y\",'-\n", false: "[{\"A\":\"=1+1\"},\n{\"A\":\"x,y\"}]\n"} {
		r := httptest.NewRecorder()
		w := &export.Writer{W: r, Send: send, Name: "list", CSV: csv, Columns: []string{"a", "b"}}
		for _, row := range [][]string{{"=1+1", "@x"}, {"x,y", "-"}} {
			if err := w.Add(map[string]string{"A": row[0][:1] + row[0][1:]}, row...); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.End(); err != nil {
			t.Fatal(err)
		}
		if r.Body.String() != want || !w.Begun || w.Rows != 2 || r.Header().Get("Content-Disposition") == "" {
			t.Errorf("have %q", r.Body)
		}
	}
}
