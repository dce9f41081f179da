package application

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/api/applicationv1"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/database"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/token"
)

var (
	errNone    = errors.New("application: none with this id for this company")
	errDecided = errors.New("application: decided otherwise")
)

// A row is an application.
type row struct {
	ID, OfferID, CompanyID, StudentID, Motivation, Status string
	Created                                               time.Time
}

const columns = "id, offer_id, company_id, student_id, motivation, status, created"

func scan(r pgx.Row) (a row, err error) {
	err = r.Scan(&a.ID, &a.OfferID, &a.CompanyID, &a.StudentID, &a.Motivation, &a.Status, &a.Created)
	if errors.Is(err, pgx.ErrNoRows) {
		err = errNone
	}
	return a, err
}

func (r row) proto() *applicationv1.Application {
	return &applicationv1.Application{
		Id: r.ID, OfferId: r.OfferID, CompanyId: r.CompanyID, StudentId: r.StudentID,
		Motivation: r.Motivation, Status: state(r.Status), Created: timestamppb.New(r.Created),
	}
}

// A store keeps applications in PostgreSQL.
type store struct{ pool *pgxpool.Pool }

// add keeps an application, or returns the one that the student made before.
func (s store) add(ctx context.Context, r row) (kept row, err error) {
	err = database.Do(ctx, s.pool, func(tx pgx.Tx) error {
		kept, err = scan(tx.QueryRow(ctx, `INSERT INTO applications (id, offer_id, company_id, student_id, motivation)
			VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (student_id, offer_id) DO UPDATE SET offer_id = EXCLUDED.offer_id
			RETURNING `+columns, r.ID, r.OfferID, r.CompanyID, r.StudentID, r.Motivation))
		return err
	})
	return kept, err
}

// decide changes an application for an offer of a company. What others may not
// see does not exist for them.
func (s store) decide(ctx context.Context, companyID, id, status string) (decided row, err error) {
	err = database.Do(ctx, s.pool, func(tx pgx.Tx) error {
		decided, err = scan(tx.QueryRow(ctx, `UPDATE applications
			SET status = CASE status WHEN 'pending' THEN $3 ELSE status END
			WHERE id = $1 AND company_id = $2 RETURNING `+columns, id, companyID, status))
		if err == nil && decided.Status != status {
			return errDecided
		}
		return err
	})
	return decided, err
}

func (s store) search(ctx context.Context, who token.User, by *applicationv1.SearchRequest, page database.Page) (found []row, err error) {
	err = database.Do(ctx, s.pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, "SELECT "+columns+` FROM applications
			WHERE (created, id) < ($1, $2)
			  AND ($3 = 'admin' OR ($3 = 'student' AND student_id = $4) OR ($3 = 'company' AND company_id = $4))
			  AND ($5 = '' OR offer_id::text = $5)
			  AND ($6 = '' OR status = $6)
			ORDER BY created DESC, id DESC LIMIT $7`,
			page.Before, page.ID, who.Role, who.ID, by.GetOfferId(), states[by.GetStatus()], page.Size)
		if err != nil {
			return err
		}
		found, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (row, error) { return scan(r) })
		return err
	})
	return found, err
}
