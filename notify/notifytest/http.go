package notifytest

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify"
)

// A Target is what a destination under test is to be made for.
type Target struct {
	// URL is that of the receiver, with a path that is a secret, on a loopback
	// address: it must be allowed, in [post.Config.AllowAddresses] for one.
	URL string
	// Secret is a token for destinations that have one; Read it from SecretFile.
	Secret     string
	SecretFile notify.SecretFile
	// URLFile has URL in it.
	URLFile notify.SecretFile
	// Options has a name, a cluster, and a log that is looked at.
	Options notify.Options
}

// An Outcome is what an answer is to lead to.
type Outcome int

// The outcomes.
const (
	Delivered Outcome = iota
	Retry             // the same batch is to be sent again
	Permanent         // it is not
)

// String returns the name.
func (o Outcome) String() string { return [...]string{"delivered", "retry", "permanent"}[o] }

// HTTP describes a destination that sends by HTTP.
type HTTP struct {
	// New makes the destination.
	New func(t *testing.T, to Target) notify.Destination
	// Accept answers a request as the real receiver does when it takes it, and may
	// fail the test if the request is not as it should be; nil answers 200 and {}.
	Accept func(t *testing.T, w http.ResponseWriter, r *http.Request, body []byte)
	// Differ are statuses that lead to something else than the table of package
	// post says.
	Differ map[int]Outcome
}

// exchange is one request that a receiver got.
type exchange struct {
	header http.Header
	body   []byte
}

// receiver is a real HTTP server that answers as it is told, and always says all
// that it was sent, as some do.
type receiver struct {
	*httptest.Server
	mu       sync.Mutex
	answer   http.HandlerFunc
	received []exchange
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(io.LimitReader(req.Body, 16<<20))
		if err != nil {
			return
		}
		req.Body = io.NopCloser(bytes.NewReader(body))
		r.mu.Lock()
		answer := r.answer
		r.received = append(r.received, exchange{req.Header.Clone(), body})
		r.mu.Unlock()
		answer(w, req)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) say(answer http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer, r.received = answer, nil
}

func (r *receiver) requests() []exchange {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]exchange(nil), r.received...)
}

// echo answers with a status, and repeats all secrets in header and body.
func echo(status int, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.Header().Set("X-Echo", r.URL.String()+" "+strings.Join(r.Header["Authorization"], " "))
		w.WriteHeader(status)
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, `{"error":"%s","url":%q,"header":"%v"}`, body, r.URL, r.Header)
	}
}

// Conform runs all checks.
func (h HTTP) Conform(t *testing.T) {
	t.Helper()
	for _, c := range []struct {
		name  string
		check func(*testing.T, *bench)
	}{
		{"delivers", checkDelivers}, {"status table", checkStatuses}, {"retry after", checkRetryAfter}, {"redirects", checkRedirects},
		{"slow receiver", checkSlow}, {"endless answer", checkEndless}, {"broken connections", checkBroken}, {"secret file is gone", checkSecretGone},
	} {
		t.Run(c.name, func(t *testing.T) { c.check(t, h.bench(t)) })
	}
}

// A bench is one destination with its receiver.
type bench struct {
	HTTP
	*receiver
	to          Target
	log         *Log
	destination notify.Destination
}

func (h HTTP) bench(t *testing.T) *bench {
	t.Helper()
	b := &bench{HTTP: h, receiver: newReceiver(t), log: &Log{}}
	b.accept(t)
	const path = "path-S3cr3tOfTheURL"
	b.to = Target{
		URL: b.URL + "/" + path, Secret: "token-S3cr3tOfTheFile",
		Options: notify.Options{Name: "under-test", Cluster: "prod", Version: "1.2.3", Log: b.log.Logger()},
	}
	b.to.SecretFile = secretFile(t, b.to.Secret)
	b.to.URLFile = secretFile(t, b.to.URL)
	b.destination = h.New(t, b.to)
	t.Cleanup(func() {
		if err := b.destination.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		Silent(t, b.log.String(), path, b.to.Secret)
	})
	return b
}

