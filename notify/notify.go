// Package notify brings what was detected to people and to other systems: it
// leaves out what was said before, groups what belongs together, limits how much
// a destination gets, routes, and delivers until each message has arrived or is
// among the dead letters with a reason.
//
// Each destination is a package of its own in a folder below.
package notify

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/incident"
)

// A Notification is one message to one destination.
type Notification struct {
	// Key is the same for each attempt to deliver this message, and for no other
	// message. A receiver that can drop what it has, by a key, is to be given it.
	Key string `json:"key"`
	// Alert is the first of its group; of an incident the worst signal as far as it
	// is known. Custom fields and tags are in it.
	Alert alert.Alert `json:"alert"`
	// Count is how many alerts this message stands for, at least 1, and First and
	// Last are the times of the earliest and latest.
	Count int       `json:"count"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	// Incident is what the message is about, if it is not just an alert.
	Incident *incident.Incident `json:"incident,omitempty"`
	// Escalated is how far an incident has come that was told of before, when it had
	// not come as far; 0 for what is told of for the first time. See
	// [incident.Incident.Level].
	Escalated int `json:"escalated,omitempty"`
	// Update says what has become of the incident, to whom was told of it; nil for
	// what tells of something.
	Update *Update `json:"update,omitempty"`
	// URL is the page of it, for people; it may be empty.
	URL string `json:"url,omitempty"`
}

// A Destination takes messages.
//
// Send returns nil once all of the batch are delivered. After another error the
// whole batch is sent again, later: at once when the time in [RetryAfter] has
// passed, never when it is [Permanent], and otherwise with growing pauses. Send
// ends when ctx does, must neither keep nor change the batch, and is not called
// concurrently. Errors name no secret and quote no answer that may hold one.
//
// A batch has one notification, unless the destination is a [Batcher].
type Destination interface {
	Send(ctx context.Context, batch []Notification) error
	Close() error
}

// A Batcher is a [Destination] that takes several notifications at once, at most
// Batch() of them, oldest first.
type Batcher interface{ Batch() int }

// Options are what every destination is made with besides its own configuration.
type Options struct {
	// Name is what the user calls the destination; it starts its errors.
	Name string
	// Cluster is the name of this cluster, for what no alert names one.
	Cluster string
	// Version of the program, for user agents.
	Version string
	// Log is for what is no error of a delivery; nil logs nothing.
	Log *slog.Logger
}

// Logger returns o.Log, or one that writes nothing.
func (o Options) Logger() *slog.Logger {
	if o.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Log
}

type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

// Permanent marks an error that no further attempt cures: the message goes to
// the dead letters. It returns nil for nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return permanentError{err}
}

type retryError struct {
	error
	after time.Duration
}

func (e retryError) Unwrap() error { return e.error }

// RetryAfter marks an error with how long the receiver asks to be left alone. It
// returns nil for nil.
func RetryAfter(err error, d time.Duration) error {
	if err == nil {
		return nil
	}
	return retryError{err, d}
}

// A SecretFile is the name of a file with a secret, such as a mounted Secret. It
// is read for each use, so that a secret may be replaced while the server runs.
type SecretFile string

// maxSecret bounds a secret: private keys are the longest.
const maxSecret = 64 << 10

// Read returns the secret without the white space around it. An error names the
// file, and nothing of what is in it.
func (s SecretFile) Read() (config.Secret, error) {
	if s == "" {
		return "", fmt.Errorf("read secret: no file is given")
	}
	f, err := os.Open(string(s))
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	text := strings.TrimSpace(string(data))
	switch {
	case len(data) > maxSecret:
		return "", fmt.Errorf("read secret: %s: larger than %d bytes", s, maxSecret)
	case text == "":
		return "", fmt.Errorf("read secret: %s: the file is empty", s)
	}
	return config.Secret(text), nil
}
