package leaf

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus/roster"
	"github.com/kubeguardian/kubeguardian/store"
)

// A process of the test that is killed, and what it is to do.
type process struct {
	Hub, DB, Members, Key, Addr string
	Alerts                      int // that the spoke raises, in all
}

const processVariable = "LEAF_TEST_PROCESS"

func TestMain(m *testing.M) {
	text := os.Getenv(processVariable)
	if text == "" {
		os.Exit(m.Run())
	}
	var p process
	err := json.Unmarshal([]byte(text), &p)
	if err == nil {
		err = p.run(context.Background())
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// run is what the process does until it is killed.
func (p *process) run(ctx context.Context) error {
	db, err := store.Open(ctx, p.DB)
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	if p.Hub != "" {
		h, err := insist(HubOptions{
			Listen: p.Addr, Own: p.Hub, Members: p.Members, Log: log,
			Alerts: func(ctx context.Context, _ string, alerts []alert.Alert) error {
				_, err := db.AddAlerts(ctx, alerts)
				return err
			},
			State: func(context.Context, string, *roster.State) error { return nil },
		})
		if err != nil {
			return err
		}
		if err := os.WriteFile(p.Members+".addr", []byte(h.Addr().String()), 0o600); err != nil {
			return err
		}
		select {}
	}
	spoke, err := NewSpoke(SpokeOptions{
		URL: "nats://" + p.Addr, KeyFile: p.Key, Cluster: "eu-1", Alerts: db, Interval: time.Second, Log: log, State: func() roster.State { return roster.State{} },
	})
	if err != nil {
		return err
	}
	go spoke.Run(ctx)
	counts, err := db.Counts(ctx)
	for n := counts.Alerts; err == nil && n < p.Alerts; n += 10 {
		var alerts []alert.Alert
		for i := n + 1; i <= n+10; i++ {
			alerts = append(alerts, shell("eu-1", i))
		}
		_, err = db.AddAlerts(ctx, alerts)
		spoke.Alerted()
		time.Sleep(5 * time.Millisecond)
	}
	if err != nil {
		return err
	}
	select {}
}

// insist starts a hub, if need be when another has left its port.
func insist(o HubOptions) (h *Hub, err error) {
	for range 600 {
		if h, err = StartHub(o); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	return h, err
}

func (p process) start(t *testing.T) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), processVariable+"="+string(text))
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func kill(cmd *exec.Cmd) {
	cmd.Process.Kill()
	cmd.Wait()
}

// Hub and spoke are killed in turn, while alerts are raised: what the hub has in
// the end is what was raised, in that order.
func TestKilledProcesses(t *testing.T) {
	const total = 3000
	dir := t.TempDir()
	s := &site{t: t, members: filepath.Join(dir, "clusters"), options: HubOptions{Log: slog.New(slog.DiscardHandler)}}
	write(t, s.members, "")
	hub := process{Hub: "central", DB: filepath.Join(dir, "hub"), Members: s.members, Addr: "127.0.0.1:0"}
	spoke := process{Key: s.join("eu-1"), DB: filepath.Join(dir, "spoke"), Alerts: total}
	h := hub.start(t)
	await(t, "hub", when(func() bool {
		addr, _ := os.ReadFile(s.members + ".addr")
		spoke.Addr, hub.Addr = string(addr), string(addr)
		return len(addr) > 0
	}))
	sp := spoke.start(t)
	defer func() { kill(h); kill(sp) }()
	s.store = reopen(t, hub.DB)
	for round := range 4 {
		least := (round + 1) * total / 8
		await(t, fmt.Sprint(least, " alerts"), func() (int, bool) { n := len(s.stored("eu-1")); return n, n >= least })
		if round%2 == 0 {
			kill(h)
			h = hub.start(t)
		} else {
			kill(sp)
			sp = spoke.start(t)
		}
	}
	s.arrive("eu-1", total)
}

// reopen opens a database that a process has made.
func reopen(t *testing.T, file string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
