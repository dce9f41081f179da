package telegram_test

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/notifytest"
	"github.com/kubeguardian/kubeguardian/notify/post"
	"github.com/kubeguardian/kubeguardian/notify/telegram"
)

type message struct {
	ChatID   string `json:"chat_id"`
	ThreadID int    `json:"message_thread_id"`
	Mode     string `json:"parse_mode"`
	Text     string
	Silent   bool `json:"disable_notification"`
}

func TestConforms(t *testing.T) {
	var got []message
	notifytest.HTTP{
		New: func(t *testing.T, to notifytest.Target) notify.Destination {
			d, err := telegram.New(telegram.Config{TokenFile: to.SecretFile, ChatID: "-100123", ThreadID: 7, URL: to.URL, HTTP: post.Config{AllowAddresses: []string{"127.0.0.1"}}}, to.Options)
			if err != nil {
				t.Fatal(err)
			}
			return d
		},
		Accept: func(t *testing.T, w http.ResponseWriter, r *http.Request, body []byte) {
			var m message
			err := json.Unmarshal(body, &m)
			if size := len(utf16.Encode([]rune(m.Text))); err != nil || !strings.HasSuffix(r.URL.Path, "/bottoken-S3cr3tOfTheFile/sendMessage") || m.ChatID != "-100123" || m.ThreadID != 7 || m.Mode != "" || size == 0 || size > 4096 {
				t.Errorf("%s: %v: %.300s", r.URL, err, body)
			}
			got = append(got, m)
			io.WriteString(w, `{"ok":true}`)
		},
	}.Conform(t)
	if text := got[0].Text; got[0].Silent || !strings.Contains(text, " Critical: Secret read by exec\nhttps://guardian.example/alerts/") || !strings.Contains(text, "\nPod: shop/web") {
		t.Errorf("an alert is %q", text)
	}
}

func TestConfiguration(t *testing.T) {
	for want, c := range map[string]telegram.Config{
		"tokenFile": {ChatID: "1"}, "chatID": {TokenFile: "a", ChatID: "a b"}, "want http": {TokenFile: "a", ChatID: "@abc", URL: "x"},
		"timeout": {TokenFile: "a", ChatID: "1", HTTP: post.Config{Timeout: -1}},
	} {
		if _, err := telegram.New(c, notify.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// TestToken: what is no token never becomes a part of a URL.
func TestToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("S3cret/../x?"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := telegram.New(telegram.Config{TokenFile: notify.SecretFile(file), ChatID: "1"}, notify.Options{Name: "tg"})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Send(t.Context(), notifytest.Notifications(1)); err == nil || !strings.Contains(err.Error(), file) || strings.Contains(err.Error(), "S3cret") {
		t.Errorf("got %v", err)
	}
}
