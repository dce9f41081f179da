package store

import (
	"context"
	"database/sql"
	_ "embed" // the texts of the first ones
	"errors"
	"fmt"

	"github.com/kubeguardian/kubeguardian/store/history"
	"github.com/kubeguardian/kubeguardian/store/retention"
	"github.com/kubeguardian/kubeguardian/store/sessions"
)

// migrations lead from one version of the schema to the next, the first one
// from an empty database. A released one never changes. They are in the words of
// SQLite, which the dialect of PostgreSQL knows to say in its own: INTEGER, TEXT
// and BLOB, times as nanoseconds since 1970, reserved words in quotes. Queries name
// their subqueries and use no functions that only one of the two has.
//
// The body of a record is its JSON; the columns before it are what queries
// select by, with "search" as the text that users search in; that of alerts is
// empty, see blocks.go.
var migrations = [...]string{recordTables, heldTables, checkpointTable, repeatTables, incidentTable, entityTables, listIndices, actionsTable, deliveryTables, blockTables, followColumns, notifyFromBegin, clusterTables, history.Schema, escalationColumns, retention.Tables, sessions.Schema, sessions.FailureSchema, recordWords, signalTables, driftColumn}

var (
	//go:embed schema/records.sql
	recordTables string
	//go:embed schema/held.sql
	heldTables string
	//go:embed schema/checkpoints.sql
	checkpointTable string
	//go:embed schema/repeats.sql
	repeatTables string
	//go:embed schema/incidents.sql
	incidentTable string
	//go:embed schema/entities.sql
	entityTables string
	//go:embed schema/actions.sql
	actionsTable string
	//go:embed schema/lists.sql
	listIndices string
	//go:embed schema/deliveries.sql
	deliveryTables string
	//go:embed schema/escalation.sql
	escalationColumns string
	//go:embed schema/clusters.sql
	clusterTables string
	//go:embed schema/follow.sql
	followColumns string
	//go:embed schema/notify_from_begin.sql
	notifyFromBegin string
	//go:embed schema/signals.sql
	signalTables string
	//go:embed schema/drift.sql
	driftColumn string
)

// migrate brings a schema of a version up to date, in a transaction.
func migrate(ctx context.Context, tx *sql.Tx, version int, translate func(string) string) error {
	if version > len(migrations) {
		return fmt.Errorf("its schema has version %d and this program knows %d: run the newer version of KubeGuardian that wrote it", version, len(migrations))
	}
	for n, m := range migrations[version:] {
		if _, err := tx.ExecContext(ctx, translate(m)); err != nil {
			return fmt.Errorf("bring schema from version %d to %d: %w", version+n, version+n+1, err)
		}
	}
	return nil
}

var errForeign = errors.New("this is a database of another program: choose another one")
