package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/notify"
)

// TestDeliveries has audit events become alerts that a webhook gets, once it
// works, and tells of its metrics by the names that dashboards know.
func TestDeliveries(t *testing.T) {
	var down atomic.Bool
	down.Store(true)
	got := make(chan map[string]any, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body map[string]any
		switch err := json.NewDecoder(r.Body).Decode(&body); {
		case err != nil:
			t.Error(err)
		case down.CompareAndSwap(true, false):
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			got <- body
		}
	}))
	defer hook.Close()
	r := start(t, options(t, t.TempDir(), fmt.Sprintf(`
notify:
  url: https://guardian.example
  destinations:
  - {name: Hook, type: webhook, minBackoff: 100ms, config: {url: %q, http: {allowAddresses: [127.0.0.1]}}}
  routes:
  - {to: [Hook], of: alerts, groupWait: 0s}`, hook.URL)))
	if code, body := r.webhook("/audit", eventList(t)); code != http.StatusOK {
		t.Fatalf("%d %s", code, body)
	}
	select {
	case body := <-got:
		if body["cluster"] != "test" || !strings.HasPrefix(body["url"].(string), "https://guardian.example/alerts/") || body["output_fields"] == nil || body["uuid"] == "" {
			t.Errorf("got %v", body)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("nothing arrived")
	}
	missing := ""
	for range 1200 {
		_, metrics := r.page("/metrics")
		missing = ""
		for _, want := range []string{
			`falcosecurity_falcosidekick_outputs_total{destination="hook",status="ok"}`,
			`falcosecurity_falcosidekick_outputs_total{destination="hook",status="error"} 1`,
			`falcosecurity_falcosidekick_falco_events_total{k8s_ns_name="`,
			`kubeguardian_deliveries_total{destination="Hook",outcome="retried"} 1`,
			`kubeguardian_delivery_queue_messages{destination="Hook"} 0`,
			`kubeguardian_delivery_queue_oldest_seconds{destination="Hook"} 0`,
			`kubeguardian_delivery_dead_letters{destination="Hook"} 0`,
			`kubeguardian_notifications_suppressed_total{cause="group"}`,
		} {
			if !strings.Contains(metrics, want) {
				missing = want
			}
		}
		if missing == "" {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Error("metrics are missing, such as", missing)
}

func TestDeliveriesAreConfiguredStrictly(t *testing.T) {
	for text, want := range map[string]string{
		"{name: a, type: carrier-pigeon}":                                  `config.yaml:7: notify.destinations[0].type: unknown value "carrier-pigeon": want one of`,
		"{name: a, type: webhook, config: {ulr: 'http://a'}}":              `config.yaml:7: unknown key "notify.destinations[0].config.ulr": did you mean "url"?`,
		"{name: a, type: webhook, config: {format: falco}}":                `config.yaml:7: notify.destinations[0].config: destination a: give one of url and urlFile`,
		"{name: a, type: webhook, config: {url: 'http://b', method: GET}}": `config.yaml:7: notify.destinations[0].config: destination a: method "GET"`,
	} {
		s, err := New(t.Context(), options(t, t.TempDir(), "notify:\n  destinations:\n  - "+text))
		if err == nil {
			s.Stop()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\nhave %v\nwant %s", text, err, want)
		}
	}
	s, err := New(t.Context(), options(t, t.TempDir(), "notify:\n  destinations: [{name: a, type: webhook, config: {url: 'http://a'}}]\n  routes:\n  - {to: [a], match: ['rule']}"))
	if err == nil {
		s.Stop()
	}
	if err == nil || !strings.Contains(err.Error(), "config.yaml:8: notify.routes[0].match[0]: condition") {
		t.Errorf("have %v", err)
	}
}

// TestDocumentedDestinations makes the destinations that the documentation shows,
// and wants each kind of them to be shown by the README of its folder.
func TestDocumentedDestinations(t *testing.T) {
	index, err := os.ReadFile("../docs/notify.md")
	if err != nil {
		t.Fatal(err)
	}
	if shown := blocksOf(index, "yaml config"); len(shown) == 0 {
		t.Error("docs/notify.md shows no configuration")
	} else if err := makeDestinations(t, "docs/notify.md", shown[0]); err != nil {
		t.Error(err)
	}
	for name := range destinations(silent(t)) {
		page := "notify/" + name + "/README.md"
		readme, err := os.ReadFile("../" + page)
		if err != nil {
			t.Error(err)
			continue
		}
		shown := 0
		for _, block := range blocksOf(readme, "yaml") {
			if !strings.HasPrefix(block, "type: ") {
				continue
			}
			shown++
			yaml := "notify:\n  destinations:\n  - name: shown\n    " + strings.ReplaceAll(block, "\n", "\n    ")
			if err := makeDestinations(t, page, yaml); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
		}
		if shown == 0 {
			t.Errorf("%s shows no configuration", page)
		}
		if !strings.Contains(string(index), "\n| ["+name+"](../"+page+") |") {
			t.Errorf("docs/notify.md does not list %s", name)
		}
	}
}

func blocksOf(page []byte, info string) (blocks []string) {
	for _, rest := range strings.Split(string(page), "\n```"+info+"\n")[1:] {
		block, _, _ := strings.Cut(rest, "\n```")
		blocks = append(blocks, block)
	}
	return blocks
}

// makeDestinations makes what a configuration says. The files that it names need
// not be there: those are the reader's own.
func makeDestinations(t *testing.T, page, yaml string) error {
	t.Helper()
	cfg, err := config.Parse(page, []byte(yaml))
	if err != nil {
		return err
	}
	n, err := notify.New(notify.Setup{Config: &cfg.Notify, Types: destinations(silent(t))})
	if err != nil {
		return err
	}
	return n.Close()
}
