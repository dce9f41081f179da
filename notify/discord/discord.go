// Package discord sends notifications to a channel of Discord by a webhook.
package discord

import (
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

// Config is what the destination is made of.
type Config struct {
	// URLFile has the URL of the webhook, which is a secret.
	URLFile notify.SecretFile `yaml:"urlFile"`
	// Username is whom messages are of, in place of the webhook's name.
	Username string      `yaml:"username"`
	HTTP     post.Config `yaml:"http"`
}

// New makes the destination.
func New(c Config, o notify.Options) (notify.Destination, error) {
	return post.Each(c.URLFile, c.HTTP, o, func(n *notify.Notification) any {
		return message{Username: c.Username, Embeds: []embed{embedOf(n)}, Mentions: mentions{Parse: []string{}}}
	}, incident.Closed)
}

type message struct {
	Username string   `json:"username,omitempty"`
	Embeds   []embed  `json:"embeds"`
	Mentions mentions `json:"allowed_mentions"`
}

// mentions that are looked for in texts: none.
type mentions struct {
	Parse []string `json:"parse"`
}

type embed struct {
	Title       string    `json:"title"`
	Description string    `json:"description"`
	URL         string    `json:"url,omitempty"`
	Color       int       `json:"color"`
	Timestamp   time.Time `json:"timestamp"`
	Fields      []field   `json:"fields,omitempty"`
}

type field struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Inline bool   `json:"inline"`
}

// Bounds of Discord, in characters of UTF-16, of which one of ours may be two:
// title 256, description 4096, 6000 in all.
const (
	maxTitle = 128
	maxText  = 1000
	maxAll   = 2800
	short    = 40
)

func embedOf(n *notify.Notification) embed {
	e := embed{
		Title: escape(notify.Cut(n.Heading(), maxTitle)), Description: escape(n.Text(maxText)),
		URL: n.URL, Color: color(n.Urgency()), Timestamp: n.Last,
	}
	e.Title, e.Description = notify.Cut(e.Title, maxTitle), notify.Cut(e.Description, 2*maxText)
	left := maxAll - len([]rune(e.Title)) - len([]rune(e.Description))
	for _, f := range n.Facts() {
		one := field{notify.Cut(escape(f.Name), 120), notify.Cut(escape(f.Value), 500), len(f.Value) <= short}
		if left -= len([]rune(one.Name)) + len([]rune(one.Value)); left < 0 {
			break
		}
		e.Fields = append(e.Fields, one)
	}
	return e
}

// escape keeps text from being read as Markdown.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "_", `\_`, "~", `\~`, "`", "\\`", "|", `\|`, "[", `\[`, "]", `\]`, "<", `\<`, ">", `\>`, "#", `\#`, "@", "@\u200b").Replace(s)
}

func color(p alert.Priority) int {
	switch {
	case p <= alert.Critical:
		return 0xb3261e
	case p <= alert.Error:
		return 0xd9541e
	case p <= alert.Warning:
		return 0xc98a00
	case p <= alert.Notice:
		return 0x2563b0
	}
	return 0x6b7280
}
