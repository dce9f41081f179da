package nats_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"crypto/tls"

	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/nats"
	"github.com/kubeguardian/kubeguardian/notify/notifytest"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

// serve runs a real server.
func serve(t *testing.T, change func(*server.Options)) *server.Server {
	t.Helper()
	opts := &server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true}
	if change != nil {
		change(opts)
	}
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server is not ready")
	}
	return s
}

// stream makes a stream for the subject.
func stream(t *testing.T, s *server.Server, cfg jetstream.StreamConfig, opts ...natsgo.Option) jetstream.Stream {
	t.Helper()
	conn, err := natsgo.Connect(s.ClientURL(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Name, cfg.Subjects = "ALERTS", []string{"security.>"}
	out, err := js.CreateOrUpdateStream(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func build(t *testing.T, c nats.Config) notify.Destination {
	t.Helper()
	c.Subject, c.TLS.AllowAddresses = "security.alerts", []string{"127.0.0.1"}
	d, err := nats.New(c, notify.Options{Name: "under-test", Cluster: "prod"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func stored(t *testing.T, s jetstream.Stream) uint64 {
	t.Helper()
	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return info.State.Msgs
}

// TestStoredOnce: what is sent again, also by another connection, is stored once
// and in order.
func TestStoredOnce(t *testing.T) {
	s := serve(t, nil)
	st := stream(t, s, jetstream.StreamConfig{Duplicates: time.Minute})
	batch := notifytest.Notifications(25)
	for range 2 {
		d := build(t, nats.Config{URL: s.ClientURL()})
		for range 2 {
			if err := d.Send(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := stored(t, st); n != uint64(len(batch)) {
		t.Errorf("%d messages, want %d", n, len(batch))
	}
	for i, n := range batch {
		m, err := st.GetMsg(t.Context(), uint64(i+1))
		if err != nil {
			t.Fatal(err)
		}
		var doc struct{ Notification struct{ Key string } }
		if err := json.Unmarshal(m.Data, &doc); err != nil || doc.Notification.Key != n.Key || m.Header.Get("Nats-Msg-Id") != n.Key {
			t.Errorf("message %d: %s %v", i, m.Data, err)
		}
	}
}

// TestOutages: without the stream, or the server, a batch is tried again.
func TestOutages(t *testing.T) {
	dir := t.TempDir()
	s := serve(t, func(o *server.Options) { o.StoreDir = dir })
	d := build(t, nats.Config{URL: s.ClientURL(), TLS: post.Config{Timeout: 15 * time.Second}})
	batch := notifytest.Notifications(3)
	fails := func(what string) {
		t.Helper()
		if err := d.Send(t.Context(), batch); err == nil || notify.IsPermanent(err) || !strings.Contains(err.Error(), "under-test: ") {
			t.Errorf("%s: %v", what, err)
		}
	}
	fails("without a stream")
	st := stream(t, s, jetstream.StreamConfig{MaxMsgs: 2, Discard: jetstream.DiscardNew})
	fails("with a full stream")
	if n := stored(t, st); n > 2 {
		t.Errorf("%d messages", n)
	}
	stream(t, s, jetstream.StreamConfig{MaxMsgs: 100, Discard: jetstream.DiscardNew})
	if err := d.Send(t.Context(), batch); err != nil {
		t.Error(err)
	}
	port := s.Addr().(interface{ String() string }).String()
	s.Shutdown()
	s.WaitForShutdown()
	fails("without a server")
	host, number, _ := strings.Cut(port, ":")
	again := serve(t, func(o *server.Options) {
		o.Host, o.StoreDir = host, dir
		o.Port = atoi(t, number)
	})
	if err := d.Send(t.Context(), batch); err != nil {
		t.Errorf("with the server again: %v", err)
	}
	if n := stored(t, stream(t, again, jetstream.StreamConfig{MaxMsgs: 100, Discard: jetstream.DiscardNew})); n != 3 {
		t.Errorf("%d messages after all, want 3", n)
	}
}

func atoi(t *testing.T, s string) (n int) {
	t.Helper()
	if err := json.Unmarshal([]byte(s), &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestTooLarge(t *testing.T) {
	s := serve(t, func(o *server.Options) { o.MaxPayload = 64 << 10 })
	stream(t, s, jetstream.StreamConfig{MaxMsgSize: 8 << 10})
	d := build(t, nats.Config{URL: s.ClientURL()})
	for _, size := range []int{10 << 10, 100 << 10} {
		batch := notifytest.Notifications(2)
		batch[1].Alert.Output = strings.Repeat("x", size)
		if err := d.Send(t.Context(), batch); !notify.IsPermanent(err) {
			t.Errorf("%d bytes: %v, want a permanent error", size, err)
		}
		if err := d.Send(t.Context(), batch[:1]); err != nil {
			t.Error(err)
		}
	}
}

func TestWhoWeAre(t *testing.T) {
	const secret = "p4ssw0rd-of-nats"
	file := filepath.Join(t.TempDir(), "secret")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		change func(*server.Options)
		auth   post.Auth
		own    natsgo.Option
	}{
		"user":  {func(o *server.Options) { o.Username, o.Password = "kubeguardian", secret }, post.Auth{User: "kubeguardian", PasswordFile: notify.SecretFile(file)}, natsgo.UserInfo("kubeguardian", secret)},
		"token": {func(o *server.Options) { o.Authorization = secret }, post.Auth{TokenFile: notify.SecretFile(file)}, natsgo.Token(secret)},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, tc.change)
			stream(t, s, jetstream.StreamConfig{}, tc.own)
			d := build(t, nats.Config{URL: s.ClientURL(), Auth: tc.auth})
			for _, wrong := range []func(){func() { os.Remove(file) }, func() { write("another") }} {
				wrong()
				err := d.Send(t.Context(), notifytest.Notifications(1))
				if err == nil || notify.IsPermanent(err) {
					t.Errorf("%v, want an error that is worth another attempt", err)
				} else {
					notifytest.Silent(t, err.Error(), secret, "another")
				}
			}
			write(secret)
			if err := d.Send(t.Context(), notifytest.Notifications(1)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestOverTLS(t *testing.T) {
	srv := httptest.NewTLSServer(nil)
	defer srv.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serve(t, func(o *server.Options) { o.TLSConfig = &tls.Config{Certificates: srv.TLS.Certificates} })
	stream(t, s, jetstream.StreamConfig{}, natsgo.RootCAs(ca))
	url := strings.Replace(s.ClientURL(), "nats://", "tls://", 1)
	if err := build(t, nats.Config{URL: url, TLS: post.Config{CAFile: ca}}).Send(t.Context(), notifytest.Notifications(2)); err != nil {
		t.Error(err)
	}
	if err := build(t, nats.Config{URL: url}).Send(t.Context(), notifytest.Notifications(2)); err == nil || notify.IsPermanent(err) {
		t.Errorf("an authority that nobody knows: %v", err)
	}
}

func TestEndsWithItsContext(t *testing.T) {
	s := serve(t, nil)
	d := build(t, nats.Config{URL: s.ClientURL()})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Send(ctx, notifytest.Notifications(1)); err == nil || notify.IsPermanent(err) {
		t.Errorf("%v", err)
	}
}

func TestForbiddenAddress(t *testing.T) {
	d, err := nats.New(nats.Config{URL: "nats://169.254.169.254:4222", Subject: "a"}, notify.Options{Name: "under-test"})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Send(t.Context(), notifytest.Notifications(1)); !notify.IsPermanent(err) {
		t.Errorf("%v", err)
	}
}

func TestConfig(t *testing.T) {
	for want, c := range map[string]nats.Config{
		"url: want tls://":               {URL: "http://a:1", Subject: "s"},
		"without a user":                 {URL: "nats://u:p@a:1", Subject: "s"},
		"subject: want one without":      {URL: "nats://a:1", Subject: "s.>"},
		"credentialsFile: give it or":    {URL: "nats://a:1", Subject: "s", CredentialsFile: "c", Auth: post.Auth{TokenFile: "t"}},
		"user and passwordFile":          {URL: "nats://a:1", Subject: "s", Auth: post.Auth{User: "u"}},
		`unknown format "cbor"`:          {URL: "nats://a:1", Subject: "s", Format: "cbor"},
		"tls.timeout: want 0s to 5m":     {URL: "nats://a:1", Subject: "s", TLS: post.Config{Timeout: time.Hour}},
		"read authorities":               {URL: "nats://a:1", Subject: "s", TLS: post.Config{CAFile: "none"}},
		`read allowed address "private"`: {URL: "nats://a:1", Subject: "s", TLS: post.Config{AllowAddresses: []string{"private"}}},
	} {
		if _, err := nats.New(c, notify.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
}
