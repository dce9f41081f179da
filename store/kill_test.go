package store

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
)

const killBatch = 20

// killGroup says that of ten alerts one is kept.
func killGroup(a *alert.Alert) (alert.Group, error) {
	tenth := a.Time.Unix() / 10
	return alert.Group{Key: strconv.AppendInt(nil, tenth, 10), Within: time.Hour}, nil
}

// writeForever adds batches of alerts, starting with the first that the store
// does not have, and prints the number of each batch once it is acknowledged.
func writeForever(path string) {
	ctx := context.Background()
	s, err := Open(ctx, path)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	counts, err := s.Counts(ctx)
	for n := counts.Alerts * 10 / killBatch; err == nil; n++ {
		// Every batch repeats the one before, as a caller does that was killed
		// before it could acknowledge.
		_, _, err = s.AddGrouped(ctx, testAlerts(max(n-1, 0)*killBatch, (n+1)*killBatch), killGroup)
		fmt.Println(n)
	}
	fmt.Println(err)
	os.Exit(1)
}

// A process is killed in the middle of its writes, several times: what it has
// acknowledged is there or counted, once, and the file is sound.
func TestKilledProcess(t *testing.T) {
	path := address(t)
	acknowledged := -1
	for round := range 5 {
		acknowledged = killWriter(t, path, acknowledged, 10+7*round)
		s, err := Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		checkIntegrity(t, s)
		all := readAll(t, s, alert.Query{Limit: maxLimit})
		seen := map[string]bool{}
		for _, r := range all {
			if seen[r.ID] {
				t.Errorf("alert %s is there twice", r.ID)
			}
			if seen[r.ID] = true; r.Repeats == nil || r.Repeats.Count != 9 {
				t.Errorf("round %d: alert %s has %+v, want 9 repeats", round, r.ID, r.Repeats)
			}
		}
		for i, a := range testAlerts(0, (acknowledged+1)*killBatch) {
			if i%10 == 0 && !seen[a.ID] {
				t.Errorf("round %d: alert %s was acknowledged and is lost", round, a.ID)
			}
		}
		if len(all)*10%killBatch != 0 {
			t.Errorf("round %d: %d alerts: half a batch was stored", round, len(all))
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// killWriter runs a writer and kills it after some batches; it returns the last
// one that the writer acknowledged.
func killWriter(t *testing.T, path string, acknowledged, batches int) int {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "STORE_TEST_WRITE="+path)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	for n := 0; lines.Scan(); n++ {
		if acknowledged, err = strconv.Atoi(lines.Text()); err != nil {
			t.Fatalf("the writer says %q", lines.Text())
		}
		if n == batches {
			cmd.Process.Kill() // what it has printed meanwhile is still read
		}
	}
	if err := cmd.Wait(); cmd.ProcessState.Exited() {
		t.Fatalf("the writer was not killed: %v", err)
	}
	return acknowledged
}
