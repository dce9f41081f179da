package notify

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/incident"
)

// A Payload is a notification with Falco's keys at the top, as Falcosidekick sends
// and takes it, so that what reads alerts of Falco reads it; what Falco does not
// have comes beside them.
type Payload struct {
	UUID string `json:"uuid"` // the key of the notification
	alert.Alert
	Count    int                `json:"count"`
	First    time.Time          `json:"first"`
	Last     time.Time          `json:"last"`
	URL      string             `json:"url,omitempty"`
	Incident *incident.Incident `json:"incident,omitempty"`
	Update   *Update            `json:"update,omitempty"`
	// Escalated says that the incident was told of before; see [Notification].
	Escalated int `json:"escalated,omitempty"`
}

// Payload returns the notification with Falco's keys. Its output fields, which
// readers demand, are never empty; its texts are valid.
func (n *Notification) Payload() Payload {
	p := Payload{UUID: n.Key, Alert: n.Alert, Count: n.Count, First: n.First, Last: n.Last, URL: n.URL, Incident: n.Incident, Update: n.Update, Escalated: n.Escalated}
	if len(p.OutputFields) == 0 {
		p.OutputFields = map[string]any{"kubeguardian.alerts": n.Count}
	}
	if p.Tags == nil {
		p.Tags = []string{}
	}
	switch {
	case n.Update != nil:
		p.Output = n.Update.text()
	case n.Incident != nil:
		p.Output = n.Incident.Story
	}
	return p
}

// JSON returns the payload in one line.
func (n *Notification) JSON() ([]byte, error) {
	data, err := json.Marshal(n.Payload())
	if err != nil {
		return nil, Permanent(fmt.Errorf("encode notification %s: %w", n.Key, err))
	}
	return data, nil
}
