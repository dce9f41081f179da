package slack_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/notifytest"
	"github.com/kubeguardian/kubeguardian/notify/post"
	"github.com/kubeguardian/kubeguardian/notify/slack"
)

type payload struct {
	Channel, Username, Text string
	Icon                    string `json:"icon_emoji"`
	Attachments             []struct {
		Color, Text, Title, Fallback string
		Link                         string `json:"title_link"`
		Fields                       []struct {
			Title, Value string
			Short        bool
		}
	}
}

func TestConforms(t *testing.T) {
	var got []payload
	notifytest.HTTP{
		New: func(t *testing.T, to notifytest.Target) notify.Destination {
			d, err := slack.New(slack.Config{URLFile: to.URLFile, Channel: "#sec", Username: "kg", Icon: ":shield:", HTTP: post.Config{AllowAddresses: []string{"127.0.0.1"}}}, to.Options)
			if err != nil {
				t.Fatal(err)
			}
			return d
		},
		Accept: func(t *testing.T, w http.ResponseWriter, r *http.Request, body []byte) {
			var p payload
			if err := json.Unmarshal(body, &p); err != nil || len(p.Attachments) != 1 || p.Text == "" || r.Header.Get("Content-Type") != "application/json" {
				t.Errorf("%v: %.300s", err, body)
				return
			}
			for _, s := range []string{"<!", "@everyone", "<script", "](javascript"} {
				if strings.Contains(p.Text+p.Attachments[0].Text, s) {
					t.Errorf("%s is in %.300s", s, body)
				}
			}
			if utf8.RuneCountInString(p.Attachments[0].Text) > 4000 || len(p.Attachments[0].Fields) > 20 {
				t.Errorf("too long: %d bytes", len(body))
			}
			got = append(got, p)
			io.WriteString(w, "ok")
		},
	}.Conform(t)
	alert, incident := got[0], got[2]
	if alert.Channel != "#sec" || alert.Username != "kg" || alert.Icon != ":shield:" || alert.Text != "*Critical: Secret read by exec*" ||
		alert.Attachments[0].Color != "#b3261e" || !strings.HasPrefix(alert.Attachments[0].Link, "https://guardian.example/alerts/") {
		t.Errorf("an alert is %+v", alert)
	}
	facts := map[string]string{}
	for _, f := range alert.Attachments[0].Fields {
		facts[f.Title] = f.Value
	}
	if facts["Pod"] != "shop/web" || facts["Cluster"] != "prod" || facts["team"] != "payments" || facts["proc.pid"] != "9007199254740993" {
		t.Errorf("its facts are %v", facts)
	}
	if !strings.HasPrefix(incident.Text, "*Incident, Critical: eve: credential access") || !strings.Contains(incident.Attachments[0].Link, "/incidents/") {
		t.Errorf("an incident is %+v", incident)
	}
}

func TestConfiguration(t *testing.T) {
	if _, err := slack.New(slack.Config{}, notify.Options{}); err == nil || !strings.Contains(err.Error(), "urlFile") {
		t.Errorf("got %v", err)
	}
	if _, err := slack.New(slack.Config{URLFile: "a", HTTP: post.Config{Timeout: -1}}, notify.Options{}); err == nil {
		t.Error("a bad timeout is taken")
	}
}
