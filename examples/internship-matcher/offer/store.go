package offer

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/api/offerv1"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/database"
)

var (
	errNone    = errors.New("offer: none with this id")
	errOthers  = errors.New("offer: of another company")
	errChanged = errors.New("offer: has another version")
	errKeyUsed = errors.New("offer: another content under this key")
)

// content is what a company says about an internship.
type content struct {
	Title, Description, Location string
	Weeks, Places                int32
}

func contentOf(c *offerv1.Content) content {
	return content{c.GetTitle(), c.GetDescription(), c.GetLocation(), c.GetWeeks(), c.GetPlaces()}
}

// A row is an offer.
type row struct {
	ID, CompanyID string
	content
	Version int64
	Deleted bool
	Created time.Time
}

const columns = "id, company_id, title, description, location, weeks, places, version, deleted, created"

func scan(r pgx.Row) (o row, err error) {
	err = r.Scan(&o.ID, &o.CompanyID, &o.Title, &o.Description, &o.Location, &o.Weeks, &o.Places, &o.Version, &o.Deleted, &o.Created)
	if errors.Is(err, pgx.ErrNoRows) {
		err = errNone
	}
	return o, err
}

func (r row) proto() *offerv1.Offer {
	return &offerv1.Offer{
		Id: r.ID, CompanyId: r.CompanyID, Version: r.Version, Deleted: r.Deleted, Created: timestamppb.New(r.Created),
		Content: &offerv1.Content{Title: r.Title, Description: r.Description, Location: r.Location, Weeks: r.Weeks, Places: r.Places},
	}
}

// A store keeps offers in PostgreSQL.
type store struct{ pool *pgxpool.Pool }

// add keeps a new offer, or returns the one that its company made under the
// same key.
func (s store) add(ctx context.Context, r row, key string) (added row, err error) {
	err = database.Do(ctx, s.pool, func(tx pgx.Tx) error {
		added, err = scan(tx.QueryRow(ctx, `INSERT INTO offers (id, company_id, idempotency_key, title, description, location, weeks, places)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
			ON CONFLICT (company_id, idempotency_key) DO UPDATE SET idempotency_key = EXCLUDED.idempotency_key
			RETURNING `+columns, r.ID, r.CompanyID, key, r.Title, r.Description, r.Location, r.Weeks, r.Places))
		if err == nil && added.ID != r.ID && added.Version == 1 && added.content != r.content {
			return errKeyUsed
		}
		return err
	})
	return added, err
}

func (s store) get(ctx context.Context, id string) (found row, err error) {
	err = database.Do(ctx, s.pool, func(tx pgx.Tx) error {
		found, err = scan(tx.QueryRow(ctx, "SELECT "+columns+" FROM offers WHERE id = $1", id))
		return err
	})
	return found, err
}

// own locks an offer of a company for a change.
func own(ctx context.Context, tx pgx.Tx, companyID, id string) (row, error) {
	r, err := scan(tx.QueryRow(ctx, "SELECT "+columns+" FROM offers WHERE id = $1 FOR UPDATE", id))
	if err == nil && r.CompanyID != companyID {
		err = errOthers
	}
	return r, err
}

// update replaces the content. A call that comes again after its answer was
// lost finds its own change, and returns that.
func (s store) update(ctx context.Context, companyID, id string, version int64, c content) (changed row, err error) {
	err = database.Do(ctx, s.pool, func(tx pgx.Tx) error {
		before, err := own(ctx, tx, companyID, id)
		switch {
		case err != nil:
			return err
		case before.Version == version+1 && before.content == c:
			changed = before
			return nil
		case before.Version != version || before.Deleted:
			return errChanged
		}
		changed, err = scan(tx.QueryRow(ctx, `UPDATE offers
			SET title = $2, description = $3, location = $4, weeks = $5, places = $6, version = version + 1
			WHERE id = $1 RETURNING `+columns, id, c.Title, c.Description, c.Location, c.Weeks, c.Places))
		return err
	})
	return changed, err
}

func (s store) hide(ctx context.Context, companyID, id string, deleted bool) (changed row, err error) {
	err = database.Do(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := own(ctx, tx, companyID, id); err != nil {
			return err
		}
		changed, err = scan(tx.QueryRow(ctx, "UPDATE offers SET deleted = $2 WHERE id = $1 RETURNING "+columns, id, deleted))
		return err
	})
	return changed, err
}

func (s store) search(ctx context.Context, by *offerv1.SearchRequest, page database.Page) (found []row, err error) {
	err = database.Do(ctx, s.pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, "SELECT "+columns+` FROM offers
			WHERE NOT deleted AND (created, id) < ($1, $2)
			  AND ($3 = '' OR words @@ plainto_tsquery('simple', $3))
			  AND ($4 = '' OR location = $4)
			  AND ($5 = '' OR company_id::text = $5)
			ORDER BY created DESC, id DESC LIMIT $6`,
			page.Before, page.ID, by.GetText(), by.GetLocation(), by.GetCompanyId(), page.Size)
		if err != nil {
			return err
		}
		found, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (row, error) { return scan(r) })
		return err
	})
	return found, err
}
