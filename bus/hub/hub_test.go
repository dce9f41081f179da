package hub

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kubeguardian/kubeguardian/admission"
	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus"
	"github.com/kubeguardian/kubeguardian/bus/fleet"
	"github.com/kubeguardian/kubeguardian/bus/spool"
	"github.com/kubeguardian/kubeguardian/event"
)

// A running bus, whose tokens are "token of " and the name of a node.
type running struct {
	*Hub
	t   *testing.T
	js  jetstream.JetStream
	log *slog.Logger
}

func start(t *testing.T, change func(*Options)) *running {
	t.Helper()
	o := Options{
		Listen: "127.0.0.1:0", Dir: t.TempDir(), Bytes: 64 << 20, Sync: time.Second, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Node: func(_ context.Context, token string) (string, error) {
			node, ok := strings.CutPrefix(token, "token of ")
			if !ok {
				return "", errors.New("not a token")
			}
			return node, nil
		},
	}
	if change != nil {
		change(&o)
	}
	h, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Stop)
	nc, err := h.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if err := bus.Prepare(t.Context(), js, bus.Bounds{AlertBytes: 64 << 20, StateAge: time.Hour}); err != nil {
		t.Fatal(err)
	}
	return &running{h, t, js, o.Log}
}

func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// agent returns the connection of a node's agent, once it is there.
func (r *running) agent(node string) *nats.Conn {
	r.t.Helper()
	nc, err := bus.Endpoint{URL: "nats://" + r.Addr().String(), TokenFile: file(r.t, "token of "+node+"\n")}.ConnectAgent(node, r.log)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(nc.Close)
	await(r.t, "a connection", nc.IsConnected)
	return nc
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s", what)
		}
	}
}

func shell(node string, i int) alert.Alert {
	return alert.Alert{
		ID: alert.NewID(event.Syscall, fmt.Sprint(node, i), "Shell"), Time: time.Now(), Rule: "Shell", Priority: alert.Warning, Source: event.Syscall,
		Output: "a shell", Hostname: node, OutputFields: map[string]any{"evt.time": int64(1_772_366_401_000_000_001), "n": i},
	}
}

// A taker keeps what the consumer gives it.
type taker struct {
	mu     sync.Mutex
	alerts []alert.Alert
	fail   func([]*bus.Message) error
	calls  int
}

func (k *taker) handle(_ context.Context, batch []*bus.Message) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls++
	if k.fail != nil {
		if err := k.fail(batch); err != nil {
			return err
		}
	}
	for _, m := range batch {
		k.alerts = append(k.alerts, m.Alert)
	}
	return nil
}

func (k *taker) len() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.alerts)
}

func (r *running) consume(k *taker) *bus.Consumer {
	c := bus.NewConsumer(k.handle, r.log)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := c.Run(ctx, r.js); err != nil {
			r.t.Error(err)
		}
	}()
	r.t.Cleanup(func() { cancel(); <-done })
	return c
}

func (r *running) publisher(node string) *bus.Publisher {
	sp, err := spool.Open(r.t.TempDir(), 0)
	if err != nil {
		r.t.Fatal(err)
	}
	nc := r.agent(node)
	p := bus.NewPublisher(node, sp, r.log)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := p.Run(ctx, nc); err != nil {
			r.t.Error(err)
		}
	}()
	r.t.Cleanup(func() {
		cancel()
		<-done
		if err := sp.Close(); err != nil {
			r.t.Error(err)
		}
	})
	return p
}

