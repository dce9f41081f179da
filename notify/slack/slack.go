// Package slack sends notifications to a channel of Slack, or of Mattermost and
// Rocket.Chat, by an incoming webhook.
package slack

import (
	"strings"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

// Config is what the destination is made of.
type Config struct {
	// URLFile has the URL of the incoming webhook, which is a secret.
	URLFile notify.SecretFile `yaml:"urlFile"`
	// Channel, Username and Icon (":shield:") change what the webhook says, where
	// it allows that.
	Channel  string      `yaml:"channel"`
	Username string      `yaml:"username"`
	Icon     string      `yaml:"icon"`
	HTTP     post.Config `yaml:"http"`
}

// New makes the destination.
func New(c Config, o notify.Options) (notify.Destination, error) {
	return post.Each(c.URLFile, c.HTTP, o, func(n *notify.Notification) any {
		return c.message(n)
	})
}

// message is what an incoming webhook takes. Attachments, which Slack calls
// outdated, are what all three products show.
type message struct {
	Channel     string       `json:"channel,omitempty"`
	Username    string       `json:"username,omitempty"`
	Icon        string       `json:"icon_emoji,omitempty"`
	Text        string       `json:"text"` // also in push messages
	Attachments []attachment `json:"attachments"`
}

type attachment struct {
	Fallback string  `json:"fallback"`
	Color    string  `json:"color"`
	Text     string  `json:"text"`
	Link     string  `json:"title_link,omitempty"`
	Title    string  `json:"title,omitempty"`
	Fields   []field `json:"fields"`
	Footer   string  `json:"footer"`
	Time     int64   `json:"ts"`
}

type field struct {
	Title string `json:"title"`
	Value string `json:"value"`
	Short bool   `json:"short"`
}

// Bounds of texts, in characters; Slack cuts attachments at about 8,000.
const (
	maxHeading = 300
	maxText    = 3000
	shortValue = 40
)

func (c *Config) message(n *notify.Notification) message {
	heading := escape(notify.Cut(n.Heading(), maxHeading))
	a := attachment{
		Fallback: heading, Color: color(n.Urgency()), Text: escape(n.Text(maxText)), Footer: "KubeGuardian", Time: n.Last.Unix(), Fields: []field{},
	}
	if n.URL != "" {
		a.Title, a.Link = "Open in KubeGuardian", n.URL
	}
	for _, f := range n.Facts() {
		a.Fields = append(a.Fields, field{escape(f.Name), escape(f.Value), len(f.Value) <= shortValue})
	}
	return message{c.Channel, c.Username, c.Icon, "*" + heading + "*", []attachment{a}}
}

// escape keeps text from being read as a mention, a link or markup.
func escape(s string) string {
	s = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
	// What Mattermost and Rocket.Chat take for a mention, or all three for markup.
	return strings.NewReplacer("@", "@\u200b", "*", "\u2217", "`", "\u02cb", "~", "\u223c", "](", "]\u200b(").Replace(s)
}

func color(p alert.Priority) string {
	switch {
	case p <= alert.Critical:
		return "#b3261e"
	case p <= alert.Error:
		return "#d9541e"
	case p <= alert.Warning:
		return "#c98a00"
	case p <= alert.Notice:
		return "#2563b0"
	}
	return "#6b7280"
}
