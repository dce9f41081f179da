// Package opsgenie opens alerts in Opsgenie, and in Jira Service Management, which
// has the same API.
package opsgenie

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

// Config is what the destination is made of.
type Config struct {
	// KeyFile has the key of an API integration.
	KeyFile notify.SecretFile `yaml:"keyFile"`
	// URL is https://api.opsgenie.com if it is not given; accounts in the EU have
	// another one.
	URL string `yaml:"url"`
	// Teams are those that respond, by name.
	Teams []string    `yaml:"teams"`
	HTTP  post.Config `yaml:"http"`
}

// New makes the destination.
func New(c Config, o notify.Options) (notify.Destination, error) {
	if c.URL == "" {
		c.URL = "https://api.opsgenie.com"
	}
	return post.Keyed(c.KeyFile, c.URL, c.HTTP, o, c.piece, incident.States()[1:]...)
}

// piece opens an alert, or tells what became of its incident.
func (c Config) piece(key config.Secret, n *notify.Notification) post.Piece {
	p := post.Piece{URL: post.Join(c.URL, "/v2/alerts"), Header: http.Header{"Authorization": {"GenieKey " + string(key)}}}
	if n.Update != nil {
		p.URL += changePath(n)
		p.Document = changeOf(n.Update)
	} else {
		p.Document = c.message(n)
	}
	return p
}

// changePath is where an alert is acknowledged or closed, below all alerts.
func changePath(n *notify.Notification) string {
	verb := "acknowledge"
	if n.Update.State == incident.Closed {
		verb = "close"
	}
	return "/" + url.PathEscape(n.Thread()) + "/" + verb + "?identifierType=alias"
}

// A change is said of an alert that is acknowledged or closed.
type change struct {
	User   string `json:"user,omitempty"`
	Source string `json:"source"`
	Note   string `json:"note,omitempty"`
}

func changeOf(u *notify.Update) change {
	return change{notify.Cut(notify.Clean(u.By), maxUser), "KubeGuardian", notify.Cut(notify.Clean(u.Reason), maxNote)}
}

type message struct {
	Message     string            `json:"message"`
	Alias       string            `json:"alias"`
	Description string            `json:"description"`
	Responders  []responder       `json:"responders,omitempty"`
	Tags        []string          `json:"tags,omitempty"`
	Details     map[string]string `json:"details"`
	Entity      string            `json:"entity,omitempty"`
	Source      string            `json:"source"`
	Priority    string            `json:"priority"`
}

type responder struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// Bounds of Opsgenie, in characters.
const (
	maxMessage     = 130
	maxDescription = 15_000
	maxTag         = 50
	maxTags        = 20
	maxEntity      = 512
	maxUser        = 100
	maxNote        = 25_000
)

func (c Config) message(n *notify.Notification) message {
	m := message{
		Message: notify.Cut(n.Heading(), maxMessage), Alias: n.Key, Source: "KubeGuardian", Priority: priority(n.Alert.Priority),
		Entity: notify.Cut(notify.Clean(strings.Trim(n.Alert.Subject.Namespace+"/"+n.Alert.Subject.Name, "/")), maxEntity), Details: map[string]string{},
	}
	m.Description = n.Text(maxDescription - 2000)
	if n.URL != "" {
		m.Description += "\n\n" + n.URL
	}
	for _, team := range c.Teams {
		m.Responders = append(m.Responders, responder{team, "team"})
	}
	for _, tag := range n.Alert.Tags {
		if len(m.Tags) < maxTags {
			m.Tags = append(m.Tags, notify.Cut(notify.Clean(tag), maxTag))
		}
	}
	for _, f := range n.Facts() {
		m.Details[f.Name] = f.Value
	}
	return m
}

func priority(p alert.Priority) string {
	switch {
	case p <= alert.Critical:
		return "P1"
	case p == alert.Error:
		return "P2"
	case p == alert.Warning:
		return "P3"
	case p == alert.Notice:
		return "P4"
	}
	return "P5"
}
