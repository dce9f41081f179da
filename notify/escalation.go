package notify

import (
	"context"
	"fmt"
	"time"

	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify/delivery"
)

// again is how long after people were told of an incident the next message may
// tell of it, or of one that is the same again after it was closed: what comes in
// bursts, and what opens and closes all the time, must not wake anybody each time.
const again = 10 * time.Minute

// toldAs names an incident in messages: by its id, and where it has escalated
// since it was told of also by how far it has come, so that each message of it has
// a name of its own.
func toldAs(i *incident.Incident, escalated int) string {
	if escalated == 0 {
		return i.ID
	}
	return fmt.Sprintf("%s#%d", i.ID, escalated)
}

// telling says that messages tell of an incident from now on.
func telling(i *incident.Incident, escalated int) delivery.Told {
	return delivery.Told{Incident: i.ID, As: toldAs(i, escalated), State: string(i.State), Level: i.Level()}
}

// routeEscalations makes messages of incidents that have come further since people
// were told of them: a more urgent alert, or a warning of another tactic. Whoever
// looks at such an incident is told, too, but not who has muted it whatever comes.
func (n *Notifier) routeEscalations(ctx context.Context) error {
	notified, _, found, err := n.Store.Notified(ctx)
	if err != nil || !found {
		return err
	}
	for place := int64(0); ; {
		now := time.Now()
		list, last, err := n.Store.Escalated(ctx, now.Add(-again), place, updateBatch)
		if err != nil {
			return err
		}
		p := delivery.Progress{Alert: notified}
		var out []delivery.Message
		for _, i := range list {
			if i.Muted(now) {
				continue
			}
			note := n.router.ofIncident(i)
			note.Escalated = i.Level()
			messages, err := n.router.messages(note, now)
			if err != nil {
				return err
			}
			out, p.Incidents = append(out, messages...), append(p.Incidents, telling(i, note.Escalated))
		}
		if len(p.Incidents) > 0 {
			if err := n.enqueue(ctx, out, p, now); err != nil {
				return err
			}
		}
		if place = last; len(list) < updateBatch {
			return nil
		}
	}
}

// flapping reports whether an incident is what was told of a short time ago, and
// closed since, and is no worse than that.
func (n *Notifier) flapping(ctx context.Context, i *incident.Incident, now time.Time) (bool, error) {
	at, level, err := n.Store.LastTold(ctx, i.Related)
	return err == nil && now.Sub(at) < again && i.Level() <= level, err
}
