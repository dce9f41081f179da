package notify_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/webhook"
	"github.com/kubeguardian/kubeguardian/store"
)

// TestMain lets this binary play the process that is killed; see
// TestKilledProcess.
func TestMain(m *testing.M) {
	if path := os.Getenv("NOTIFY_TEST_DB"); path != "" {
		if err := deliverForever(path, os.Getenv("NOTIFY_TEST_URL"), os.Getenv("NOTIFY_TEST_ADD") != ""); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// deliverForever stores alerts, prints the number of each that is stored, and
// delivers all to a URL. Without more to add it ends once none waits.
func deliverForever(path, url string, add bool) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s, err := store.Open(ctx, path)
	if err != nil {
		return err
	}
	c, err := config.Parse("config.yaml", []byte(fmt.Sprintf(`
notify:
  destinations:
  - {name: hook, type: webhook, minBackoff: 10ms, maxBackoff: 20ms, config: {url: %q, http: {allowAddresses: [127.0.0.1]}}}
  routes:
  - {to: [hook], of: alerts, groupBy: [output], groupWait: 0s, groupWindow: 0s}`, url)))
	if err != nil {
		return err
	}
	n, err := notify.New(notify.Setup{Config: &c.Notify, Cluster: "prod", Version: "test", Store: s, Types: map[string]notify.Constructor{"webhook": notify.Construct(webhook.New)}})
	if err != nil {
		return err
	}
	go n.Run(ctx)
	for found := false; !found; time.Sleep(10 * time.Millisecond) { // what was there before it ran first is not told of
		if _, _, found, err = s.Notified(ctx); err != nil {
			return err
		}
	}
	for add {
		last, err := s.LastAlert(ctx)
		if err != nil {
			return err
		}
		number := int(last) + 1
		a := alert.Alert{
			ID: alert.NewID("test", fmt.Sprint(number), "rule"), Time: time.Now(), Rule: "Rule", Priority: alert.Warning, Output: fmt.Sprint(number),
			OutputFields: map[string]any{"n": number}, Subject: finding.Subject{Kind: "Pod", Name: "web"},
		}
		if _, err := s.AddAlerts(ctx, []alert.Alert{a}); err != nil {
			return err
		}
		_, joined, _, err := s.Notified(ctx) // less than last, if a process was killed in between
		if err != nil {
			return err
		}
		if err := s.SaveIncidents(ctx, nil, nil, store.Joined{Alert: joined}, last+1); err != nil {
			return err
		}
		fmt.Println(number)
		n.Alerted()
	}
	for {
		notified, joined, _, err := s.Notified(ctx)
		if err != nil {
			return err
		}
		standings, err := s.Standings(ctx)
		if err != nil {
			return err
		}
		if notified == joined && standings["hook"].Waiting == 0 {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestKilledProcess kills a process in the middle of its deliveries, several
// times, while the receiver fails now and then: each alert that was stored
// arrives, in order, under one key; and twice only what was on its way when the
// process was killed.
func TestKilledProcess(t *testing.T) {
	var mu sync.Mutex
	requests, seen := 0, map[int][]string{} // keys by number
	var order []int
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var got struct {
			UUID   string
			Output string
		}
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			return // of a process that was killed
		}
		number, err := strconv.Atoi(got.Output)
		if err != nil {
			t.Errorf("got %+v", got)
		}
		mu.Lock()
		defer mu.Unlock()
		if requests++; requests%17 == 0 {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		if len(seen[number]) == 0 {
			order = append(order, number)
		}
		seen[number] = append(seen[number], got.UUID)
	}))
	defer server.Close()
	path := testDB(t)
	run := func(add string) *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "NOTIFY_TEST_DB="+path, "NOTIFY_TEST_URL="+server.URL, "NOTIFY_TEST_ADD="+add)
		return cmd
	}
	const rounds = 6
	stored := 0
	for round := range rounds {
		stored = killed(t, run("yes"), 15+9*round)
	}
	if out, err := run("").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	mu.Lock()
	defer mu.Unlock()
	twice := 0
	for number := 1; number <= stored; number++ {
		keys := seen[number]
		if len(keys) == 0 {
			t.Errorf("alert %d was stored and did not arrive", number)
			continue
		}
		twice += len(keys) - 1
		for _, key := range keys {
			if key != keys[0] {
				t.Errorf("alert %d has the keys %q", number, keys)
			}
		}
	}
	if twice > rounds {
		t.Errorf("%d messages came twice in %d rounds", twice, rounds)
	}
	for i := 1; i < len(order); i++ {
		if order[i] < order[i-1] {
			t.Errorf("%d came after %d", order[i], order[i-1])
		}
	}
	t.Logf("%d alerts stored, %d requests, %d messages came twice", stored, requests, twice)
}

// killed runs a process until it has stored some alerts, kills it, and returns
// the number of the last alert that it stored.
func killed(t *testing.T, cmd *exec.Cmd, alerts int) (last int) {
	t.Helper()
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	for n := 0; lines.Scan(); n++ {
		if last, err = strconv.Atoi(strings.TrimSpace(lines.Text())); err != nil {
			t.Fatalf("the process says %q", lines.Text())
		}
		if n == alerts {
			cmd.Process.Kill()
		}
	}
	if cmd.Wait(); cmd.ProcessState.Exited() {
		t.Fatalf("the process was not killed: %s", cmd.ProcessState)
	}
	return last
}
