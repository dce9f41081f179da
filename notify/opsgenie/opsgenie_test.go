package opsgenie_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/notifytest"
	"github.com/kubeguardian/kubeguardian/notify/opsgenie"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

type message struct {
	Message, Alias, Description, Entity, Source, Priority string
	Responders                                            []struct{ Name, Type string }
	Tags                                                  []string
	Details                                               map[string]string
}

// TestConforms holds alerts to the bounds of the Alert API.
func TestConforms(t *testing.T) {
	var got []message
	notifytest.HTTP{
		New: func(t *testing.T, to notifytest.Target) notify.Destination {
			d, err := opsgenie.New(opsgenie.Config{KeyFile: to.SecretFile, URL: to.URL, Teams: []string{"sec"}, HTTP: post.Config{AllowAddresses: []string{"127.0.0.1"}}}, to.Options)
			if err != nil {
				t.Fatal(err)
			}
			return d
		},
		Accept: func(t *testing.T, w http.ResponseWriter, r *http.Request, body []byte) {
			var m message
			if err := json.Unmarshal(body, &m); err != nil || !strings.HasSuffix(r.URL.Path, "/v2/alerts") || r.Header.Get("Authorization") != "GenieKey token-S3cr3tOfTheFile" ||
				m.Message == "" || len([]rune(m.Message)) > 130 || m.Alias == "" || len(m.Alias) > 512 || len([]rune(m.Description)) > 15000 || len(m.Tags) > 20 || m.Priority != "P1" {
				t.Errorf("%s %v: %.300s", r.URL, err, body)
			}
			got = append(got, m)
			w.WriteHeader(http.StatusAccepted)
			io.WriteString(w, `{"result":"Request will be processed","took":0.3,"requestId":"x"}`)
		},
	}.Conform(t)
	if m := got[0]; m.Message != "Critical: Secret read by exec" || m.Alias != notifytest.Notifications(1)[0].Key || m.Entity != "shop/web" || m.Responders[0].Name != "sec" ||
		m.Details["Cluster"] != "prod" || len(m.Tags) != 2 || !strings.Contains(m.Description, "https://guardian.example/alerts/") {
		t.Errorf("an alert is %+v", m)
	}
}

func TestConfiguration(t *testing.T) {
	for want, c := range map[string]opsgenie.Config{"keyFile": {}, "want http": {KeyFile: "a", URL: "b"}, "timeout": {KeyFile: "a", HTTP: post.Config{Timeout: -1}}} {
		if _, err := opsgenie.New(c, notify.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
