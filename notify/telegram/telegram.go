// Package telegram sends notifications to a chat of Telegram, as a bot.
package telegram

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf16"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

// Config is what the destination is made of.
type Config struct {
	// TokenFile has the token of the bot.
	TokenFile notify.SecretFile `yaml:"tokenFile"`
	// ChatID is the number of a chat, or the name of a channel (@name).
	ChatID string `yaml:"chatID"`
	// ThreadID is the number of a topic, for groups that have them.
	ThreadID int `yaml:"threadID"`
	// URL is https://api.telegram.org if it is not given.
	URL  string      `yaml:"url"`
	HTTP post.Config `yaml:"http"`
}

type destination struct {
	Config
	name   string
	client *post.Client
}

var (
	chat  = regexp.MustCompile(`^(-?[0-9]{1,20}|@[A-Za-z0-9_]{3,64})$`)
	token = regexp.MustCompile(`^[A-Za-z0-9:_-]{1,200}$`)
)

// New makes the destination.
func New(c Config, o notify.Options) (notify.Destination, error) {
	if c.TokenFile == "" {
		return nil, errors.New("tokenFile is missing")
	}
	if !chat.MatchString(c.ChatID) {
		return nil, fmt.Errorf("chatID %q: want a number, such as -1001234567890, or @name", c.ChatID)
	}
	if c.URL == "" {
		c.URL = "https://api.telegram.org"
	}
	if err := post.CheckAddress(c.URL, ""); err != nil {
		return nil, err
	}
	client, err := post.New(c.HTTP, o)
	return &destination{c, o.Name, client}, err
}

type message struct {
	ChatID      string  `json:"chat_id"`
	ThreadID    int     `json:"message_thread_id,omitempty"`
	Text        string  `json:"text"`
	Silent      bool    `json:"disable_notification"`
	LinkPreview preview `json:"link_preview_options"`
}

type preview struct {
	Disabled bool `json:"is_disabled"`
}

// Send implements [notify.Destination].
func (d *destination) Send(ctx context.Context, batch []notify.Notification) error {
	secret, err := d.TokenFile.Read()
	if err == nil && !token.MatchString(string(secret)) {
		err = fmt.Errorf("read secret: %s: this is not the token of a bot", d.TokenFile)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", d.name, err)
	}
	to := strings.TrimRight(d.URL, "/") + "/bot" + string(secret) + "/sendMessage"
	for i := range batch {
		n := &batch[i]
		body, err := json.Marshal(message{d.ChatID, d.ThreadID, text(n), n.Urgency() > alert.Warning, preview{true}})
		if err != nil {
			return notify.Permanent(fmt.Errorf("%s: encode message: %w", d.name, err))
		}
		if _, err := d.client.Send(ctx, post.Request{URL: to, Type: "application/json", Body: body}); err != nil {
			return err
		}
	}
	return nil
}

// States implements [notify.Stateful].
func (d *destination) States() []incident.State { return []incident.State{incident.Closed} }

// Close implements [notify.Destination].
func (d *destination) Close() error { return d.client.Close() }

// maxText bounds a message, in characters of UTF-16.
const maxText = 4096

// text is plain, so that nothing in it can be markup. Facts are left out that
// have no place.
func text(n *notify.Notification) string {
	var b strings.Builder
	left := maxText
	add := func(s string) {
		if size := len(utf16.Encode([]rune(s))); size <= left {
			b.WriteString(s)
			left -= size
		}
	}
	add(mark(n.Urgency()) + " " + notify.Cut(n.Heading(), 300))
	if n.URL != "" {
		add("\n" + n.URL)
	}
	add("\n\n" + n.Text(1200) + "\n")
	for _, f := range n.Facts() {
		add("\n" + f.Name + ": " + f.Value)
	}
	return b.String()
}

func mark(p alert.Priority) string {
	switch {
	case p <= alert.Critical:
		return "\U0001F534" // red
	case p <= alert.Warning:
		return "\U0001F7E0" // orange
	}
	return "\U0001F535" // blue
}
