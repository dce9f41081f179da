package teams_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/notifytest"
	"github.com/kubeguardian/kubeguardian/notify/post"
	"github.com/kubeguardian/kubeguardian/notify/teams"
)

type message struct {
	Type        string
	Attachments []struct {
		ContentType string
		Content     struct {
			Type, Version string
			Body          []struct {
				Type, Text, Color string
				Facts             []struct{ Title, Value string }
			}
			Actions []struct{ Type, URL string }
		}
	}
}

func TestConforms(t *testing.T) {
	var got []message
	notifytest.HTTP{
		New: func(t *testing.T, to notifytest.Target) notify.Destination {
			d, err := teams.New(teams.Config{URLFile: to.URLFile, HTTP: post.Config{AllowAddresses: []string{"127.0.0.1"}}}, to.Options)
			if err != nil {
				t.Fatal(err)
			}
			return d
		},
		Accept: func(t *testing.T, w http.ResponseWriter, _ *http.Request, body []byte) {
			var m message
			if err := json.Unmarshal(body, &m); err != nil || m.Type != "message" || len(m.Attachments) != 1 || m.Attachments[0].ContentType != "application/vnd.microsoft.card.adaptive" || len(body) > 28<<10 {
				t.Errorf("%v, %d bytes: %.300s", err, len(body), body)
				return
			}
			for _, e := range m.Attachments[0].Content.Body {
				if strings.Contains(e.Text, "](") && !strings.Contains(e.Text, `\](`) || strings.Contains(e.Text, "<script") {
					t.Errorf("markup is in %.300q", e.Text)
				}
			}
			got = append(got, m)
			w.WriteHeader(http.StatusAccepted)
		},
	}.Conform(t)
	c := got[0].Attachments[0].Content
	if c.Type != "AdaptiveCard" || c.Body[0].Text != "Critical: Secret read by exec" || c.Body[0].Color != "Attention" || !strings.Contains(c.Body[1].Text, "user=eve") ||
		c.Body[2].Facts[1].Value != "shop/web" || c.Actions[0].Type != "Action.OpenUrl" || !strings.Contains(c.Actions[0].URL, "/alerts/") {
		t.Errorf("an alert is %+v", c)
	}
}

func TestConfiguration(t *testing.T) {
	for want, c := range map[string]teams.Config{"urlFile": {}, "timeout": {URLFile: "a", HTTP: post.Config{Timeout: -1}}} {
		if _, err := teams.New(c, notify.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
