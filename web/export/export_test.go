package export_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/kubeguardian/kubeguardian/web/export"
)

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
