package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/delivery"
	"github.com/kubeguardian/kubeguardian/notify/webhook"
)

const hostile = `<script>alert(1)</script>`

// deliverTo gives the site a webhook, and messages to it: one that waits after an
// attempt, two dead letters, one that was delivered.
func (s *site) deliverTo(t *testing.T, to string) {
	t.Helper()
	c, err := config.Parse("config.yaml", []byte(fmt.Sprintf(`
notify:
  destinations:
  - {name: hook, type: webhook, config: {url: %q, http: {allowAddresses: [127.0.0.1]}}}
  - {name: idle, type: webhook, config: {url: %[1]q}}`, to)))
	if err != nil {
		t.Fatal(err)
	}
	n, err := notify.New(notify.Setup{Config: &c.Notify, Cluster: "test", Store: s.store, Types: map[string]notify.Constructor{"webhook": notify.Construct(webhook.New)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	s.Options.Deliveries = deliveries{n, s.store}
	now := time.Now().Add(-time.Minute).UTC()
	var messages []delivery.Message
	for i := range 4 {
		messages = append(messages, delivery.Message{
			Destination: "hook", Key: fmt.Sprint("key-", i), State: delivery.Waiting, Title: fmt.Sprint("message ", i, hostile), Created: now, Due: now, Next: now, Until: now,
			Count: 1, First: now, Last: now, Body: json.RawMessage("{}"),
		})
	}
	added, _, err := s.store.Enqueue(t.Context(), messages, delivery.Progress{}, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.store.Claim(t.Context(), "hook", 4, time.Now()); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour)
	if err := s.store.Finish(t.Context(), []delivery.Result{
		{Seq: added[0].Seq, State: delivery.Dead, Reason: "answer 400 Bad Request " + hostile, Next: later}, {Seq: added[1].Seq, State: delivery.Dead, Reason: "answer 404 Not Found", Next: later},
		{Seq: added[2].Seq, State: delivery.Delivered, Next: later}, {Seq: added[3].Seq, State: delivery.Waiting, Reason: "answer 503 Service Unavailable", Next: later},
	}, time.Now()); err != nil {
		t.Fatal(err)
	}
}

// post sends JSON to the API.
func (s *site) post(t *testing.T, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequest("POST", s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+testToken)
	code, answer, _ := s.visitor(t).read(http.DefaultClient.Do(req))
	return code, answer
}

func TestDeliveriesAPI(t *testing.T) {
	refuse := true
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if refuse {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, "S3cret")
		}
	}))
	defer hook.Close()
	s := newSite(t)
	if code, body := s.bearer(t, "/api/v1/destinations", testToken); code != http.StatusOK || len(body["items"].([]any)) != 0 {
		t.Errorf("without any: %d %v", code, body)
	}
	s.deliverTo(t, hook.URL)
	code, body := s.bearer(t, "/api/v1/destinations", testToken)
	list := body["items"].([]any)
	if first := list[0].(map[string]any); code != http.StatusOK || len(list) != 2 || first["name"] != "hook" || first["type"] != "webhook" || first["waiting"] != 1.0 || first["dead"] != 2.0 ||
		first["delivered"] != 1.0 || first["attempts"] != 1.0 || first["reason"] != "answer 503 Service Unavailable" {
		t.Errorf("destinations: %d %v", code, body)
	}
	code, body = s.bearer(t, "/api/v1/deliveries?state=dead&destination=hook&limit=1", testToken)
	dead := body["items"].([]any)[0].(map[string]any)
	if code != http.StatusOK || dead["reason"] != "answer 404 Not Found" || dead["state"] != "dead" || body["next"] == "" {
		t.Errorf("dead letters: %d %v", code, body)
	}
	if code, body := s.bearer(t, fmt.Sprint("/api/v1/deliveries?state=dead&before=", body["next"]), testToken); code != http.StatusOK || len(body["items"].([]any)) != 1 || body["next"] != nil {
		t.Errorf("the next page: %d %v", code, body)
	}
	for query, want := range map[string]string{"?state=odd": "want one of", "?before=x": "before", "?tested=a": "unknown parameter"} {
		if code, body := s.bearer(t, "/api/v1/deliveries"+query, testToken); code != http.StatusBadRequest || !strings.Contains(fmt.Sprint(body["error"]), want) {
			t.Errorf("%s: %d %v", query, code, body)
		}
	}
	for _, c := range []struct {
		path, body string
		code       int
		want       string
	}{
		{"hook/retry", `{"seq":` + fmt.Sprint(dead["seq"]) + `}`, 200, `"queued":1`},
		{"hook/retry", `{"seq":` + fmt.Sprint(dead["seq"]) + `}`, 404, "no dead letter"},
		{"hook/retry", ``, 200, `"queued":1`},
		{"hook/retry", `{"all":true}`, 400, "unknown field"},
		{"hook/retry", `{"seq":-1}`, 400, "seq"},
		{"none/retry", ``, 404, "no destination"},
		{"none/test", ``, 404, "no destination"},
		{"hook/test", ``, 502, "answer 403 Forbidden"},
	} {
		code, answer := s.post(t, "/api/v1/destinations/"+c.path, c.body)
		if code != c.code || !strings.Contains(answer, c.want) || strings.Contains(answer, "S3cret") {
			t.Errorf("%s %s: %d %s", c.path, c.body, code, answer)
		}
	}
	refuse = false
	if code, answer := s.post(t, "/api/v1/destinations/hook/test", ""); code != http.StatusOK || !strings.Contains(answer, `"delivered":true`) {
		t.Errorf("a test that succeeds: %d %s", code, answer)
	}
}

