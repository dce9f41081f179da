package leaf

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kubeguardian/kubeguardian/admission"
	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus/roster"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/store"
)

// A site is the hub of a test, and what it has been told.
type site struct {
	*Hub
	t       *testing.T
	members string // file
	store   *store.Store
	options HubOptions

	mu      sync.Mutex
	states  map[string]roster.State
	failing error
}

func database(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newSite(t *testing.T, change func(*HubOptions)) *site {
	t.Helper()
	s := &site{t: t, members: filepath.Join(t.TempDir(), "clusters"), store: database(t), states: map[string]roster.State{}}
	write(t, s.members, "# nobody yet\n")
	s.options = HubOptions{
		Listen: "127.0.0.1:0", Own: "central", Members: s.members, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Alerts: func(ctx context.Context, cluster string, alerts []alert.Alert) error {
			if err := s.failure(); err != nil {
				return err
			}
			_, err := s.store.AddAlerts(ctx, alerts)
			return err
		},
		State: func(_ context.Context, cluster string, st *roster.State) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.states[cluster] = *st
			return nil
		},
	}
	if change != nil {
		change(&s.options)
	}
	s.start()
	return s
}

func (s *site) start() {
	s.t.Helper()
	h, err := insist(s.options)
	if err != nil {
		s.t.Fatal(err)
	}
	s.Hub = h
	s.options.Listen = h.Addr().String() // the same when it starts again
	s.t.Cleanup(h.Stop)
}

func (s *site) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failing
}

func (s *site) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing = err
}

func (s *site) state(cluster string) roster.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.states[cluster]
}

// join makes a key for a cluster and returns its file.
func (s *site) join(cluster string) string {
	s.t.Helper()
	key, line, err := NewKey(cluster)
	if err != nil {
		s.t.Fatal(err)
	}
	old, err := os.ReadFile(s.members)
	if err != nil {
		s.t.Fatal(err)
	}
	write(s.t, s.members, string(old)+line+"\n")
	file := filepath.Join(s.t.TempDir(), "key")
	write(s.t, file, string(key))
	return file
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A member is a cluster that reports.
type member struct {
	*Spoke
	store *store.Store
	n     int
	end   func()
}

func (s *site) spoke(cluster, key string, db *store.Store) *member {
	s.t.Helper()
	scheme := "nats"
	o := SpokeOptions{
		KeyFile: key, Cluster: cluster, Alerts: db, Interval: time.Second, Log: s.options.Log,
		State: func() roster.State { return roster.State{Version: "v1", Problems: []string{"The audit log is blind."}} },
	}
	if s.options.TLS != nil {
		scheme, o.CAFile = "tls", filepath.Join(filepath.Dir(s.members), "ca.crt")
	}
	o.URL = scheme + "://" + s.options.Listen
	spoke, err := NewSpoke(o)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan error, 1)
	go func() { done <- spoke.Run(ctx) }()
	end := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	})
	s.t.Cleanup(end)
	return &member{Spoke: spoke, store: db, end: end}
}

// raise adds alerts to the store of a cluster.
func (m *member) raise(t *testing.T, n int) {
	t.Helper()
	var alerts []alert.Alert
	for range n {
		m.n++
		alerts = append(alerts, shell(m.Cluster, m.n))
	}
	if _, err := m.store.AddAlerts(t.Context(), alerts); err != nil {
		t.Fatal(err)
	}
	m.Alerted()
}

func shell(cluster string, i int) alert.Alert {
	return alert.Alert{
		ID:   alert.NewID(event.Syscall, fmt.Sprint(i), "Shell"), // the same in each cluster
		Time: time.Now(), Rule: "Shell", Priority: alert.Warning, Source: event.Syscall, Cluster: cluster,
		Output: fmt.Sprintf("shell %d of %s", i, cluster), Hostname: "n1", OutputFields: map[string]any{"evt.time": int64(1_772_366_401_000_000_001), "n": i},
	}
}

