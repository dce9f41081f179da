package post

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify"
)

// Each returns a destination that takes one notification at a time: a document of
// it, as JSON, at an address that is a secret. It is a [notify.Stateful] of these
// states.
func Each(address notify.SecretFile, c Config, o notify.Options, document func(*notify.Notification) any, states ...incident.State) (notify.Destination, error) {
	if address == "" {
		return nil, errors.New("urlFile is missing")
	}
	return newEach(address, c, o, func(to config.Secret, n *notify.Notification) Piece {
		return Piece{URL: string(to), Document: document(n)}
	}, states)
}

// Keyed is [Each] for an API at an address that is no secret, where a key is one.
func Keyed(key notify.SecretFile, url string, c Config, o notify.Options, piece func(config.Secret, *notify.Notification) Piece, states ...incident.State) (notify.Destination, error) {
	if key == "" {
		return nil, errors.New("keyFile is missing")
	}
	if err := CheckAddress(url, ""); err != nil {
		return nil, err
	}
	return newEach(key, c, o, piece, states)
}

// A Piece is what is sent of one notification: a document, as JSON.
type Piece struct {
	URL      string
	Header   http.Header
	Document any
}

func newEach(secret notify.SecretFile, c Config, o notify.Options, piece func(config.Secret, *notify.Notification) Piece, states []incident.State) (notify.Destination, error) {
	client, err := New(c, o)
	return &each{o.Name, secret, client, piece, states}, err
}

type each struct {
	name   string
	secret notify.SecretFile
	client *Client
	piece  func(config.Secret, *notify.Notification) Piece
	states []incident.State
}

// States implements [notify.Stateful].
func (d *each) States() []incident.State { return d.states }

// Send implements [notify.Destination].
func (d *each) Send(ctx context.Context, batch []notify.Notification) error {
	secret, err := d.secret.Read()
	if err != nil {
		return fmt.Errorf("%s: %w", d.name, err)
	}
	for i := range batch {
		p := d.piece(secret, &batch[i])
		body, err := json.Marshal(p.Document)
		if err != nil {
			return notify.Permanent(fmt.Errorf("%s: encode message: %w", d.name, err))
		}
		if _, err := d.client.Send(ctx, Request{URL: p.URL, Type: "application/json", Header: p.Header, Body: body}); err != nil {
			return err
		}
	}
	return nil
}

// Close implements [notify.Destination].
func (d *each) Close() error { return d.client.Close() }
