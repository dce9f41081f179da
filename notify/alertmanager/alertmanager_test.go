package alertmanager_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/alertmanager"
	"github.com/kubeguardian/kubeguardian/notify/notifytest"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

type message struct {
	Labels, Annotations map[string]string
	StartsAt, EndsAt    time.Time
	GeneratorURL        string
}

// TestConforms holds what is sent to what Alertmanager's API checks.
func TestConforms(t *testing.T) {
	name := regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)
	var got []message
	known := map[string][]time.Time{} // when alerts end, by their labels
	notifytest.HTTP{
		New: func(t *testing.T, to notifytest.Target) notify.Destination {
			c := alertmanager.Config{URLFile: to.URLFile, Labels: []string{"k8s.pod.name", "user", "nothing"}, HTTP: post.Config{AllowAddresses: []string{"127.0.0.1"}, HeaderFiles: map[string]notify.SecretFile{"Authorization": to.SecretFile}}}
			d, err := alertmanager.New(c, to.Options)
			if err != nil {
				t.Fatal(err)
			}
			return d
		},
		Accept: func(t *testing.T, _ http.ResponseWriter, r *http.Request, body []byte) {
			var list []message
			if err := json.Unmarshal(body, &list); err != nil || !strings.HasSuffix(r.URL.Path, "/api/v2/alerts") || len(list) == 0 {
				t.Errorf("%s: %v: %.300s", r.URL, err, body)
			}
			for _, m := range list {
				closed := strings.HasPrefix(m.Annotations["summary"], "Incident closed")
				if len(m.Labels) == 0 || m.StartsAt.IsZero() || !m.EndsAt.After(m.StartsAt) || m.EndsAt.Before(time.Now()) != closed {
					t.Errorf("got %+v", m)
				}
				for _, set := range []map[string]string{m.Labels, m.Annotations} {
					for n, v := range set {
						if !name.MatchString(n) || !utf8.ValidString(v) || v == "" {
							t.Errorf("label %q=%q", n, v)
						}
					}
				}
			}
			if len(list) == 1 {
				known[fmt.Sprint(list[0].Labels)] = append(known[fmt.Sprint(list[0].Labels)], list[0].EndsAt)
			}
			got = append(got, list...)
		},
	}.Conform(t)
	if m := got[0]; m.Labels["alertname"] != "Secret read by exec" || m.Labels["severity"] != "critical" || m.Labels["k8s_pod_name"] != "web" || m.Labels["user"] != "eve" ||
		m.Labels["namespace"] != "shop" || m.Annotations["summary"] != "Critical: Secret read by exec" || m.Annotations["k8s_ns_name"] != "shop" || !strings.Contains(m.GeneratorURL, "/alerts/") {
		t.Errorf("an alert is %+v", m)
	}
	if m := got[2]; m.Labels["alertname"] != "KubeGuardianIncident" || m.Labels["incident"] == "" {
		t.Errorf("an incident is %+v", m)
	}
	if ends := known[fmt.Sprint(got[2].Labels)]; len(ends) < 2 || !ends[1].Before(ends[0]) {
		t.Errorf("an incident with the labels %v ends at %v, want it to be closed by the same labels", got[2].Labels, ends)
	}
	if n := len(got); n < 62 {
		t.Errorf("%d alerts, want those of a batch, too", n)
	}
}

func TestConfiguration(t *testing.T) {
	for want, c := range map[string]alertmanager.Config{"one of": {}, "resolveAfter": {URL: "http://a", ResolveAfter: time.Second}, "timeout": {URL: "http://a", HTTP: post.Config{Timeout: -1}}} {
		if _, err := alertmanager.New(c, notify.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