func TestAlertsArriveInOrder(t *testing.T) {
	r := start(t, nil)
	p, k := r.publisher("ip-10-0-0-7.ec2.internal"), &taker{}
	var want []string
	for i := range 3000 {
		a := shell("ip-10-0-0-7.ec2.internal", i)
		if err := p.Publish(&a); err != nil {
			t.Fatal(err)
		}
		want = append(want, bus.ID("ip-10-0-0-7.ec2.internal", a))
	}
	c := r.consume(k)
	await(t, "3000 alerts", func() bool { return k.len() >= 3000 })
	for i, a := range k.alerts {
		if a.ID != want[i] || fmt.Sprint(a.OutputFields["evt.time"]) != "1772366401000000001" {
			t.Fatalf("alert %d: %+v", i, a)
		}
	}
	await(t, "empty stream", func() bool {
		s, err := r.js.Stream(t.Context(), bus.AlertStream)
		if err != nil {
			t.Fatal(err)
		}
		return s.CachedInfo().State.Msgs == 0
	})
	if s := c.Stats(); s.Received != 3000 || s.Redelivered != 0 || len(s.Rejected) != 0 || s.Err != nil {
		t.Errorf("%+v", s)
	}
	await(t, "empty spool", func() bool { return p.Stats().Spool.Waiting == 0 })
	if s := p.Stats(); s.Sent != 3000 || s.Err != nil {
		t.Errorf("%+v", s)
	}
}

// An agent may speak for its node, and hear nothing of others.
func TestRights(t *testing.T) {
	r := start(t, nil)
	nc := r.agent("n1")
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "kubeguardian.alerts.n1", []byte("{}")); err != nil {
		t.Errorf("its own alerts: %v", err)
	}
	for _, subject := range []string{
		"kubeguardian.alerts.n2", "kubeguardian.alerts.n1.x", "kubeguardian.states.n2", "kubeguardian.rules.syscall", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO." + bus.AlertStream,
		"$JS.API.STREAM.DELETE." + bus.AlertStream, "$JS.API.CONSUMER.MSG.NEXT." + bus.AlertStream + ".server", "$JS.API.STREAM.MSG.GET." + bus.AlertStream,
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		if m, err := nc.RequestWithContext(ctx, subject, nil); err == nil {
			t.Errorf("%s answers %s", subject, m.Data)
		}
		cancel()
	}
	for _, subject := range []string{">", "kubeguardian.alerts.*", "kubeguardian.alerts.n1", "_INBOX.>", "_INBOX_AGENT.>", "$SYS.>"} {
		refused := make(chan error, 1)
		nc.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err })
		sub, err := nc.SubscribeSync(subject)
		if err == nil {
			err = nc.Flush()
		}
		if err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-refused:
			if !errors.Is(err, nats.ErrPermissionViolation) {
				t.Errorf("subscribe to %s: %v", subject, err)
			}
		case <-time.After(time.Minute):
			t.Errorf("it may subscribe to %s", subject)
		}
		_ = sub.Unsubscribe()
	}
}

