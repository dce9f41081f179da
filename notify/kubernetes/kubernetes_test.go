package kubernetes_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/client-go/rest"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/kubernetes"
	"github.com/kubeguardian/kubeguardian/notify/notifytest"
)

var path = regexp.MustCompile(`^/apis/events\.k8s\.io/v1/namespaces/([a-z0-9-]+)/events$`)

// check holds an Event to what the API server demands.
func check(t *testing.T, r *http.Request, body []byte) *eventsv1.Event {
	t.Helper()
	var e eventsv1.Event
	if err := json.Unmarshal(body, &e); err != nil {
		t.Fatal(err)
	}
	parts := path.FindStringSubmatch(r.URL.Path)
	if parts == nil || parts[1] != e.Namespace || r.Method != http.MethodPost {
		t.Errorf("%s %s for namespace %q", r.Method, r.URL.Path, e.Namespace)
	}
	if e.EventTime.IsZero() || e.ReportingController == "" || e.ReportingInstance == "" || e.Action == "" || len(e.Reason) > 128 || e.Reason == "" || len(e.Note) > 1024 || !utf8.ValidString(e.Note) {
		t.Errorf("event %+v", e)
	}
	if e.Regarding.Namespace == "" && e.Namespace != "default" {
		t.Errorf("an object of no namespace, in %q", e.Namespace)
	}
	if e.Regarding.Namespace != "" && e.Regarding.Namespace != e.Namespace {
		t.Errorf("an object of %q, in %q", e.Regarding.Namespace, e.Namespace)
	}
	return &e
}

func TestConforms(t *testing.T) {
	notifytest.HTTP{
		New: func(t *testing.T, to notifytest.Target) notify.Destination {
			u, err := url.Parse(to.URL)
			if err != nil {
				t.Fatal(err)
			}
			api, err := rest.HTTPClientFor(&rest.Config{BearerTokenFile: string(to.SecretFile)})
			if err != nil {
				t.Fatal(err)
			}
			d, err := kubernetes.New(kubernetes.Config{}, to.Options, api, "http://"+u.Host)
			if err != nil {
				t.Fatal(err)
			}
			return d
		},
		Accept: func(t *testing.T, w http.ResponseWriter, r *http.Request, body []byte) {
			if got := r.Header.Get("Authorization"); got != "Bearer token-S3cr3tOfTheFile" {
				t.Errorf("Authorization %q", got)
			}
			check(t, r, body)
			w.WriteHeader(http.StatusCreated)
			w.Write(body)
		},
		Differ: map[int]notifytest.Outcome{http.StatusConflict: notifytest.Delivered},
	}.Conform(t)
}

// send returns the Event of one notification.
func send(t *testing.T, n notify.Notification) (*eventsv1.Event, error) {
	t.Helper()
	var got *eventsv1.Event
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got = check(t, r, body)
		w.WriteHeader(http.StatusCreated)
	}))
	defer srv.Close()
	d, err := kubernetes.New(kubernetes.Config{}, notify.Options{Name: "events", Cluster: "prod"}, srv.Client(), srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	err = d.Send(t.Context(), []notify.Notification{n})
	return got, err
}

func TestEvent(t *testing.T) {
	n := notifytest.Notifications(1)[0]
	n.Alert.Subject.Container = "app"
	n.Count = 3
	e, err := send(t, n)
	if err != nil {
		t.Fatal(err)
	}
	if e.Namespace != "shop" || e.Regarding.Kind != "Pod" || e.Regarding.Name != "web" || e.Regarding.FieldPath != "spec.containers{app}" || e.Type != "Warning" ||
		e.Reason != "SecretReadByExec" || !strings.HasPrefix(e.Note, "Critical: 3 alerts: ") || e.Annotations["kubeguardian.dev/url"] != n.URL || !strings.HasPrefix(e.Name, "kubeguardian.") {
		t.Errorf("event %+v", e)
	}
	again, err := send(t, n)
	if err != nil || again.Name != e.Name {
		t.Errorf("sent again it is %q, was %q", again.Name, e.Name)
	}
	n.Key = "another"
	if other, err := send(t, n); err != nil || other.Name == e.Name {
		t.Errorf("another message has the same name")
	}
}

func TestSubjects(t *testing.T) {
	for _, tc := range []struct {
		subject              finding.Subject
		namespace, regarding string
	}{
		{finding.Subject{Kind: "ClusterRole", Name: "all"}, "default", "ClusterRole//all"},
		{finding.Subject{}, "default", "Node//node-1"},
		{finding.Subject{Kind: "Pod", Namespace: "../../nodes", Name: "x"}, "default", "Pod/default/x"},
		{finding.Subject{APIVersion: "v1", Kind: "Secret", Namespace: "bank", Name: "key"}, "bank", "Secret/bank/key"},
	} {
		n := notifytest.Notifications(1)[0]
		n.Alert.Subject, n.Alert.Priority = tc.subject, alert.Notice
		e, err := send(t, n)
		if err != nil {
			t.Fatal(err)
		}
		if got := e.Regarding.Kind + "/" + e.Regarding.Namespace + "/" + e.Regarding.Name; got != tc.regarding || e.Namespace != tc.namespace || e.Type != "Normal" {
			t.Errorf("%v: regarding %s in %s", tc.subject, got, e.Namespace)
		}
	}
}

func TestAnotherCluster(t *testing.T) {
	n := notifytest.Notifications(1)[0]
	n.Alert.Cluster = "edge"
	if e, err := send(t, n); !notify.IsPermanent(err) || e != nil || !strings.Contains(err.Error(), `events: the alert is of cluster "edge"`) {
		t.Errorf("%v", err)
	}
}
