package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/store/postgrestest"
)

// server is where the second run of all tests has its databases; nil in the
// first one, whose databases are files.
var server *postgrestest.Server

// runOnBoth runs all tests and benchmarks twice, on SQLite and on PostgreSQL.
// Where the latter is missing it says so, and fails if KUBEGUARDIAN_REQUIRE=all.
func runOnBoth(m *testing.M) int {
	code := m.Run()
	if code != 0 || os.Getenv("STORE_TEST_DATABASE") == "sqlite" {
		return code
	}
	dir, err := os.MkdirTemp("", "store-postgres")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	server, err = postgrestest.Start(context.Background(), dir, "fsync=off", "max_connections=200")
	if err != nil {
		fmt.Fprintln(os.Stderr, "the tests do not run on PostgreSQL:", err)
		if errors.Is(err, postgrestest.ErrNone) && os.Getenv("KUBEGUARDIAN_REQUIRE") != "all" {
			return code
		}
		return 1
	}
	fmt.Println("again, on PostgreSQL:")
	code = m.Run()
	if err := server.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stop PostgreSQL:", err)
	}
	return code
}

// databases numbers the databases of the server.
var databases = struct {
	sync.Mutex
	n int
}{}

// address returns that of an empty database, which is a file in the first run
// and on the server in the second.
func address(t testing.TB) string {
	t.Helper()
	if server == nil {
		return filepath.Join(t.TempDir(), "kubeguardian.db")
	}
	databases.Lock()
	defer databases.Unlock()
	databases.n++
	return must[string](t)(server.Create(t.Context(), fmt.Sprintf("test%d", databases.n)))
}

// ofFiles is for tests of what only files have. They are not run again.
func ofFiles(t *testing.T) {
	if server != nil {
		t.Skip("of files, which the first run has tested")
	}
}

// onPostgres is for tests of what only PostgreSQL has, in the second run.
func onPostgres(t *testing.T) {
	if server == nil {
		t.Skip("of PostgreSQL, which the second run tests")
	}
}

// TestPasswordIsNotShown looks for it in the errors of URLs that are wrong in
// many ways, and of servers that refuse.
func TestPasswordIsNotShown(t *testing.T) {
	for _, url := range []string{
		"postgres://user:s3cret@127.0.0.1:1/db?connect_timeout=1",
		"postgres://user:s3cret@127.0.0.1:no/db",
		"postgres://user:s3cret%zz@127.0.0.1/db",
		"postgres://user:s3cret/more@127.0.0.1/db",
		"postgres://user:pa#s3cret@127.0.0.1/db",
		"postgres://user@127.0.0.1/db?password=s3cret&sslmode=no",
		"postgres://user:s3cret@127.0.0.1/db?sslrootcert=/none&sslmode=verify-full",
		"postgres://user:s3cret@[::1/db",
		"postgres://user:s3cret\n@127.0.0.1/db",
	} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		s, err := Open(ctx, url)
		if err == nil {
			s.Close()
			t.Errorf("%q was opened", url)
			continue
		}
		if strings.Contains(err.Error(), "s3cret") || !strings.HasPrefix(err.Error(), "open database") {
			t.Errorf("%q: %v", url, err)
		}
	}
}