func TestWhoMayConnect(t *testing.T) {
	r := start(t, nil)
	url := "nats://" + r.Addr().String()
	for name, opts := range map[string][]nats.Option{
		"without a token": nil, "another token": {nats.Token("x")}, "a user": {nats.UserInfo("server", "server")}, "a node that is a pattern": {nats.Token("token of >")},
		"a node with a blank": {nats.Token("token of a b")}, "no node": {nats.Token("token of ")},
	} {
		if nc, err := nats.Connect(url, opts...); err == nil {
			t.Errorf("%s: connected", name)
			nc.Close()
		}
	}
	await(t, "sixth refusal", func() bool { _, refused := r.Connections(); return refused == 6 })
	silent, err := net.Dial("tcp", r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if _, err := silent.Read(make([]byte, 1)); err != nil { // of its greeting: it is connected
		t.Fatal(err)
	}
	if agents, _ := r.Connections(); agents != 0 {
		t.Errorf("%d agents, though none has shown who it is", agents)
	}
	first, second := r.agent("n1"), r.agent("n2")
	if agents, _ := r.Connections(); agents != 2 {
		t.Errorf("%d agents, want 2", agents)
	}
	first.Close()
	await(t, "end of the first agent", func() bool { agents, _ := r.Connections(); return agents == 1 })
	second.Close()
	await(t, "end of the second agent", func() bool { agents, _ := r.Connections(); return agents == 0 })
}

// What is no alert, or one that the agent may not raise, is given up, counted,
// and does not come again.
func TestRejected(t *testing.T) {
	r := start(t, nil)
	js, err := jetstream.New(r.agent("n1"))
	if err != nil {
		t.Fatal(err)
	}
	changed := func(change func(map[string]any)) string {
		data, err := json.Marshal(shell("n1", 1))
		if err != nil {
			t.Fatal(err)
		}
		var a map[string]any
		if err := json.Unmarshal(data, &a); err != nil {
			t.Fatal(err)
		}
		change(a)
		if data, err = json.Marshal(a); err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	malformed := []string{
		"", "{", "null", "[]", `{"id":1}`, changed(func(a map[string]any) { delete(a, "rule") }), changed(func(a map[string]any) { delete(a, "time") }),
		changed(func(a map[string]any) { a["id"] = strings.Repeat("x", 5000) }), changed(func(a map[string]any) { a["priority"] = "Loud" }),
		changed(func(a map[string]any) { a["output_fields"] = map[string]any{"x": [][][][][][]int{{{{{{1}}}}}}} }),
		changed(func(map[string]any) {}) + "{}", strings.Repeat("[", 100_000),
	}
	foreign := []string{
		changed(func(a map[string]any) { a["hostname"] = "n2" }), changed(func(a map[string]any) { a["source"] = "k8s_audit" }),
		changed(func(a map[string]any) { a["repeats"] = map[string]any{"count": 1000} }),
	}
	for _, text := range slices.Concat(malformed, foreign, []string{changed(func(map[string]any) {})}) {
		if _, err := js.Publish(t.Context(), "kubeguardian.alerts.n1", []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	k := &taker{}
	c := r.consume(k)
	await(t, "alert", func() bool { return k.len() == 1 })
	s := c.Stats()
	if s.Received != 1 || s.Rejected["malformed"] != uint64(len(malformed)) || s.Rejected["foreign"] != uint64(len(foreign)) {
		t.Errorf("%+v", s)
	}
	stream, err := r.js.Stream(t.Context(), bus.AlertStream)
	if err != nil {
		t.Fatal(err)
	}
	await(t, "empty stream", func() bool {
		info, err := stream.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return info.State.Msgs == 0
	})
}

// Alerts that cannot be stored come again; one that alone cannot be is given up
// in the end, and does not keep the others from it.
func TestFailures(t *testing.T) {
	r := start(t, nil)
	p := r.publisher("n1")
	bad := shell("n1", 3)
	for i := range 6 {
		a := shell("n1", i)
		if err := p.Publish(&a); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "empty spool", func() bool { return p.Stats().Spool.Waiting == 0 })
	k := &taker{fail: func(batch []*bus.Message) error {
		if slices.ContainsFunc(batch, func(m *bus.Message) bool { return m.Alert.ID == bus.ID("n1", bad) }) {
			return errors.New("it cannot be stored")
		}
		return nil
	}}
	c := r.consume(k)
	await(t, "five alerts", func() bool { return k.len() >= 5 })
	for i := 10; c.Stats().Rejected["unstorable"] == 0; i++ { // others that can be, so that it is not the disk
		if i == 130 {
			t.Fatalf("it is not given up: %+v", c.Stats())
		}
		a := shell("n1", i)
		if err := p.Publish(&a); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
	}
	if s := c.Stats(); s.Failed < 3 || s.Redelivered == 0 {
		t.Errorf("%+v", s)
	}
}

// By TLS an agent trusts nobody but the authority it was given.
func TestTLS(t *testing.T) {
	authority, err := admission.OpenAuthority(t.Context(), admission.FileKeys(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	other, err := admission.OpenAuthority(t.Context(), admission.FileKeys(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, func(o *Options) { o.TLS = authority.ServerTLS("127.0.0.1") })
	e := bus.Endpoint{URL: "tls://" + r.Addr().String(), TokenFile: file(t, "token of n1"), CAFile: file(t, string(other.CABundle()))}
	nc, err := e.ConnectAgent("n1", r.log)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	await(t, "attempt", func() bool { return nc.LastError() != nil })
	if nc.IsConnected() {
		t.Fatal("it trusts another authority")
	}
	if err := os.WriteFile(e.CAFile, authority.CABundle(), 0o600); err != nil { // taken over without a restart
		t.Fatal(err)
	}
	await(t, "connection", nc.IsConnected)
	if s, err := nc.TLSConnectionState(); err != nil || s.Version < 0x304 {
		t.Errorf("%+v, %v", s, err)
	}
	if plain, err := nats.Connect("nats://"+r.Addr().String(), nats.Token("token of n1")); err == nil && plain.TLSRequired() == false {
		t.Error("it takes connections without TLS")
	}
}

func TestPortInUse(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, err = Start(Options{Listen: ln.Addr().String(), Dir: t.TempDir(), Bytes: 64 << 20, Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Error(err)
	}
}

// The last state of each agent is there after a restart, and new ones follow.
func TestStates(t *testing.T) {
	r := start(t, nil)
	nc := r.agent("n1")
	for i := range 3 {
		if err := bus.SendState(t.Context(), nc, &fleet.State{Node: "n1", Interval: time.Second, Events: uint64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if err := bus.SendState(t.Context(), r.agent("n2"), &fleet.State{Node: "n2", Interval: 1000 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var seen, refused []string
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- bus.FollowStates(ctx, r.js, func(s *fleet.State, at time.Time) {
			mu.Lock()
			defer mu.Unlock()
			if time.Since(at) > time.Minute || s.Interval > time.Hour {
				t.Errorf("%s, %+v", at, s)
			}
			seen = append(seen, fmt.Sprint(s.Node, " ", s.Events))
		}, func(subject string, err error) {
			mu.Lock()
			defer mu.Unlock()
			refused = append(refused, subject)
		})
	}()
	have := func(n int) func() bool {
		return func() bool { mu.Lock(); defer mu.Unlock(); return len(seen)+len(refused) == n }
	}
	await(t, "two states", have(2))
	for i, text := range []string{`{"node":"n2"}`, "{"} { // of another node, and none
		if _, err := js.Publish(t.Context(), "kubeguardian.states.n1", []byte(text)); err != nil {
			t.Fatal(err)
		}
		await(t, "refusal", have(3+i)) // before the next one takes its place
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !slices.Equal(seen, []string{"n1 2", "n2 0"}) || len(refused) != 2 {
		t.Errorf("seen %q, refused %q", seen, refused)
	}
}

// Agents get the rules that are there when they start, and others at once.
func TestRules(t *testing.T) {
	r := start(t, nil)
	got := make(chan *bus.Rules, 10)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	rules := func(text string) *bus.Rules {
		return &bus.Rules{Files: []bus.RuleFile{{Name: "a.yaml", Data: []byte(text)}}, Match: "first", Static: map[string]string{"region": "eu"}}
	}
	if err := bus.SendRules(t.Context(), r.js, rules("old")); err != nil {
		t.Fatal(err)
	}
	if err := bus.SendRules(t.Context(), r.js, rules("one")); err != nil {
		t.Fatal(err)
	}
	nc := r.agent("n1")
	go func() {
		done <- bus.FollowRules(ctx, nc, func(r *bus.Rules, err error) {
			if err != nil {
				t.Error(err)
			}
			got <- r
		})
	}()
	for _, want := range []string{"one", "two", "three"} {
		select {
		case have := <-got:
			if have.Hash() != rules(want).Hash() {
				t.Errorf("rules %+v, want %s", have, want)
			}
		case <-time.After(2 * time.Minute):
			t.Fatalf("no rules %s", want)
		}
		next := map[string]string{"one": "two", "two": "three"}[want]
		if next == "" {
			break
		}
		if err := bus.SendRules(t.Context(), r.js, rules(next)); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	random := make([]byte, 0, 2<<20)
	for i := range 1 << 16 {
		sum := sha256.Sum256([]byte{byte(i), byte(i >> 8)})
		random = append(random, sum[:]...)
	}
	if err := bus.SendRules(t.Context(), r.js, rules(string(random))); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("rules that are too large: %v", err)
	}
}