// accept has the receiver take what comes.
func (b *bench) accept(t *testing.T) {
	b.say(func(w http.ResponseWriter, r *http.Request) {
		if b.Accept == nil {
			io.WriteString(w, "{}")
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		b.Accept(t, w, r, body)
	})
}

// batch returns as many messages as the destination takes at once, at most n.
func (b *bench) batch(n int) []notify.Notification {
	most := 1
	if batcher, ok := b.destination.(notify.Batcher); ok {
		most = batcher.Batch()
	}
	return Notifications(min(n, most))
}

// send sends and reports what the error means, after a look for secrets.
func (b *bench) send(t *testing.T, ctx context.Context, batch []notify.Notification) (Outcome, error) {
	t.Helper()
	err := b.destination.Send(ctx, batch)
	switch {
	case err == nil:
		return Delivered, nil
	case !strings.Contains(err.Error(), b.to.Options.Name):
		t.Errorf("the error does not name the destination: %v", err)
	}
	Silent(t, err.Error(), strings.TrimPrefix(b.to.URL, b.URL+"/"), b.to.Secret)
	Silent(t, fmt.Sprintf("%+v %#v", err, err), strings.TrimPrefix(b.to.URL, b.URL+"/"), b.to.Secret)
	if notify.IsPermanent(err) {
		return Permanent, err
	}
	return Retry, err
}

func checkDelivers(t *testing.T, b *bench) {
	for i, n := range Notifications(12) { // with incidents and what is hostile
		if outcome, err := b.send(t, t.Context(), []notify.Notification{n}); outcome != Delivered {
			t.Errorf("notification %d: %v", i, err)
		}
	}
	if len(b.requests()) == 0 {
		t.Error("nothing arrived")
	}
	for _, r := range b.requests() {
		if !strings.HasPrefix(r.header.Get("User-Agent"), "KubeGuardian/") {
			t.Errorf("User-Agent is %q", r.header.Get("User-Agent"))
		}
	}
	if outcome, err := b.send(t, t.Context(), b.batch(50)); outcome != Delivered {
		t.Errorf("a batch: %v", err)
	}
	for _, n := range b.updates(12) {
		before := len(b.requests())
		if outcome, err := b.send(t, t.Context(), []notify.Notification{n}); outcome != Delivered || len(b.requests()) == before {
			t.Errorf("that an incident is %s: %s in %d requests, %v", n.Update.State, outcome, len(b.requests())-before, err)
		}
	}
}

// updates returns those of n messages that the destination may be told.
func (b *bench) updates(n int) []notify.Notification {
	states := []incident.State{incident.Closed}
	if to, ok := b.destination.(notify.Stateful); ok && len(to.States()) > 0 {
		states = to.States()
	}
	return slices.DeleteFunc(Updates(n), func(n notify.Notification) bool { return !slices.Contains(states, n.Update.State) })
}

// want is the outcome of a status.
func (h HTTP) want(status int) Outcome {
	if o, ok := h.Differ[status]; ok {
		return o
	}
	switch {
	case status == 408 || status == 425 || status == 429:
		return Retry
	case status >= 500 && status != 501 && status != 505:
		return Retry
	}
	return Permanent
}

func checkStatuses(t *testing.T, b *bench) {
	for status := 300; status < 600; status++ {
		if http.StatusText(status) == "" && status%100 < 90 { // those that nobody defines are sampled
			continue
		}
		b.say(echo(status))
		checkStatus(t, b, status, b.batch(2))
		b.say(echo(status))
		checkStatus(t, b, status, b.updates(3)[:1])
	}
	b.accept(t)
	if outcome, err := b.send(t, t.Context(), b.batch(2)); outcome != Delivered {
		t.Errorf("after the receiver is well again: %v", err)
	}
}

func checkStatus(t *testing.T, b *bench, status int, batch []notify.Notification) {
	outcome, err := b.send(t, t.Context(), batch)
	if want := b.want(status); outcome != want {
		t.Errorf("status %d: %s (%v), want %s", status, outcome, err, want)
	}
	if err != nil && outcome != Delivered && !strings.Contains(err.Error(), fmt.Sprint(status)) {
		t.Errorf("status %d is not in the error: %v", status, err)
	}
	if len(b.requests()) == 0 {
		t.Errorf("status %d: nothing was sent", status)
	}
}

func checkRetryAfter(t *testing.T, b *bench) {
	if b.want(http.StatusTooManyRequests) != Retry {
		return // this receiver does not limit rates by it
	}
	for value, want := range map[string]time.Duration{"7": 7 * time.Second, "99999999": time.Hour, "-1": 0, "soon": 0, "": 0} {
		b.say(echo(http.StatusTooManyRequests, "Retry-After", value))
		outcome, err := b.send(t, t.Context(), b.batch(1))
		if d, _ := notify.Delay(err); outcome != Retry || d != want {
			t.Errorf("Retry-After %q: %s after %s, want %s", value, outcome, d, want)
		}
	}
	b.say(echo(http.StatusServiceUnavailable, "Retry-After", time.Now().Add(time.Minute).UTC().Format(http.TimeFormat)))
	_, err := b.send(t, t.Context(), b.batch(1))
	if d, _ := notify.Delay(err); d < 50*time.Second || d > 70*time.Second {
		t.Errorf("Retry-After of a date in a minute: %s", d)
	}
}

// checkRedirects has the receiver send the destination elsewhere, which must not
// be asked anything: it would get the secrets.
func checkRedirects(t *testing.T, b *bench) {
	elsewhere := newReceiver(t)
	elsewhere.say(echo(http.StatusOK))
	for _, status := range []int{301, 302, 303, 307, 308} {
		b.say(echo(status, "Location", elsewhere.URL+"/"))
		if outcome, err := b.send(t, t.Context(), b.batch(1)); outcome != Permanent {
			t.Errorf("status %d: %s (%v), want permanent", status, outcome, err)
		}
	}
	if n := len(elsewhere.requests()); n > 0 {
		t.Errorf("%d redirects were followed", n)
	}
}

func checkSlow(t *testing.T, b *bench) {
	hold := make(chan struct{})
	defer close(hold)
	b.say(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hold:
		case <-r.Context().Done():
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if outcome, err := b.send(t, ctx, b.batch(1)); outcome != Retry {
		t.Errorf("no answer in time: %s (%v), want retry", outcome, err)
	}
}

func checkEndless(t *testing.T, b *bench) {
	b.say(func(w http.ResponseWriter, r *http.Request) {
		chunk := bytes.Repeat([]byte(r.Header.Get("Authorization")+" "), 1000)
		for range 20000 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	b.send(t, t.Context(), b.batch(1)) // ends, whatever it says
}

func checkBroken(t *testing.T, b *bench) {
	b.say(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		conn.Close()
	})
	if outcome, err := b.send(t, t.Context(), b.batch(1)); outcome != Retry {
		t.Errorf("a connection that breaks: %s (%v), want retry", outcome, err)
	}
	b.CloseClientConnections()
	b.Server.Close()
	if outcome, err := b.send(t, t.Context(), b.batch(1)); outcome != Retry {
		t.Errorf("nobody listens: %s (%v), want retry", outcome, err)
	}
	// Something else listens there now: it speaks no HTTP, and repeats what it hears.
	listener, err := net.Listen("tcp", b.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go parrot(listener)
	if outcome, err := b.send(t, t.Context(), b.batch(1)); outcome != Retry {
		t.Errorf("no HTTP: %s (%v), want retry", outcome, err)
	}
}

func parrot(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		buffer := make([]byte, 4096)
		n, _ := conn.Read(buffer)
		conn.Write(buffer[:n])
		conn.Close()
	}
}

// checkSecretGone takes away the files with secrets: a mounted Secret is replaced
// while the server runs, and comes back.
func checkSecretGone(t *testing.T, b *bench) {
	for _, file := range []notify.SecretFile{b.to.SecretFile, b.to.URLFile} {
		secret := removeFile(t, file)
		b.say(echo(http.StatusOK))
		b.accept(t)
		if outcome, err := b.send(t, t.Context(), b.batch(1)); outcome == Permanent {
			t.Errorf("without %s: permanent (%v), want another attempt", file, err)
		}
		restoreFile(t, file, secret)
	}
	if outcome, err := b.send(t, t.Context(), b.batch(1)); outcome != Delivered {
		t.Errorf("with the secrets again: %v", err)
	}
}

// AuthenticatesBothSides checks a destination against a receiver that asks for a
// certificate: build makes the destination for a URL with these files in PEM.
func AuthenticatesBothSides(t *testing.T, build func(t *testing.T, url, ca, cert, key string) notify.Destination) {
	t.Helper()
	authority := NewAuthority(t)
	seen := make(chan string, 10)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r.TLS.PeerCertificates[0].Subject.CommonName
		io.WriteString(w, "{}")
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{authority.Pair}, ClientCAs: authority.Pool, ClientAuth: tls.RequireAndVerifyClientCert}
	server.Config.ErrorLog = (&Log{}).std()
	server.StartTLS()
	defer server.Close()
	good := build(t, server.URL, authority.CAFile, authority.CertFile, authority.KeyFile)
	defer good.Close()
	if err := good.Send(t.Context(), Notifications(1)); err != nil {
		t.Errorf("with certificates: %v", err)
	} else if name := <-seen; name != "127.0.0.1" {
		t.Errorf("the receiver sees %q", name)
	}
	for what, d := range map[string]notify.Destination{
		"an authority of its own": build(t, server.URL, "", authority.CertFile, authority.KeyFile),
		"no certificate":          build(t, server.URL, authority.CAFile, "", ""),
	} {
		defer d.Close()
		if err := d.Send(t.Context(), Notifications(1)); err == nil || notify.IsPermanent(err) {
			t.Errorf("%s: %v, want an error that is worth another attempt", what, err)
		}
	}
}