func TestDeliveriesPage(t *testing.T) {
	took := 0
	hook := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { took++ }))
	defer hook.Close()
	s := newSite(t)
	if _, body := s.member(t).get("/deliveries"); !strings.Contains(body, "nobody is told of anything") {
		t.Errorf("without destinations: %s", body)
	}
	s.deliverTo(t, hook.URL)
	v := s.member(t)
	_, body := v.get("/deliveries")
	checkText(t, body, []string{"hook", "idle", "tried 1 time", "answer 503 Service Unavailable", "message 3", "answer 404 Not Found", "Retry all", "Send a test message to hook", "&lt;script&gt;"}, []string{hostile})
	if _, body := v.get("/deliveries?state=delivered"); !strings.Contains(body, "message 2") || strings.Contains(body, "message 1") {
		t.Errorf("delivered: %s", body)
	}
	if _, body := s.memberBy(t, "viewer").get("/deliveries"); strings.Contains(body, ">Test</button>") || strings.Contains(body, "Retry") || !strings.Contains(body, "message 3") {
		t.Errorf("a viewer sees %s", body)
	}
	if code, body, path := v.read(v.PostForm(s.url+"/deliveries/hook/test", nil)); code != http.StatusOK || path != "/deliveries?tested=hook" || !strings.Contains(body, "hook has taken a test message") || took != 1 {
		t.Errorf("a test: %d %s %s", code, path, body)
	}
	if _, body := v.get("/deliveries?tested=nobody"); strings.Contains(body, "has taken") {
		t.Error("a page says what is not true")
	}
	if code, body, _ := v.read(v.PostForm(s.url+"/deliveries/idle/test", nil)); code != http.StatusBadGateway || !strings.Contains(body, "allowAddresses") {
		t.Errorf("a test that fails: %d %s", code, body)
	}
	if code, body, _ := v.read(v.PostForm(s.url+"/deliveries/hook/retry", url.Values{"seq": {"1"}})); code != http.StatusOK || !strings.Contains(body, "Retry all") {
		t.Errorf("one again: %d %s", code, body)
	}
	if code, body, _ := v.read(v.PostForm(s.url+"/deliveries/hook/retry", nil)); code != http.StatusOK || strings.Contains(body, "Retry all") {
		t.Errorf("all again: %d %s", code, body)
	}
	if code, _, _ := v.read(v.PostForm(s.url+"/deliveries/hook/retry", url.Values{"seq": {"x"}})); code != http.StatusBadRequest {
		t.Errorf("no number: %d", code)
	}
}
