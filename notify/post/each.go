package post

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

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
	client, err := New(c, o)
	return &each{o.Name, address, client, document, states}, err
}

type each struct {
	name     string
	address  notify.SecretFile
	client   *Client
	document func(*notify.Notification) any
	states   []incident.State
}

// States implements [notify.Stateful].
func (d *each) States() []incident.State { return d.states }

// Send implements [notify.Destination].
func (d *each) Send(ctx context.Context, batch []notify.Notification) error {
	to, err := d.address.Read()
	if err != nil {
		return fmt.Errorf("%s: %w", d.name, err)
	}
	for i := range batch {
		body, err := json.Marshal(d.document(&batch[i]))
		if err != nil {
			return notify.Permanent(fmt.Errorf("%s: encode message: %w", d.name, err))
		}
		if _, err := d.client.Send(ctx, Request{URL: string(to), Type: "application/json", Body: body}); err != nil {
			return err
		}
	}
	return nil
}

// Close implements [notify.Destination].
func (d *each) Close() error { return d.client.Close() }
