package discord_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/discord"
	"github.com/kubeguardian/kubeguardian/notify/notifytest"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

type message struct {
	Username string
	Embeds   []struct {
		Title, Description, URL, Timestamp string
		Color                              int
		Fields                             []struct{ Name, Value string }
	}
	Mentions struct{ Parse []string } `json:"allowed_mentions"`
}

func length(s string) int { return len(utf16.Encode([]rune(s))) }

// TestConforms holds messages to the bounds that Discord refuses beyond.
func TestConforms(t *testing.T) {
	var got []message
	notifytest.HTTP{
		New: func(t *testing.T, to notifytest.Target) notify.Destination {
			d, err := discord.New(discord.Config{URLFile: to.URLFile, Username: "kg", HTTP: post.Config{AllowAddresses: []string{"127.0.0.1"}}}, to.Options)
			if err != nil {
				t.Fatal(err)
			}
			return d
		},
		Accept: func(t *testing.T, w http.ResponseWriter, _ *http.Request, body []byte) {
			var m message
			if err := json.Unmarshal(body, &m); err != nil || len(m.Embeds) != 1 || m.Mentions.Parse == nil || len(m.Mentions.Parse) != 0 {
				t.Errorf("%v: %.300s", err, body)
				return
			}
			e := m.Embeds[0]
			all := length(e.Title) + length(e.Description)
			for _, f := range e.Fields {
				if f.Name == "" || f.Value == "" || length(f.Name) > 256 || length(f.Value) > 1024 {
					t.Errorf("a field is %+v", f)
				}
				all += length(f.Name) + length(f.Value)
			}
			if e.Title == "" || length(e.Title) > 256 || length(e.Description) > 4096 || len(e.Fields) > 25 || all > 6000 || strings.Contains(e.Title+e.Description, "@everyone") {
				t.Errorf("got %.500s", body)
			}
			got = append(got, m)
			w.WriteHeader(http.StatusNoContent)
		},
	}.Conform(t)
	if e := got[0].Embeds[0]; got[0].Username != "kg" || e.Title != "Critical: Secret read by exec" || e.Color != 0xb3261e || !strings.Contains(e.URL, "/alerts/") || len(e.Fields) < 5 {
		t.Errorf("an alert is %+v", e)
	}
}

func TestConfiguration(t *testing.T) {
	for want, c := range map[string]discord.Config{"urlFile": {}, "timeout": {URLFile: "a", HTTP: post.Config{Timeout: -1}}} {
		if _, err := discord.New(c, notify.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
