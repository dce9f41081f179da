package outbox

import (
	"context"
	"strings"

	"github.com/kubeguardian/kubeguardian/notify/delivery"
)

// Delivery returns the message to a destination that has a key, and whether there
// is one.
func (q *Queue) Delivery(ctx context.Context, destination, key string) (m delivery.Message, found bool, err error) {
	list, err := scanDeliveries(ctx, q.readers, " WHERE destination = ? AND key = ?", destination, key)
	if err != nil || len(list) == 0 {
		return m, false, q.explain("read messages from", err)
	}
	return list[0], true, nil
}

// Deliveries returns a page of messages, and the seq before which the next one
// begins, 0 after the last.
func (q *Queue) Deliveries(ctx context.Context, of delivery.Query) (page []delivery.Message, next int64, err error) {
	var terms []string
	var args []any
	add := func(given bool, term string, arg any) {
		if given {
			terms, args = append(terms, term), append(args, arg)
		}
	}
	add(of.Destination != "", "destination = ?", of.Destination)
	add(of.State != "", "state = ?", string(of.State))
	add(of.Incident != "", "incident <> '' AND incident IN (SELECT incident FROM announced WHERE whole = ?)", of.Incident)
	add(of.Before != 0, "seq < ?", of.Before)
	where := ""
	if len(terms) > 0 {
		where = " WHERE " + strings.Join(terms, " AND ")
	}
	n := of.Limit
	if n <= 0 {
		n = defaultLimit
	}
	n = min(n, maxLimit)
	page, err = scanDeliveries(ctx, q.readers, where+" ORDER BY seq DESC LIMIT ?", append(args, n+1)...)
	if len(page) > n {
		page, next = page[:n], page[n-1].Seq
	}
	return page, next, q.explain("read messages from", err)
}

// Standings returns how each destination is doing that has messages.
func (q *Queue) Standings(ctx context.Context) (map[string]delivery.Standing, error) {
	out, err := q.standings(ctx)
	return out, q.explain("read messages from", err)
}

func (q *Queue) standings(ctx context.Context) (map[string]delivery.Standing, error) {
	rows, err := q.readers.QueryContext(ctx, "SELECT destination, state, count(*) FROM deliveries GROUP BY destination, state")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[string]delivery.Standing{}
	for rows.Next() {
		var destination, state string
		var n int
		if err := rows.Scan(&destination, &state, &n); err != nil {
			return nil, err
		}
		standing := out[destination]
		switch delivery.State(state) {
		case delivery.Waiting:
			standing.Waiting = n
		case delivery.Dead:
			standing.Dead = n
		case delivery.Delivered:
			standing.Delivered = n
		case delivery.Summarised:
			standing.Summarised = n
		}
		out[destination] = standing
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for name, standing := range out {
		head, err := scanDeliveries(ctx, q.readers, " WHERE destination = ? AND state = ? ORDER BY due, seq LIMIT 1", name, string(delivery.Waiting))
		if err != nil {
			return nil, err
		}
		for _, m := range head {
			standing.Oldest, standing.Attempts, standing.Reason = m.Due, m.Attempts, m.Reason
		}
		out[name] = standing
	}
	return out, nil
}