// stored returns the numbers of the alerts of a cluster that the hub has, in the
// order in which it got them.
func (s *site) stored(cluster string) (numbers []string) {
	s.t.Helper()
	var seq int64
	for {
		records, last, err := s.store.AlertsAfter(s.t.Context(), seq, alert.Query{Limit: 1000})
		if err != nil {
			s.t.Fatal(err)
		}
		for _, r := range records {
			if r.Cluster == cluster {
				numbers = append(numbers, fmt.Sprint(r.OutputFields["n"]))
			}
		}
		if last == seq {
			return numbers
		}
		seq = last
	}
}

// arrive waits until the hub has n alerts of a cluster, and checks their order.
func (s *site) arrive(cluster string, n int) {
	s.t.Helper()
	await(s.t, fmt.Sprintf("%d alerts of %s", n, cluster), func() (int, bool) { have := len(s.stored(cluster)); return have, have >= n })
	for i, number := range s.stored(cluster) {
		if number != fmt.Sprint(i+1) {
			s.t.Fatalf("alert %d of %s is number %s", i+1, cluster, number)
		}
	}
	if have := len(s.stored(cluster)); have != n {
		s.t.Fatalf("%d alerts of %s, want %d", have, cluster, n)
	}
}

// await waits until something is so. It fails when nothing has moved for a minute.
func await(t *testing.T, what string, is func() (progress int, done bool)) {
	t.Helper()
	last, moved := -1, time.Now()
	for {
		progress, done := is()
		if done {
			return
		}
		if progress != last {
			last, moved = progress, time.Now()
		}
		if time.Since(moved) > time.Minute {
			t.Fatalf("no %s: it stands at %d", what, progress)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func when(is func() bool) func() (int, bool) { return func() (int, bool) { return 0, is() } }

func TestTwoClusters(t *testing.T) {
	s := newSite(t, nil)
	a, b := s.spoke("eu-1", s.join("eu-1"), database(t)), s.spoke("us.east", s.join("us.east"), database(t))
	a.raise(t, 700)
	b.raise(t, 30)
	s.arrive("eu-1", 700)
	s.arrive("us.east", 30)
	await(t, "states", when(func() bool { return s.state("eu-1").Version == "v1" && s.state("us.east").Problems != nil }))
	await(t, "connections", when(func() bool { c := s.Clusters(); return c["eu-1"].Connected && c["us.east"].Connected }))
	if c := s.Clusters()["eu-1"]; c.Received != 700 || c.Failed != 0 || len(c.Refused) != 0 {
		t.Errorf("%+v", c)
	}
	await(t, "rest", when(func() bool { return a.Stats().Waiting == 0 && a.Stats().Err == nil }))
	if st := a.Stats(); st.Sent != 700 || !st.Connected || !st.Oldest.IsZero() {
		t.Errorf("%+v", st)
	}
	a.end()
	await(t, "goodbye", when(func() bool { return s.state("eu-1").Stopped }))
	await(t, "end of a connection", when(func() bool { c := s.Clusters(); return !c["eu-1"].Connected && c["us.east"].Connected }))
}

func TestTLS(t *testing.T) {
	authority, err := admission.OpenAuthority(t.Context(), admission.FileKeys(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, func(o *HubOptions) { o.TLS = authority.ServerTLS("127.0.0.1") })
	write(t, filepath.Join(filepath.Dir(s.members), "ca.crt"), string(authority.CABundle()))
	m := s.spoke("eu-1", s.join("eu-1"), database(t))
	m.raise(t, 3)
	s.arrive("eu-1", 3)

	// A hub that another authority has signed is not talked to.
	other, err := admission.OpenAuthority(t.Context(), admission.FileKeys(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(filepath.Dir(s.members), "ca.crt"), string(other.CABundle()))
	m = s.spoke("eu-2", s.join("eu-2"), database(t))
	m.raise(t, 3)
	await(t, "refusal", when(func() bool { err := m.Stats().Err; return err != nil && strings.Contains(err.Error(), "certificate") }))
	if have := s.stored("eu-2"); have != nil {
		t.Errorf("alerts went to a stranger: %q", have)
	}
}

// The hub is away, and its store fails: all comes later, in order, once.
func TestHubAway(t *testing.T) {
	s := newSite(t, nil)
	m := s.spoke("eu-1", s.join("eu-1"), database(t))
	m.raise(t, 10)
	s.arrive("eu-1", 10)
	s.Hub.Stop()
	m.raise(t, 1200)
	await(t, "waiting", when(func() bool {
		st := m.Stats()
		return st.Waiting == 1200 && st.Err != nil && !st.Oldest.IsZero() && !st.Connected
	}))
	s.fail(errors.New("the disk is full"))
	s.start()
	await(t, "failure", when(func() bool { err := m.Stats().Err; return err != nil && strings.Contains(err.Error(), "cannot store") }))
	if err := m.Stats().Err; strings.Contains(err.Error(), "disk") {
		t.Errorf("the cluster is told what is wrong inside the hub: %v", err)
	}
	s.fail(nil)
	s.arrive("eu-1", 1210)
}

// A spoke that ends goes on where it was, also when the last answer was lost.
func TestSpokeAgain(t *testing.T) {
	s := newSite(t, nil)
	key, db := s.join("eu-1"), database(t)
	m := s.spoke("eu-1", key, db)
	m.raise(t, 100)
	s.arrive("eu-1", 100)
	m.end()
	if err := db.SaveCheckpoint(t.Context(), checkpoint, []byte("60")); err != nil {
		t.Fatal(err)
	}
	n := m.n
	m = s.spoke("eu-1", key, db)
	m.n = n
	m.raise(t, 100)
	s.arrive("eu-1", 200)
}

// What was before a cluster joined stays there, but for the last hour.
func TestJoin(t *testing.T) {
	s := newSite(t, nil)
	db := database(t)
	old := shell("eu-1", 1000)
	old.Time = time.Now().Add(-2 * firstWindow)
	if _, err := db.AddAlerts(t.Context(), []alert.Alert{old, shell("eu-1", 1)}); err != nil {
		t.Fatal(err)
	}
	s.spoke("eu-1", s.join("eu-1"), db)
	s.arrive("eu-1", 1)
}

// leafOf connects as a cluster does, and returns a client that says what it likes.
func (s *site) leafOf(cluster, key string) *nats.Conn {
	s.t.Helper()
	spoke, err := NewSpoke(SpokeOptions{URL: "nats://" + s.options.Listen, KeyFile: key, Cluster: cluster, Log: s.options.Log})
	if err != nil {
		s.t.Fatal(err)
	}
	server, err := spoke.open()
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(server.Stop)
	nc, err := nats.Connect("", nats.InProcessServer(server.Server))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(nc.Close)
	await(s.t, "connection", when(func() bool { return server.NumLeafNodes() == 1 }))
	return nc
}

func (s *site) ask(nc *nats.Conn, subject string, question any) (a answer, err error) {
	s.t.Helper()
	data, err := json.Marshal(question)
	if err != nil {
		s.t.Fatal(err)
	}
	m, err := nc.Request(subject, data, time.Minute)
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(m.Data, &a); err != nil {
		s.t.Fatal(err)
	}
	return a, nil
}

func raw(t *testing.T, a alert.Alert) json.RawMessage {
	t.Helper()
	data, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// A cluster speaks for itself alone, whatever it says.
func TestForgery(t *testing.T) {
	s := newSite(t, nil)
	good := s.spoke("us-1", s.join("us-1"), database(t))
	good.raise(t, 1)
	s.arrive("us-1", 1)
	evil := s.leafOf("eu-1", s.join("eu-1"))

	// Another's name over all, and in one alert.
	a, err := s.ask(evil, alertService, batch{Cluster: "us-1", Alerts: []json.RawMessage{raw(t, shell("us-1", 2))}})
	if err != nil || !strings.Contains(a.Error, "its key is of cluster eu-1") {
		t.Errorf("%+v, %v", a, err)
	}
	a, err = s.ask(evil, alertService, batch{Cluster: "eu-1", Alerts: []json.RawMessage{raw(t, shell("us-1", 2)), raw(t, shell("eu-1", 1)), raw(t, shell("", 2)), []byte(`{"rule":7}`)}})
	if err != nil || a.Error != "" || a.Refused[CauseForeign] != 1 || a.Refused[CauseMalformed] != 1 {
		t.Errorf("%+v, %v", a, err)
	}
	s.arrive("us-1", 1)
	s.arrive("eu-1", 2) // with the id of the alert of us-1, which is not in its way
	if c := s.Clusters()["eu-1"].Refused; c[CauseForeign] != 2 || c[CauseMalformed] != 1 {
		t.Errorf("%v", c)
	}
	// Another's services, and those of the hub, are not there.
	for _, subject := range []string{alertPrefix + "us-1", alertPrefix + "eu-1", statePrefix + "us-1"} {
		if a, err := s.ask(evil, subject, batch{Cluster: "us-1", Alerts: []json.RawMessage{raw(t, shell("us-1", 2))}}); !errors.Is(err, nats.ErrNoResponders) {
			t.Errorf("%s: %+v, %v", subject, a, err)
		}
	}
	// What others send and are answered is not seen.
	sub, err := evil.SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	if err := evil.Flush(); err != nil {
		t.Fatal(err)
	}
	good.raise(t, 50)
	s.arrive("us-1", 51)
	if a, err := s.ask(evil, stateService, roster.State{Version: "mine"}); err != nil || a.Error != "" { // what it hears now is its own
		t.Errorf("%+v, %v", a, err)
	}
	for {
		m, err := sub.NextMsg(100 * time.Millisecond)
		if err != nil {
			break
		}
		if m.Subject != stateService && !strings.HasPrefix(m.Subject, "_INBOX.") || strings.Contains(string(m.Data), "us-1") {
			t.Errorf("it hears %s: %.200s", m.Subject, m.Data)
		}
	}
	if s.state("us-1").Version == "mine" || s.state("eu-1").Version != "mine" {
		t.Error("the state is of another cluster")
	}
}

// What the hub asks is not answered, and a cluster hears nothing of it.
func TestNoWayIntoTheCluster(t *testing.T) {
	s := newSite(t, nil)
	nc := s.leafOf("eu-1", s.join("eu-1"))
	if _, err := nc.Subscribe("kubeguardian.>", func(m *nats.Msg) { t.Errorf("the hub reaches %s", m.Subject) }); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Hub.conn.Request("kubeguardian.rules.syscall", []byte("rules"), time.Second); !errors.Is(err, nats.ErrNoResponders) {
		t.Error(err)
	}
}

func TestRevocation(t *testing.T) {
	s := newSite(t, nil)
	a, b := s.spoke("eu-1", s.join("eu-1"), database(t)), s.spoke("us-1", s.join("us-1"), database(t))
	a.raise(t, 1)
	b.raise(t, 1)
	s.arrive("eu-1", 1)
	s.arrive("us-1", 1)
	text, err := os.ReadFile(s.members)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "us-1 ")
	write(t, s.members, "us-1 "+rest) // without eu-1
	await(t, "cut", when(func() bool { return !a.Stats().Connected }))
	a.raise(t, 1)
	await(t, "reason", when(func() bool { err := a.Stats().Err; return err != nil && strings.Contains(err.Error(), "Authorization") }))
	if n, _ := s.Refused(); n == 0 {
		t.Error("nothing was refused")
	}
	b.raise(t, 1)
	s.arrive("us-1", 2)
	s.arrive("eu-1", 1)
	if _, known := s.Clusters()["eu-1"]; known {
		t.Error("it is listed")
	}
	write(t, s.members, string(text)) // again
	s.arrive("eu-1", 2)
}

// A key that signs nothing, another's key, and clients are refused.
func TestStrangers(t *testing.T) {
	s := newSite(t, nil)
	s.join("eu-1")
	key, _, err := NewKey("eu-1") // not the one that the hub knows
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key")
	write(t, file, string(key))
	m := s.spoke("eu-1", file, database(t))
	m.raise(t, 1)
	await(t, "refusal", when(func() bool { n, _ := s.Refused(); return n > 0 && m.Stats().Err != nil }))
	if have := s.stored("eu-1"); have != nil {
		t.Errorf("%q", have)
	}
	if nc, err := nats.Connect("nats://"+s.options.Listen, nats.NoReconnect(), nats.Timeout(10*time.Second)); err == nil {
		nc.Close()
		t.Error("a client may connect")
	}
	members, err := ReadMembers(s.members)
	if err != nil || len(members) != 1 {
		t.Fatal(members, err)
	}
	for known := range members {
		if name, err := members.of(known, []byte("nonce"), make([]byte, 64)); err == nil {
			t.Errorf("who shows the key of %s and does not have it is believed", name)
		}
	}
	if _, err := (Members{}).of("U", nil, nil); err == nil {
		t.Error("a key that nobody knows is good")
	}
}

func TestMembers(t *testing.T) {
	_, one, err := NewKey("eu-1")
	if err != nil {
		t.Fatal(err)
	}
	_, again, err := NewKey("eu-1")
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"":                                      "",
		"# c\n\n" + one + "\n" + again:          "", // one takes the place of the other
		one + "\n" + one:                        "clusters:2: the key is there twice",
		"eu-1":                                  "clusters:1: want the name",
		"\neu.* " + one[5:]:                     "clusters:2: want the name of a cluster",
		"eu-1 SUAIBDPBAUTWCWBKIO6XHQNINK5FWJW4": "clusters:1: want the public key",
	} {
		m, err := parseMembers("clusters", []byte(text))
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v, want %q", text, m, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "SUAI") {
			t.Errorf("the error tells a secret: %v", err)
		}
	}
	file := filepath.Join(t.TempDir(), "clusters")
	write(t, file, one)
	if _, err := StartHub(HubOptions{Listen: "127.0.0.1:0", Own: "eu-1", Members: file}); err == nil || !strings.Contains(err.Error(), "of this cluster itself") {
		t.Error(err)
	}
}

func TestSpokeOptions(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	text, line, err := NewKey("eu-1")
	if err != nil {
		t.Fatal(err)
	}
	write(t, key, string(text))
	public := filepath.Join(t.TempDir(), "line")
	write(t, public, line)
	for _, c := range []struct {
		o    SpokeOptions
		want string
	}{
		{SpokeOptions{URL: "tls://hub:7422", Cluster: "eu-1", KeyFile: key}, ""},
		{SpokeOptions{URL: "nats://hub:7422", Cluster: "eu-1", KeyFile: key}, "without TLS"},
		{SpokeOptions{URL: "tls://hub:7422", Cluster: "eu 1", KeyFile: key}, "name of a cluster"},
		{SpokeOptions{URL: "tls://hub:7422", Cluster: "eu-1", KeyFile: public}, "has none: make one"},
		{SpokeOptions{URL: "tls://hub:7422", Cluster: "eu-1", KeyFile: key, CAFile: key}, "no certificate"},
		{SpokeOptions{URL: "tls://hub:7422", Cluster: "eu-1", KeyFile: key + "x"}, "no such file"},
	} {
		if err := c.o.Check(); (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.o, err, c.want)
		}
	}
}

func FuzzMembers(f *testing.F) {
	_, line, err := NewKey("eu-1")
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(line))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseMembers("clusters", data)
		if err != nil {
			return
		}
		for key, name := range m {
			if CheckCluster(name) != nil || len(key) != 43 {
				t.Errorf("%q %q", name, key)
			}
		}
	})
}

// Whatever a cluster sends, an alert that is taken is of it.
func FuzzAlert(f *testing.F) {
	data, err := json.Marshal(shell("eu-1", 1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		var a alert.Alert
		cause, err := readAlert(data, "eu-1", &a)
		if (err == nil) != (cause == "") {
			t.Errorf("cause %q, %v", cause, err)
		}
		if err == nil && (a.Cluster != "eu-1" || len(a.ID) != 24 || a.Rule == "") {
			t.Errorf("%+v", a)
		}
	})
}

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"interval":1000000000,"problems":["x"],"score":{"total":50,"levels":[{"level":"code","score":null}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeState(data)
		if err == nil && (s.Interval < time.Second || s.Interval > time.Hour || len(s.Problems) > 50 || len(s.Version) > 104) {
			t.Errorf("%+v", s)
		}
	})
}
