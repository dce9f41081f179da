package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify/delivery"
)

// An Update is what has become of an incident since a destination was told of it.
type Update struct {
	State  incident.State `json:"state"`
	Reason string         `json:"reason,omitempty"` // why it is closed
	By     string         `json:"by,omitempty"`     // who has said so
	Time   time.Time      `json:"time"`             // when
	// Of is the key of the message that told of the incident, and Incident what that
	// named it: by now it may be part of another one.
	Of       string `json:"of"`
	Incident string `json:"incident"`
}

// A Stateful destination keeps open what it is told of. It is told when an
// incident gets into one of these states, unless its configuration says
// otherwise; other destinations are told of none unless theirs says so.
type Stateful interface{ States() []incident.State }

// wants reports whether the destination is told when an incident gets into a state.
func (w *worker) wants(s incident.State) bool {
	var states []incident.State
	if to, ok := w.to.(Stateful); ok {
		states = to.States()
	}
	if w.SendResolved != nil {
		if !*w.SendResolved {
			return false
		}
		if len(states) == 0 {
			states = []incident.State{incident.Closed}
		}
	}
	return slices.Contains(states, s)
}

// updateBatch bounds how many incidents are looked at at once: each may be large.
const updateBatch = 100

// routeUpdates makes messages of what has become of incidents that were told of.
func (n *Notifier) routeUpdates(ctx context.Context) error {
	for {
		notified, _, found, err := n.Store.Notified(ctx)
		if err != nil || !found {
			return err
		}
		list, err := n.Store.Changed(ctx, updateBatch)
		if err != nil || len(list) == 0 {
			return err
		}
		now := time.Now()
		p := delivery.Progress{Alert: notified}
		var out []delivery.Message
		for _, told := range slices.Sorted(maps.Keys(list)) {
			i := list[told]
			messages, err := n.updates(ctx, told, i, now)
			if err != nil {
				return err
			}
			out, p.Became = append(out, messages...), append(p.Became, delivery.Became{Incident: told, State: string(i.State)})
		}
		if err := n.enqueue(ctx, out, p, now); err != nil {
			return err
		}
		if len(list) < updateBatch {
			return nil
		}
	}
}

// updates returns what goes out because an incident, which was told of by an id,
// got into its state: to each destination that wants it and was told.
func (n *Notifier) updates(ctx context.Context, told string, i *incident.Incident, now time.Time) (out []delivery.Message, err error) {
	for _, w := range n.workers {
		if !w.wants(i.State) {
			continue
		}
		of := digest("incident", w.Name, told)
		before, found, err := n.Store.Delivery(ctx, w.Name, of)
		if err != nil {
			return nil, err
		}
		if !found {
			continue
		}
		m, err := n.router.update(&before, told, i, now)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

// update is the message that follows the one that told of an incident. What that
// said of the alert is said again, since receivers may know it by that.
func (r *router) update(before *delivery.Message, told string, i *incident.Incident, now time.Time) (delivery.Message, error) {
	m := delivery.Message{
		Destination: before.Destination, Key: digest("incident", before.Destination, told, string(i.State)), Follows: before.Key, State: delivery.Waiting, Incident: told,
		Count: before.Count, First: before.First, Last: before.Last, Created: now, Due: now, Next: now, Until: now,
	}
	n, err := notification(before)
	if err != nil {
		return m, err
	}
	n.Key, n.Incident = m.Key, i
	n.Update = &Update{i.State, i.Reason, i.By, i.Since, before.Key, told}
	if i.Since.IsZero() {
		n.Update.Time = now
	}
	if r.url != "" {
		n.URL = r.url + "/incidents/" + i.ID
	}
	m.Title = title(&n)
	if m.Body, err = json.Marshal(n); err != nil {
		err = fmt.Errorf("encode message %s to %s: %w", m.Key, m.Destination, err)
	}
	return m, err
}

// Thread is the key of the first message about the same: of an update, that of
// the message that told of the incident.
func (n *Notification) Thread() string {
	if n.Update != nil {
		return n.Update.Of
	}
	return n.Key
}

// Told is what messages name the incident: the same in the one that tells of it and
// those that say what has become of it.
func (n *Notification) Told() string {
	switch {
	case n.Update != nil:
		return n.Update.Incident
	case n.Incident != nil:
		return toldAs(n.Incident, n.Escalated)
	}
	return ""
}

// Urgency is how a message is shown: what has become of an incident asks nobody
// for anything.
func (n *Notification) Urgency() alert.Priority {
	if n.Update != nil {
		return alert.Informational
	}
	return n.Alert.Priority
}

// text says what has become of an incident: "closed by ada: a drill".
func (u *Update) text() string {
	text := string(u.State)
	if u.By != "" {
		text += " by " + u.By
	}
	if u.Reason != "" {
		text += ": " + u.Reason
	}
	return text
}
