package webhook_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/notifytest"
	"github.com/kubeguardian/kubeguardian/notify/post"
	"github.com/kubeguardian/kubeguardian/notify/webhook"
)

func made(t *testing.T, c webhook.Config, o notify.Options) notify.Destination {
	t.Helper()
	if c.HTTP.AllowAddresses == nil {
		c.HTTP.AllowAddresses = []string{"127.0.0.1"}
	}
	d, err := webhook.New(c, o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestConforms(t *testing.T) {
	for _, c := range []webhook.Config{
		{Format: "falco"}, {Format: "cloudevents"}, {Format: "template", Template: config.Text{Text: `{"text": {{json .Output}}}`}},
	} {
		t.Run(c.Format, func(t *testing.T) {
			notifytest.HTTP{
				New: func(t *testing.T, to notifytest.Target) notify.Destination {
					c.URLFile, c.HTTP.HeaderFiles = to.URLFile, map[string]notify.SecretFile{"Authorization": to.SecretFile}
					return made(t, c, to.Options)
				},
				Accept: func(t *testing.T, w http.ResponseWriter, r *http.Request, body []byte) {
					if !json.Valid(body) || !strings.Contains(r.Header.Get("Content-Type"), "json") || r.Header.Get("Idempotency-Key") == "" {
						t.Errorf("got %v: %.200s", r.Header, body)
					}
					w.WriteHeader(http.StatusAccepted)
				},
			}.Conform(t)
		})
	}
}

func TestAuthenticatesBothSides(t *testing.T) {
	notifytest.AuthenticatesBothSides(t, func(t *testing.T, url, ca, cert, key string) notify.Destination {
		return made(t, webhook.Config{URL: url, HTTP: post.Config{CAFile: ca, CertFile: cert, KeyFile: key, AllowAddresses: []string{"127.0.0.1"}}}, notify.Options{Name: "hook"})
	})
}

// receive returns what one notification becomes.
func receive(t *testing.T, c webhook.Config, n notify.Notification) (header http.Header, method string, body map[string]any) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		if err == nil {
			d := json.NewDecoder(strings.NewReader(string(data)))
			d.UseNumber()
			err = d.Decode(&body)
		}
		if err != nil {
			t.Errorf("%v: %s", err, data)
		}
		header, method = r.Header, r.Method
	}))
	defer server.Close()
	c.URL = server.URL
	d := made(t, c, notify.Options{Name: "hook", Cluster: "prod"})
	defer d.Close()
	if err := d.Send(t.Context(), []notify.Notification{n}); err != nil {
		t.Fatal(err)
	}
	return header, method, body
}

// TestFalco holds the payload to what Falcosidekick demands of one.
func TestFalco(t *testing.T) {
	for _, n := range notifytest.Notifications(3) {
		header, method, got := receive(t, webhook.Config{}, n)
		if method != "POST" || header.Get("Content-Type") != "application/json" || header.Get("Idempotency-Key") != n.Key {
			t.Errorf("got %s, %v", method, header)
		}
		at, err := time.Parse(time.RFC3339, got["time"].(string))
		fields := got["output_fields"].(map[string]any)
		if err != nil || !at.Equal(n.Alert.Time) || got["rule"] != "Secret read by exec" || got["priority"] != "Critical" || got["source"] != "k8s_audit" || got["uuid"] != n.Key ||
			got["hostname"] != "node-1" || fields["proc.pid"] != json.Number("9007199254740993") || fields["k8s.pod.name"] != "web" {
			t.Errorf("got %v, %v", got, err)
		}
		if story := got["incident"]; (story != nil) != (n.Incident != nil) {
			t.Errorf("incident: %v", story)
		}
	}
	bare := notifytest.Notifications(1)[0]
	bare.Alert.OutputFields, bare.Alert.Tags = nil, nil
	if _, _, got := receive(t, webhook.Config{}, bare); len(got["output_fields"].(map[string]any)) == 0 || got["tags"] == nil {
		t.Errorf("without fields and tags: %v", got)
	}
}

func TestCloudEvents(t *testing.T) {
	n := notifytest.Notifications(3)
	header, _, got := receive(t, webhook.Config{Format: "cloudevents"}, n[0])
	if !strings.HasPrefix(header.Get("Content-Type"), "application/cloudevents+json") || got["specversion"] != "1.0" || got["id"] != n[0].Key ||
		got["source"] != "/kubeguardian/prod" || got["type"] != "dev.kubeguardian.alert" || got["data"].(map[string]any)["rule"] != n[0].Alert.Rule {
		t.Errorf("got %v, %v", header, got)
	}
	if _, _, got := receive(t, webhook.Config{Format: "cloudevents"}, n[2]); got["type"] != "dev.kubeguardian.incident" || got["subject"] != n[2].Incident.ID {
		t.Errorf("got %v", got)
	}
}

func TestTemplate(t *testing.T) {
	n := notifytest.Notifications(1)[0]
	c := webhook.Config{Method: "PUT", Format: "template", ContentType: "application/vnd.x+json",
		Template: config.Text{Text: `{"a": {{json .Rule}}, "b": {{json (.Field "k8s.ns.name")}}, "n": {{.Count}}{{with .Incident}}, "i": {{json .Story}}{{end}}}`}}
	header, method, got := receive(t, c, n)
	if method != "PUT" || header.Get("Content-Type") != "application/vnd.x+json" || got["a"] != n.Alert.Rule || got["b"] != "shop" || got["n"] != json.Number("1") || len(got) != 3 {
		t.Errorf("got %s, %v, %v", method, header, got)
	}
	d := made(t, webhook.Config{URL: "http://127.0.0.1:1/", Format: "template", Template: config.Text{Text: "{{range $i, $e := .OutputFields}}{{index $e 99}}{{end}}"}}, notify.Options{Name: "hook"})
	if err := d.Send(t.Context(), []notify.Notification{n}); !notify.IsPermanent(err) || !strings.HasPrefix(err.Error(), "hook: template body") {
		t.Errorf("a template that fails: %v", err)
	}
}

func TestConfigurations(t *testing.T) {
	for want, c := range map[string]webhook.Config{
		"url and urlFile": {},
		"one of url":      {URL: "http://a", URLFile: "b"},
		`"GET"`:           {URL: "http://a", Method: "GET"},
		`"xml"`:           {URL: "http://a", Format: "xml"},
		"for the format":  {URL: "http://a", ContentType: "text/plain"},
		"needs a":         {URL: "http://a", Format: "template"},
		"unclosed action": {URL: "http://a", Format: "template", Template: config.Text{Text: "{{"}},
		"timeout":         {URL: "http://a", HTTP: post.Config{Timeout: -1}},
	} {
		if _, err := webhook.New(c, notify.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", c, err, want)
		}
	}
}
