// Package kubernetes writes messages as Events of the cluster, beside the object
// that they are about, where kubectl and dashboards show them.
package kubernetes

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/document"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

// A Config says which Events are written.
type Config struct {
	// Namespace is where Events go whose object is in none or is not known; empty
	// means default, as the API server demands for such objects.
	Namespace string `yaml:"namespace"`
}

type destination struct {
	Config
	client *post.Client
	url    string
	o      notify.Options
}

// New returns the destination, for the cluster whose API server is at a URL and
// knows us by the client.
func New(c Config, o notify.Options, api *http.Client, url string) (notify.Destination, error) {
	if c.Namespace == "" {
		c.Namespace = metav1.NamespaceDefault
	}
	client, err := post.Over(api, o)
	if err != nil {
		return nil, err
	}
	return &destination{c, client, url, o}, nil
}

// Close is [notify.Destination].
func (d *destination) Close() error { return d.client.Close() }

// Send writes one Event. Its name follows from the key of the message, so that
// one which is sent again is there once.
func (d *destination) Send(ctx context.Context, batch []notify.Notification) error {
	for i := range batch {
		if err := d.write(ctx, &batch[i]); err != nil {
			return err
		}
	}
	return nil
}

func (d *destination) write(ctx context.Context, n *notify.Notification) error {
	if cluster := n.Alert.Cluster; cluster != "" && d.o.Cluster != "" && cluster != d.o.Cluster {
		return notify.Permanent(fmt.Errorf("%s: the alert is of cluster %q, and Events are written in this one: lead it elsewhere by a route", d.o.Name, cluster))
	}
	e := d.event(n)
	body, err := json.Marshal(e)
	if err != nil {
		return notify.Permanent(fmt.Errorf("%s: encode Event: %w", d.o.Name, err))
	}
	_, err = d.client.Send(ctx, post.Request{
		URL: post.Join(d.url, "/apis/events.k8s.io/v1/namespaces/"+e.Namespace+"/events"), Type: "application/json", Body: body,
	})
	var answer *post.AnswerError
	if errors.As(err, &answer) && answer.Status == http.StatusConflict {
		return nil // it is there
	}
	return err
}

// The bounds of an Event's texts that the API server has.
const (
	maxNote   = 1024
	maxReason = 128
)

func (d *destination) event(n *notify.Notification) *eventsv1.Event {
	a := &n.Alert
	namespace := a.Subject.Namespace
	if !post.IsLabel(namespace) {
		namespace = d.Namespace
	}
	sum := sha256.Sum256([]byte(n.Key))
	e := &eventsv1.Event{
		TypeMeta: metav1.TypeMeta{APIVersion: "events.k8s.io/v1", Kind: "Event"},
		ObjectMeta: metav1.ObjectMeta{
			Name: "kubeguardian." + hex.EncodeToString(sum[:12]), Namespace: namespace,
			Annotations: map[string]string{"kubeguardian.dev/alert": a.ID, "kubeguardian.dev/priority": a.Priority.String()},
		},
		EventTime: metav1.NewMicroTime(a.Time), ReportingController: "kubeguardian.dev/kubeguardian", ReportingInstance: document.Clean("kubeguardian-"+d.o.Cluster, maxReason),
		Action: "Detected", Reason: reason(a.Rule), Type: corev1.EventTypeWarning, Note: d.note(n), Regarding: regarding(a),
	}
	if e.Regarding.Namespace != namespace {
		e.Regarding.Namespace = namespace // an Event is in the namespace of its object
		if namespace == d.Namespace && a.Subject.Namespace == "" {
			e.Regarding.Namespace = ""
		}
	}
	if a.Priority > alert.Warning {
		e.Type = corev1.EventTypeNormal
	}
	if n.URL != "" {
		e.Annotations["kubeguardian.dev/url"] = n.URL
	}
	return e
}

func (d *destination) note(n *notify.Notification) string {
	text := n.Alert.Priority.String() + ": "
	if n.Incident != nil {
		text += "incident: "
	}
	if n.Count > 1 {
		text = fmt.Sprintf("%s%d alerts: ", text, n.Count)
	}
	return text + document.Text(n, maxNote-len(text))
}

func regarding(a *alert.Alert) corev1.ObjectReference {
	s := a.Subject
	ref := corev1.ObjectReference{APIVersion: s.APIVersion, Kind: s.Kind, Namespace: s.Namespace, Name: document.Clean(s.Name, 253)}
	if s.Kind == "" {
		ref.APIVersion, ref.Kind, ref.Name = "v1", "Node", a.Hostname
	}
	if s.Container != "" && s.Kind == "Pod" && !strings.Contains(s.Container, ",") {
		ref.FieldPath = "spec.containers{" + document.Clean(s.Container, 63) + "}"
	}
	return ref
}

// reason writes the name of a rule as reasons are written: SecretReadByExec.
func reason(rule string) string {
	var b strings.Builder
	upper := true
	for _, r := range rule {
		switch {
		case r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r):
			upper = true
			continue
		case upper:
			r = unicode.ToUpper(r)
		}
		upper = false
		if b.Len() < maxReason {
			b.WriteRune(r)
		}
	}
	if b.Len() == 0 {
		return "Detected"
	}
	return b.String()
}
