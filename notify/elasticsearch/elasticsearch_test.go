package elasticsearch_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/elasticsearch"
	"github.com/kubeguardian/kubeguardian/notify/notifytest"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

// server is an index: it speaks the bulk API and keeps what is created.
type server struct {
	mu     sync.Mutex
	docs   map[string]map[string]any // by index and id
	status func(id string) int       // of documents that it does not take
}

func (s *server) bulk(t *testing.T, w http.ResponseWriter, r *http.Request, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !strings.HasSuffix(r.URL.Path, "/_bulk") || r.Header.Get("Content-Type") != "application/x-ndjson" || !bytes.HasSuffix(body, []byte("\n")) {
		t.Errorf("%s %s %q", r.Method, r.URL, r.Header)
	}
	lines := bytes.Split(bytes.TrimSuffix(body, []byte("\n")), []byte("\n"))
	var items []string
	for i := 0; i+1 < len(lines); i += 2 {
		var action struct {
			Create struct {
				Index string `json:"_index"`
				ID    string `json:"_id"`
			} `json:"create"`
		}
		var doc map[string]any
		if err := json.Unmarshal(lines[i], &action); err != nil {
			t.Error(err)
		}
		if err := json.Unmarshal(lines[i+1], &doc); err != nil {
			t.Error(err)
		}
		key := action.Create.Index + "/" + action.Create.ID
		status := http.StatusCreated
		if s.status != nil && s.status(action.Create.ID) != 0 {
			status = s.status(action.Create.ID)
		} else if s.docs[key] != nil {
			status = http.StatusConflict
		} else {
			if s.docs == nil {
				s.docs = map[string]map[string]any{}
			}
			s.docs[key] = doc
		}
		item := fmt.Sprintf(`{"create":{"status":%d}}`, status)
		if status >= 300 {
			item = fmt.Sprintf(`{"create":{"status":%d,"error":{"type":"some_exception","reason":%q}}}`, status, lines[i+1])
		}
		items = append(items, item)
	}
	fmt.Fprintf(w, `{"errors":true,"items":[%s]}`, strings.Join(items, ","))
}

func build(t *testing.T, c elasticsearch.Config) notify.Destination {
	t.Helper()
	c.HTTP.AllowAddresses = []string{"127.0.0.1"}
	d, err := elasticsearch.New(c, notify.Options{Name: "under-test", Cluster: "prod", Version: "1.2.3"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestConforms(t *testing.T) {
	var s server
	notifytest.HTTP{
		New: func(t *testing.T, to notifytest.Target) notify.Destination {
			d, err := elasticsearch.New(elasticsearch.Config{
				URL: to.URL, Auth: post.Auth{TokenFile: to.SecretFile}, HTTP: post.Config{AllowAddresses: []string{"127.0.0.1"}},
			}, to.Options)
			if err != nil {
				t.Fatal(err)
			}
			return d
		},
		Accept: func(t *testing.T, w http.ResponseWriter, r *http.Request, body []byte) {
			if got := r.Header.Get("Authorization"); got != "ApiKey token-S3cr3tOfTheFile" {
				t.Errorf("Authorization %q", got)
			}
			s.bulk(t, w, r, body)
		},
	}.Conform(t)
}

// listen returns the URL of a server.
func listen(t *testing.T, s *server) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		s.bulk(t, w, r, body)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestSentAgainIsThereOnce(t *testing.T) {
	var s server
	d := build(t, elasticsearch.Config{URL: listen(t, &s), Daily: true})
	batch := notifytest.Notifications(20)
	for range 3 {
		if err := d.Send(context.Background(), batch); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.docs) != len(batch) {
		t.Errorf("%d documents, want %d", len(s.docs), len(batch))
	}
	doc := s.docs["kubeguardian-alerts-2026.11.26/"+batch[0].Key]
	fields, _ := doc["output_fields"].(map[string]any)
	if doc["@timestamp"] != "2026-11-26T12:00:00.123456789Z" || fields["k8s_ns_name"] != "shop" || fields["proc_pid"] != "9007199254740993" || doc["rule"] != "Secret read by exec" {
		t.Errorf("document %v", doc)
	}
	if _, there := fields["k8s_none"]; there {
		t.Errorf("a field without a value is there: %v", fields)
	}
}

// TestEachDocumentIsJudged: the status of the whole says nothing.
func TestEachDocumentIsJudged(t *testing.T) {
	batch := notifytest.Notifications(3)
	for _, tc := range []struct {
		statuses  []int
		permanent bool
		want      string
	}{
		{[]int{201, 429, 201}, false, "1 of 3 documents cannot be written now: status 429 some_exception"},
		{[]int{400, 503, 201}, false, "1 of 3 documents cannot be written now"},
		{[]int{400, 201, 403}, true, "2 of 3 documents are refused: status 400 some_exception"},
		{[]int{409, 409, 409}, false, ""},
	} {
		s := server{status: func(id string) int {
			for i, n := range batch {
				if n.Key == id && tc.statuses[i] != 201 {
					return tc.statuses[i]
				}
			}
			return 0
		}}
		err := build(t, elasticsearch.Config{URL: listen(t, &s)}).Send(t.Context(), batch)
		if tc.want == "" {
			if err != nil {
				t.Errorf("%v: %v", tc.statuses, err)
			}
			continue
		}
		if err == nil || notify.IsPermanent(err) != tc.permanent || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v: permanent %t, %v", tc.statuses, notify.IsPermanent(err), err)
		}
		if err != nil && strings.Contains(err.Error(), "shop") {
			t.Errorf("the error repeats the document: %v", err)
		}
	}
}

func TestNotABulkAPI(t *testing.T) {
	for _, answer := range []string{"", "{}", "<html>", `{"items":[]}`, `[]`} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, answer) }))
		err := build(t, elasticsearch.Config{URL: srv.URL}).Send(t.Context(), notifytest.Notifications(1))
		srv.Close()
		if err == nil || notify.IsPermanent(err) || !strings.Contains(err.Error(), "under-test: the answer is not that of a bulk API") {
			t.Errorf("%q: %v", answer, err)
		}
	}
}

func TestConfig(t *testing.T) {
	for want, c := range map[string]elasticsearch.Config{
		"url: want one that":         {URL: "elasticsearch:9200"},
		"index: want lower-case":     {URL: "http://a", Index: "../_all"},
		"user and passwordFile":      {URL: "http://a", Auth: post.Auth{User: "u"}},
		"give it or a user":          {URL: "http://a", Auth: post.Auth{User: "u", PasswordFile: "p", TokenFile: "t"}},
		"certFile and keyFile: give": {URL: "http://a", HTTP: post.Config{CertFile: "c"}},
	} {
		if _, err := elasticsearch.New(c, notify.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
}
