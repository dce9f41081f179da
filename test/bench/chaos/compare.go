package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/store"
)

// settle waits until all that was raised is stored, joined and told of.
func (p *parts) settle(ctx context.Context, raised map[string]string) error {
	if err := p.settleStored(ctx, len(raised)); err != nil {
		return fmt.Errorf("%w\n%s", err, p.servers[0].tail())
	}
	behind := time.Now()
	err := progress(ctx, "no more messages are made", func() (bool, uint64, error) {
		last, err := p.db.LastAlert(ctx)
		if err != nil {
			return false, 0, err
		}
		notified, joined, _, err := p.db.Notified(ctx)
		return err == nil && min(notified, joined) == last, uint64(notified + joined), err
	})
	if err != nil {
		return err
	}
	fmt.Printf("messages   were made of all %s after the last alert was stored\n", time.Since(behind).Round(100*time.Millisecond))
	return progress(ctx, "no more messages are delivered", func() (bool, uint64, error) {
		standings, err := p.db.Standings(ctx)
		return err == nil && standings["hook"].Waiting == 0, p.receiver.taken(), err
	})
}

// settleStored waits until as many alerts are stored as were raised; where old ones
// are removed, which nobody has still to be told of, until the receiver was.
func (p *parts) settleStored(ctx context.Context, n int) error {
	return progress(ctx, "no more alerts are stored", func() (bool, uint64, error) {
		if p.single {
			told := p.receiver.alerts()
			return told >= n, uint64(told), nil
		}
		c, err := p.db.Counts(ctx)
		return err == nil && c.Alerts >= n, uint64(c.Alerts), err
	})
}

// compare holds what is stored, joined and told against what was raised in some
// time, and stored until it ended.
func (p *parts) compare(ctx context.Context, raised map[string]string, began, ended time.Time, took time.Duration) error {
	stored, err := storedAlerts(ctx, p.db)
	if err != nil {
		return err
	}
	joined, beyond, err := p.joinedAlerts(ctx)
	if err != nil {
		return err
	}
	twice, lost, removed, foreign := 0, 0, 0, 0
	for id, n := range stored {
		if _, ours := raised[id]; !ours {
			foreign++
		}
		twice += n - 1
	}
	for id := range raised {
		switch {
		case stored[id] > 0:
		case p.single && joined[id]: // it was there
			removed++
		default:
			lost++
		}
	}
	if p.single { // those that an incident counts and does not list were there, too
		unlisted := min(lost, beyond)
		lost, removed = lost-unlisted, removed+unlisted
	}
	fmt.Printf("stored     %d alerts, %.0f each second; the last %s after it was raised; %d of them were removed as old\n", len(stored)+removed,
		float64(len(stored)+removed-len(p.before))/ended.Sub(began).Seconds(), max(0, ended.Sub(began)-took).Round(100*time.Millisecond), removed)
	fmt.Printf("lost       %d; stored twice %d, that nobody raised %d\n", lost, twice, foreign)
	err = p.receiver.compare(raised)
	if lost+twice+foreign > 0 {
		err = errors.Join(fmt.Errorf("%d alerts were raised; %d are stored and %d were removed as old", len(raised), len(stored), removed), err)
	}
	if len(joined)+beyond != len(raised) {
		err = errors.Join(fmt.Errorf("%d alerts were raised, and incidents are of %d", len(raised), len(joined)+beyond), err)
	}
	return err
}

// storedAlerts returns how often each id is stored.
func storedAlerts(ctx context.Context, db *store.Store) (map[string]int, error) {
	stored := map[string]int{}
	for seq := int64(0); ; {
		records, last, err := db.AlertsAfter(ctx, seq, alert.Query{Limit: 1000})
		if err != nil || len(records) == 0 {
			return stored, err
		}
		for _, r := range records {
			stored[r.ID]++
		}
		seq = last
	}
}

// joinedAlerts returns the alerts that incidents list, and how many more they count.
// None may be in two.
func (p *parts) joinedAlerts(ctx context.Context) (in map[string]bool, beyond int, err error) {
	in = map[string]bool{}
	incidents := 0
	for q := (incident.Query{Limit: 100}); ; {
		page, next, err := p.db.Incidents(ctx, q)
		if err != nil {
			return nil, 0, err
		}
		for _, i := range page {
			incidents++
			beyond += i.Dropped
			for _, s := range i.Signals {
				if in[s.Alert] {
					return nil, 0, fmt.Errorf("alert %s is in two incidents, one of which is %s", s.Alert, i.ID)
				}
				in[s.Alert] = true
			}
		}
		if next == (finding.Cursor{}) {
			fmt.Printf("joined     %d alerts into %d incidents\n", len(in)+beyond, incidents)
			return in, beyond, nil
		}
		q.Before = next
	}
}
