package fix_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	"github.com/kubeguardian/kubeguardian/fix"
)

// TestServerDryRun checks what is sent: an apply, or a create without a name,
// to the resource of the object, and nothing that would be stored.
func TestServerDryRun(t *testing.T) {
	var sent []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.URL.Path == "/api":
			io.WriteString(w, `{"kind":"APIVersions","versions":["v1"]}`)
		case r.URL.Path == "/apis":
			io.WriteString(w, `{"kind":"APIGroupList","apiVersion":"v1","groups":[]}`)
		case r.URL.Path == "/api/v1":
			io.WriteString(w, `{"kind":"APIResourceList","groupVersion":"v1","resources":[{"name":"pods","namespaced":true,"kind":"Pod"},{"name":"namespaces","kind":"Namespace"}]}`)
		case r.URL.Query().Get("dryRun") != "All":
			t.Errorf("%s %s is not a dry run", r.Method, r.URL)
		default:
			body, _ := io.ReadAll(r.Body)
			sent = append(sent, r.Method+" "+r.URL.Path+" "+r.Header.Get("Content-Type"))
			if strings.Contains(string(body), `"bad"`) {
				w.WriteHeader(http.StatusUnprocessableEntity)
				io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"bad is invalid","reason":"Invalid","code":422}`)
				return
			}
			w.Write(body)
		}
	}))
	defer server.Close()
	ask, err := fix.ServerDryRun(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ object, sent, err string }{
		{`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","namespace":"shop"}}`, "PATCH /api/v1/namespaces/shop/pods/a application/apply-patch+yaml", ""},
		{`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}`, "PATCH /api/v1/namespaces/default/pods/a application/apply-patch+yaml", ""},
		{`{"apiVersion":"v1","kind":"Pod","metadata":{"generateName":"a-"}}`, "POST /api/v1/namespaces/default/pods application/json", ""},
		{`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop"}}`, "PATCH /api/v1/namespaces/shop application/apply-patch+yaml", ""},
		{`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"bad"}}`, "PATCH /api/v1/namespaces/default/pods/bad application/apply-patch+yaml", "bad is invalid"},
		{`{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a"}}`, "", "find the resource of Widget"},
	}
	for _, tt := range tests {
		var o unstructured.Unstructured
		if err := json.Unmarshal([]byte(tt.object), &o.Object); err != nil {
			t.Fatal(err)
		}
		sent = nil
		err := ask(t.Context(), &o)
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %v, want %q", tt.object, err, tt.err)
		}
		if got := strings.Join(sent, ", "); got != tt.sent {
			t.Errorf("%s: sent %q, want %q", tt.object, got, tt.sent)
		}
	}
}
