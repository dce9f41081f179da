package postgrestest

import (
	"errors"
	"os"
	"testing"
)

// ForTest starts a server that is killed when the test has ended, and returns it
// with the address of an empty database. Where PostgreSQL is not installed the
// test is skipped, or fails if KUBEGUARDIAN_REQUIRE is all.
func ForTest(t testing.TB) (s *Server, address string) {
	t.Helper()
	s, err := Start(t.Context(), t.TempDir(), "fsync=off")
	if errors.Is(err, ErrNone) && os.Getenv("KUBEGUARDIAN_REQUIRE") != "all" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Kill() }) // it was, or has no more use
	if address, err = s.Create(t.Context(), "kubeguardian"); err != nil {
		t.Fatal(err)
	}
	return s, address
}
