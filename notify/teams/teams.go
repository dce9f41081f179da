// Package teams sends notifications to a channel of Microsoft Teams, as adaptive
// cards to the webhook of a workflow.
package teams

import (
	"strings"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

// Config is what the destination is made of.
type Config struct {
	// URLFile has the URL of the workflow's webhook, which is a secret.
	URLFile notify.SecretFile `yaml:"urlFile"`
	HTTP    post.Config       `yaml:"http"`
}

// New makes the destination.
func New(c Config, o notify.Options) (notify.Destination, error) {
	return post.Each(c.URLFile, c.HTTP, o, func(n *notify.Notification) any {
		return message{"message", []attachment{{"application/vnd.microsoft.card.adaptive", cardOf(n)}}}
	}, incident.Closed)
}

type message struct {
	Type        string       `json:"type"`
	Attachments []attachment `json:"attachments"`
}

type attachment struct {
	ContentType string `json:"contentType"`
	Content     card   `json:"content"`
}

type card struct {
	Schema  string    `json:"$schema"`
	Type    string    `json:"type"`
	Version string    `json:"version"`
	Body    []element `json:"body"`
	Actions []action  `json:"actions,omitempty"`
	Teams   struct {
		Width string `json:"width"`
	} `json:"msteams"`
}

type element struct {
	Type   string `json:"type"`
	Text   string `json:"text,omitempty"`
	Size   string `json:"size,omitempty"`
	Weight string `json:"weight,omitempty"`
	Color  string `json:"color,omitempty"`
	Wrap   bool   `json:"wrap,omitempty"`
	Facts  []fact `json:"facts,omitempty"`
}

type fact struct {
	Title string `json:"title"`
	Value string `json:"value"`
}

type action struct {
	Type  string `json:"type"`
	Title string `json:"title"`
	URL   string `json:"url"`
}

// Bounds of texts, in characters: a message may have 28 KB.
const (
	maxHeading = 300
	maxText    = 3000
)

func cardOf(n *notify.Notification) card {
	c := card{Schema: "http://adaptivecards.io/schemas/adaptive-card.json", Type: "AdaptiveCard", Version: "1.4"}
	c.Teams.Width = "Full"
	c.Body = []element{
		{Type: "TextBlock", Text: escape(notify.Cut(n.Heading(), maxHeading)), Size: "Medium", Weight: "Bolder", Color: color(n.Urgency()), Wrap: true},
		{Type: "TextBlock", Text: escape(n.Text(maxText)), Wrap: true},
	}
	facts := element{Type: "FactSet"}
	for _, f := range n.Facts() {
		facts.Facts = append(facts.Facts, fact{escape(f.Name), escape(f.Value)})
	}
	if len(facts.Facts) > 0 {
		c.Body = append(c.Body, facts)
	}
	if n.URL != "" {
		c.Actions = []action{{"Action.OpenUrl", "Open in KubeGuardian", n.URL}}
	}
	return c
}

// escape keeps text from being read as Markdown: texts of cards have links,
// lists and emphasis.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, "[", `\[`, "]", `\]`, "*", `\*`, "_", `\_`, "<", "&lt;", "#", `\#`, "\n", "\n\n").Replace(s)
}

func color(p alert.Priority) string {
	switch {
	case p <= alert.Error:
		return "Attention"
	case p <= alert.Warning:
		return "Warning"
	case p <= alert.Notice:
		return "Accent"
	}
	return "Default"
}
