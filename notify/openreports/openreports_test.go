package openreports_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/notifytest"
	"github.com/kubeguardian/kubeguardian/notify/openreports"
)

// An apiServer keeps objects by their path, with versions, as the real one does.
type apiServer struct {
	mu      sync.Mutex
	objects map[string]map[string]any
	meddle  func(path string) // before an object is changed
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.objects == nil {
		s.objects = map[string]map[string]any{}
	}
	if r.Method == http.MethodGet {
		o, there := s.objects[r.URL.Path]
		if !there {
			w.WriteHeader(http.StatusNotFound)
		}
		json.NewEncoder(w).Encode(o)
		return
	}
	body, _ := io.ReadAll(r.Body)
	var o map[string]any
	if err := json.Unmarshal(body, &o); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	meta, path := o["metadata"].(map[string]any), r.URL.Path
	if r.Method == http.MethodPost {
		path += "/" + meta["name"].(string)
	}
	if s.meddle != nil {
		s.meddle(path)
	}
	had, there := s.objects[path]
	version := 0
	if there {
		version = int(had["metadata"].(map[string]any)["resourceVersion"].(float64))
	}
	if sent, _ := meta["resourceVersion"].(float64); there != (r.Method == http.MethodPut) || int(sent) != version {
		w.WriteHeader(http.StatusConflict)
		return
	}
	meta["resourceVersion"] = float64(version + 1)
	s.objects[path] = o
	json.NewEncoder(w).Encode(o)
}

func (s *apiServer) results(t *testing.T, path string) []map[string]any {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []map[string]any
	results, _ := s.objects[path]["results"].([]any)
	for _, r := range results {
		out = append(out, r.(map[string]any))
	}
	return out
}

func build(t *testing.T, c openreports.Config, s *apiServer) notify.Destination {
	t.Helper()
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	d, err := openreports.New(c, notify.Options{Name: "under-test", Cluster: "prod"}, srv.Client(), srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

const shop = "/apis/openreports.io/v1alpha1/namespaces/shop/reports/kubeguardian-alerts"

func TestReports(t *testing.T) {
	var s apiServer
	d := build(t, openreports.Config{Kinds: []string{"reports", "policyreports"}, Results: 4}, &s)
	batch := notifytest.Notifications(6)
	batch[4].Alert.Subject = finding.Subject{APIVersion: "v1", Kind: "Node", Name: "node-1"}
	batch[5].Alert.Subject.Namespace = "../../../api/v1/secrets"
	for _, b := range [][]notify.Notification{batch[:2], batch[1:], batch} {
		if err := d.Send(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]int{
		shop: 4,
		"/apis/openreports.io/v1alpha1/clusterreports/kubeguardian-alerts":                2,
		"/apis/wgpolicyk8s.io/v1alpha2/namespaces/shop/policyreports/kubeguardian-alerts": 4,
		"/apis/wgpolicyk8s.io/v1alpha2/clusterpolicyreports/kubeguardian-alerts":          2,
	} {
		if got := s.results(t, path); len(got) != want {
			t.Errorf("%s has %d results, want %d", path, len(got), want)
		}
	}
	if len(s.objects) != 4 {
		t.Errorf("%d objects", len(s.objects))
	}
	o := s.objects[shop]
	if o["kind"] != "Report" || o["source"] != "kubeguardian" || fmt.Sprint(o["summary"]) != "map[error:0 fail:4 pass:0 skip:0 warn:0]" {
		t.Errorf("report %v", o)
	}
	r := s.results(t, shop)[0]
	if r["policy"] != "Secret read by exec" || r["result"] != "fail" || r["severity"] != "critical" || r["description"] != batch[0].Alert.Output ||
		fmt.Sprint(r["subjects"]) != "[map[apiVersion:v1 kind:Pod name:web namespace:shop]]" || r["properties"].(map[string]any)["kubeguardian.dev/key"] != batch[0].Key {
		t.Errorf("result %v", r)
	}
	p := s.results(t, "/apis/wgpolicyk8s.io/v1alpha2/namespaces/shop/policyreports/kubeguardian-alerts")[0]
	if p["message"] != batch[0].Alert.Output || p["resources"] == nil || p["subjects"] != nil {
		t.Errorf("result %v", p)
	}
}

func TestLatestAreKept(t *testing.T) {
	var s apiServer
	d := build(t, openreports.Config{Results: 3}, &s)
	batch := notifytest.Notifications(7)
	for _, b := range [][]notify.Notification{batch[:3], batch[3:]} {
		if err := d.Send(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	for i, r := range s.results(t, shop) {
		if key := r["properties"].(map[string]any)["kubeguardian.dev/key"]; key != batch[4+i].Key {
			t.Errorf("result %d has key %v", i, key)
		}
	}
}

// TestSomebodyElse: a change of others is not overwritten.
func TestSomebodyElse(t *testing.T) {
	var s apiServer
	d := build(t, openreports.Config{}, &s)
	batch := notifytest.Notifications(2)
	if err := d.Send(t.Context(), batch[:1]); err != nil {
		t.Fatal(err)
	}
	s.meddle = func(path string) {
		s.objects[path]["metadata"].(map[string]any)["resourceVersion"] = float64(7)
		s.objects[path]["theirs"] = true
	}
	err := d.Send(t.Context(), batch[1:])
	if err == nil || notify.IsPermanent(err) || !strings.Contains(err.Error(), "under-test: somebody else has changed") {
		t.Errorf("%v, want an error that is worth another attempt", err)
	}
	s.meddle = nil
	if err := d.Send(t.Context(), batch[1:]); err != nil || s.objects[shop]["theirs"] != true || len(s.results(t, shop)) != 2 {
		t.Errorf("%v: %v", err, s.objects[shop])
	}
}

func TestConforms(t *testing.T) {
	notifytest.HTTP{
		New: func(t *testing.T, to notifytest.Target) notify.Destination {
			u, err := url.Parse(to.URL)
			if err != nil {
				t.Fatal(err)
			}
			d, err := openreports.New(openreports.Config{}, to.Options, &http.Client{}, "http://"+u.Host)
			if err != nil {
				t.Fatal(err)
			}
			return d
		},
		Accept: func(t *testing.T, w http.ResponseWriter, r *http.Request, body []byte) {
			if r.Method == http.MethodGet {
				io.WriteString(w, `{"metadata":{"name":"kubeguardian-alerts","resourceVersion":"1"}}`)
				return
			}
			if r.Method != http.MethodPut || !json.Valid(body) {
				t.Errorf("%s %s", r.Method, r.URL)
			}
			w.Write(body)
		},
	}.Conform(t)
}

func TestConfig(t *testing.T) {
	for want, c := range map[string]openreports.Config{
		"kinds: want reports":    {Kinds: []string{"reports", "reports"}},
		"results: want 1 to 200": {Results: 1000},
		`have ["pods"]`:          {Kinds: []string{"pods"}},
	} {
		if _, err := openreports.New(c, notify.Options{}, &http.Client{}, "http://a"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
}

func TestAnotherCluster(t *testing.T) {
	batch := notifytest.Notifications(1)
	batch[0].Alert.Cluster = "edge"
	if err := build(t, openreports.Config{}, &apiServer{}).Send(t.Context(), batch); !notify.IsPermanent(err) {
		t.Errorf("%v", err)
	}
}
