package pagerduty_test

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/notifytest"
	"github.com/kubeguardian/kubeguardian/notify/pagerduty"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

// event is what the Events API demands.
type event struct {
	RoutingKey string `json:"routing_key"`
	Action     string `json:"event_action"`
	DedupKey   string `json:"dedup_key"`
	ClientURL  string `json:"client_url"`
	Payload    struct {
		Summary, Source, Severity, Group, Timestamp string
		Details                                     map[string]string `json:"custom_details"`
	}
}

func TestConforms(t *testing.T) {
	var got []event
	var changes []string // what became of them
	notifytest.HTTP{
		New: func(t *testing.T, to notifytest.Target) notify.Destination {
			d, err := pagerduty.New(pagerduty.Config{KeyFile: to.SecretFile, URL: to.URL, HTTP: post.Config{AllowAddresses: []string{"127.0.0.1"}}}, to.Options)
			if err != nil {
				t.Fatal(err)
			}
			return d
		},
		Accept: func(t *testing.T, w http.ResponseWriter, _ *http.Request, body []byte) {
			var e event
			if err := json.Unmarshal(body, &e); err != nil {
				t.Errorf("%v: %.300s", err, body)
			}
			if e.Action != "trigger" {
				changes = append(changes, e.Action+" "+e.DedupKey)
				if e.RoutingKey != "token-S3cr3tOfTheFile" || strings.Contains(string(body), "payload") || e.ClientURL != "" {
					t.Errorf("got %.300s", body)
				}
				w.WriteHeader(http.StatusAccepted)
				return
			}
			if e.RoutingKey != "token-S3cr3tOfTheFile" || e.Action != "trigger" || e.DedupKey == "" || len(e.DedupKey) > 255 || e.Payload.Summary == "" || len([]rune(e.Payload.Summary)) > 1024 ||
				e.Payload.Source == "" || e.Payload.Severity != "critical" || e.Payload.Timestamp == "" || len(body) > 512<<10 {
				t.Errorf("got %.300s", body)
			}
			got = append(got, e)
			w.WriteHeader(http.StatusAccepted)
			io.WriteString(w, `{"status":"success","message":"Event processed"}`)
		},
	}.Conform(t)
	want := notifytest.Notifications(3)
	if e := got[0]; e.Payload.Summary != "Critical: Secret read by exec" || e.DedupKey != want[0].Key || e.Payload.Details["Pod"] != "shop/web" || e.Payload.Group != "shop" || e.ClientURL != want[0].URL {
		t.Errorf("an alert is %+v", e)
	}
	key := want[2].Key
	if first := changes[:3]; !slices.Equal(first, []string{"acknowledge " + key, "acknowledge " + key, "resolve " + key}) {
		t.Errorf("one that is acknowledged, contained and closed is %q", first)
	}
	if e := got[2]; !strings.HasPrefix(e.Payload.Summary, "Incident, Critical: eve") || e.DedupKey != want[2].Key {
		t.Errorf("an incident is %+v", e)
	}
}

func TestConfiguration(t *testing.T) {
	for want, c := range map[string]pagerduty.Config{"keyFile": {}, "want http": {KeyFile: "a", URL: "b"}, "timeout": {KeyFile: "a", HTTP: post.Config{Timeout: -1}}} {
		if _, err := pagerduty.New(c, notify.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if _, err := pagerduty.New(pagerduty.Config{KeyFile: "a"}, notify.Options{}); err != nil {
		t.Error(err)
	}
}
