// Package document writes notifications as JSON documents, for destinations that
// keep or carry data rather than tell people: Falco's alerts with what
// KubeGuardian knows beyond them, or findings of OCSF.
package document

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify"
)

// The formats.
const (
	Falco  = "falco"      // the default
	OCSF16 = "ocsf-1.6.0" // what AWS Security Hub takes
	OCSF18 = "ocsf-1.8.0"
)

// Formats lists the formats.
func Formats() []string { return []string{Falco, OCSF16, OCSF18} }

// A Writer writes documents of one format. It may be used concurrently.
type Writer struct {
	version string // of OCSF; empty: Falco's
	product string
	cluster string
}

// New returns a writer of a format; an empty one means [Falco].
func New(format string, o notify.Options) (Writer, error) {
	if format == "" {
		format = Falco
	}
	if !slices.Contains(Formats(), format) {
		return Writer{}, fmt.Errorf("unknown format %q: want one of %s", format, strings.Join(Formats(), ", "))
	}
	version, _ := strings.CutPrefix(format, "ocsf-")
	if format == Falco {
		version = ""
	}
	return Writer{version: version, product: o.Version, cluster: o.Cluster}, nil
}

// JSON returns one document in one line, without its end.
func (w Writer) JSON(n *notify.Notification) ([]byte, error) {
	var document any
	switch {
	case w.version == "":
		document = Alert(n)
	case n.Incident != nil:
		document = w.incidentFinding(n)
	default:
		document = w.detectionFinding(n)
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(document); err != nil {
		return nil, fmt.Errorf("encode alert %s: %w", n.Alert.ID, err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// Lines returns a batch as lines of JSON, each with its end.
func (w Writer) Lines(batch []notify.Notification) ([]byte, error) {
	var out []byte
	for i := range batch {
		line, err := w.JSON(&batch[i])
		if err != nil {
			return nil, err
		}
		out = append(append(out, line...), '\n')
	}
	return out, nil
}

// An AlertDocument has the keys of Falco and Falcosidekick, and of alerts in
// KubeGuardian's API, and those of the notification.
type AlertDocument struct {
	alert.Alert
	UUID         string        `json:"uuid"` // as Falcosidekick calls the id
	Notification Message       `json:"notification"`
	Incident     *IncidentPart `json:"incident,omitempty"`
}

// A Message says what the notification is, besides its alert.
type Message struct {
	Key   string    `json:"key"` // the same each time that it is sent
	Count int       `json:"count"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	URL   string    `json:"url,omitempty"`
}

// An IncidentPart is an incident without its signals, which are alerts of their
// own.
type IncidentPart struct {
	ID       string         `json:"id"`
	Story    string         `json:"story"`
	State    incident.State `json:"state"`
	Reason   string         `json:"reason,omitempty"`
	Assignee string         `json:"assignee,omitempty"`
	Owners   []string       `json:"owners,omitempty"`
	Score    int            `json:"score"`
	Worst    alert.Priority `json:"worst"`
	Tactics  []string       `json:"tactics,omitempty"`
	First    time.Time      `json:"first"`
	Last     time.Time      `json:"last"`
	Signals  int            `json:"signals"` // how many
}

// Alert returns a notification as a document with Falco's keys.
func Alert(n *notify.Notification) *AlertDocument {
	d := &AlertDocument{
		Alert: n.Alert, UUID: n.Alert.ID,
		Notification: Message{n.Key, n.Count, n.First, n.Last, n.URL},
	}
	if i := n.Incident; i != nil {
		d.Incident = &IncidentPart{
			i.ID, i.Story, i.State, i.Reason, i.Assignee, i.Owners, i.Score, i.Worst, i.Tactics, i.First, i.Last, len(i.Signals) + i.Dropped,
		}
	}
	return d
}

// Text returns one line that says what happened, without control characters, cut
// to a number of bytes.
func Text(n *notify.Notification, most int) string {
	text := n.Alert.Output
	switch {
	case n.Update != nil:
		text = n.Heading() + " " + n.Text(most)
	case n.Incident != nil:
		text = n.Incident.Story
	}
	return Clean(text, most)
}

// Clean returns a text without control characters and broken ones, cut to a
// number of bytes where it is longer; … says that it was.
func Clean(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
	if len(text) <= most {
		return text
	}
	cut := 0
	for i := range text {
		if i > most-len("…") {
			break
		}
		cut = i
	}
	return text[:cut] + "…"
}

// Field returns an output field as text; empty if the alert does not have it.
func Field(a *alert.Alert, name string) string {
	switch v := a.OutputFields[name].(type) {
	case nil:
		return ""
	case string:
		return v
	case float64, int, int64, uint64, json.Number, bool:
		return fmt.Sprint(v)
	default:
		text, err := json.Marshal(v)
		if err != nil {
			return ""
		}
		return string(text)
	}
}
