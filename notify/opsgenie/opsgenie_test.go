package opsgenie_test

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
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

// amendment is what is said of an alert that is acknowledged or closed.
type amendment struct{ User, Source, Note string }

// TestConforms holds alerts to the bounds of the Alert API.
func TestConforms(t *testing.T) {
	var got []message
	var changes []string // what became of them
	notifytest.HTTP{
		New: func(t *testing.T, to notifytest.Target) notify.Destination {
			d, err := opsgenie.New(opsgenie.Config{KeyFile: to.SecretFile, URL: to.URL, Teams: []string{"sec"}, HTTP: post.Config{AllowAddresses: []string{"127.0.0.1"}}}, to.Options)
			if err != nil {
				t.Fatal(err)
			}
			return d
		},
		Accept: func(t *testing.T, w http.ResponseWriter, r *http.Request, body []byte) {
			w.WriteHeader(http.StatusAccepted)
			if _, change, is := strings.Cut(r.URL.RequestURI(), "/v2/alerts/"); is {
				var c amendment
				if err := json.Unmarshal(body, &c); err != nil || r.Method != http.MethodPost || r.Header.Get("Authorization") != "GenieKey token-S3cr3tOfTheFile" ||
					len([]rune(c.User)) > 100 || len([]rune(c.Note)) > 25000 || c.Source == "" {
					t.Errorf("%s %v: %.300s", r.URL, err, body)
				}
				changes = append(changes, change+" "+c.User+" "+c.Note)
				return
			}
			var m message
			if err := json.Unmarshal(body, &m); err != nil || !strings.HasSuffix(r.URL.Path, "/v2/alerts") || r.Header.Get("Authorization") != "GenieKey token-S3cr3tOfTheFile" ||
				m.Message == "" || len([]rune(m.Message)) > 130 || m.Alias == "" || len(m.Alias) > 512 || len([]rune(m.Description)) > 15000 || len(m.Tags) > 20 || m.Priority != "P1" {
				t.Errorf("%s %v: %.300s", r.URL, err, body)
			}
			got = append(got, m)
			io.WriteString(w, `{"result":"Request will be processed","took":0.3,"requestId":"x"}`)
		},
	}.Conform(t)
	key := notifytest.Notifications(3)[2].Key
	want := []string{key + "/acknowledge?identifierType=alias ada@example.org ", key + "/acknowledge?identifierType=alias ada@example.org ", key + "/close?identifierType=alias ada@example.org a drill"}
	if !slices.Equal(changes[:3], want) {
		t.Errorf("one that is acknowledged, contained and closed is %q", changes[:3])
	}
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