func TestPostgresRefuses(t *testing.T) {
	onPostgres(t)
	ctx := t.Context()
	refused := func(url, want string) {
		t.Helper()
		s, err := Open(ctx, url)
		if err == nil {
			s.Close()
			t.Fatalf("%s was opened", want)
		}
		if text := err.Error(); !strings.Contains(text, want) || strings.Contains(text, postgrestest.Password) {
			t.Errorf("have %q, want %q", text, want)
		}
	}
	foreign := address(t)
	other := must[*Store](t)(Open(ctx, foreign))
	for _, statement := range []string{"DROP TABLE kubeguardian_schema"} {
		if _, err := other.writer.ExecContext(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}
	other.Close()
	refused(foreign, "database of another program")
	newer := address(t)
	other = must[*Store](t)(Open(ctx, newer))
	if _, err := other.writer.ExecContext(ctx, "UPDATE kubeguardian_schema SET version = 99"); err != nil {
		t.Fatal(err)
	}
	other.Close()
	refused(newer, fmt.Sprintf("its schema has version 99 and this program knows %d", len(migrations)))
	refused(server.URL("none"), "create the database")
	refused(strings.Replace(newer, postgrestest.Password, "wrong", 1), "see user and password")
}

// TestOpenedByMany expects one of several programs that start together to make
// the tables.
func TestOpenedByMany(t *testing.T) {
	onPostgres(t)
	url := address(t)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			s, err := Open(t.Context(), url)
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

// TestForeignText: bytes that PostgreSQL does not take as text, or Go not as
// UTF-8, keep no alert out.
func TestForeignText(t *testing.T) {
	s := open(t)
	a := testAlert(1)
	a.Rule, a.Subject.Namespace, a.Output = "nul\x00rule", "bad\xffname", "out\x00\xfe"
	if added, err := s.AddAlerts(t.Context(), testAlerts(1, 2)[:0]); err != nil || added != nil {
		t.Fatal(added, err)
	}
	if added, err := s.AddAlerts(t.Context(), append(testAlerts(2, 3), a)); err != nil || len(added) != 2 {
		t.Fatalf("%d added, %v", len(added), err)
	}
	if added, err := s.AddAlerts(t.Context(), append(testAlerts(2, 3), a)); err != nil || len(added) != 0 {
		t.Errorf("%d added again, %v", len(added), err)
	}
}

// two returns two stores on one database, as two replicas have.
func two(t *testing.T) (a, b *Store) {
	t.Helper()
	url := address(t)
	stores := [2]*Store{}
	for i := range stores {
		stores[i] = must[*Store](t)(Open(t.Context(), url))
		t.Cleanup(func() { stores[i].Close() })
	}
	return stores[0], stores[1]
}

// TestNumbersAreSeenInOrder: a reader that goes on after the last number that it
// has seen would miss what got a lower one and was committed later. The first
// part shows that PostgreSQL lets that happen, the second that the store does not.
func TestNumbersAreSeenInOrder(t *testing.T) {
	onPostgres(t)
	a, b := two(t)
	ctx := t.Context()
	slow := must[*sql.Tx](t)(a.writer.BeginTx(ctx, nil))
	insert := `INSERT INTO alerts (id, time, priority, rule, namespace, search, body) VALUES (?, 0, 0, '', '', '', '{}')`
	must[sql.Result](t)(slow.ExecContext(ctx, insert, "raw 1"))
	must[sql.Result](t)(b.writer.ExecContext(ctx, insert, "raw 2"))
	_, last, err := b.AlertsAfter(ctx, 0, alert.Query{})
	if err != nil {
		t.Fatal(err)
	}
	if err := slow.Commit(); err != nil {
		t.Fatal(err)
	}
	if missed, _, err := b.AlertsAfter(ctx, last, alert.Query{}); err != nil || len(missed) != 0 || last != 2 {
		t.Fatalf("PostgreSQL numbers in the order of commits: %v, %d, %v", missed, last, err)
	}

	inserted, proceed, done := make(chan bool), make(chan bool), make(chan error, 2)
	go func() {
		done <- a.write(ctx, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, insert, "slow")
			close(inserted)
			<-proceed
			return err
		})
	}()
	<-inserted
	go func() {
		_, err := b.AddAlerts(ctx, testAlerts(0, 1))
		done <- err
	}()
	waitUntil(t, a, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())")
	if early, end, err := b.AlertsAfter(ctx, last, alert.Query{}); err != nil || len(early) != 0 || end != last {
		t.Errorf("seen before what has a lower number: %v, %d, %v", early, end, err)
	}
	close(proceed)
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if both, _, err := b.AlertsAfter(ctx, last, alert.Query{}); err != nil || len(both) != 2 {
		t.Errorf("%d alerts, %v; want both", len(both), err)
	}
}

// waitUntil waits until a query counts something.
func waitUntil(t *testing.T, s *Store, query string) {
	t.Helper()
	for n := 0; n == 0; time.Sleep(10 * time.Millisecond) {
		if err := s.readers.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzURL: whatever is around it, no error shows a password.
func FuzzURL(f *testing.F) {
	f.Add("", "", "sslmode=no")
	f.Add("%zz", "/", "target_session_attrs=any")
	f.Add("a:b@", "#?", "connect_timeout=x")
	f.Add("", "@[::1", "sslrootcert=/none")
	f.Fuzz(func(t *testing.T, before, after, rest string) {
		_, err := parseURL("postgres://user:" + before + "s3cret" + after + "@host:5432/db?" + rest)
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q, %q, %q: %v", before, after, rest, err)
		}
	})
}
