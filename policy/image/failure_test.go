package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/kubeguardian/kubeguardian/policy"
)

// refuse answers requests of a method with a status.
func refuse(method string, status int) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == method {
			w.WriteHeader(status)
		}
		return r.Method == method
	}
}

// TestFailurePolicy makes a registry fail in many ways: each is judged by the
// policy, in bounded time.
func TestFailurePolicy(t *testing.T) {
	release := newKey(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	down := closed.Addr().String()
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	hang := func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }
	drip := func(w http.ResponseWriter, r *http.Request) bool { // a body that never ends
		w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
		for r.Context().Err() == nil {
			_, _ = io.WriteString(w, " ")
			_ = http.NewResponseController(w).Flush()
			time.Sleep(10 * time.Millisecond)
		}
		return true
	}
	for name, hook := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"down": nil, "slow": hang, "slow body": drip,
		"500": refuse("GET", 500), "503": refuse("GET", 503), "429": refuse("GET", 429), "401": refuse("GET", 401), "403": refuse("GET", 403),
	} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t, true)
			image := h.push("shop/web:1").String()
			if hook == nil {
				image = down + image[len(h.host):]
			}
			h.answer(hook)
			patience := time.Minute
			if strings.HasPrefix(name, "slow") {
				patience = 300 * time.Millisecond
			}
			for given, want := range map[string]string{"Fail": "deny: ", "Warn": "warn: ", "Ignore": "audit: "} {
				set := load(t, Options{Timeout: patience}, doc("signed", "failurePolicy: "+given+"\nattestors:\n"+keyAttestor("release", release)))
				within(t, 2*time.Minute, func() {
					wantOne(t, evaluate(t, set, podOf(image)), want+"image "+image+" (spec.containers[0].image): it could not be verified: ask registry ")
					tag := strings.Split(image, "@")[0] + ":1"
					object, _, err := set.Mutate(t.Context(), podOf(tag))
					if err != nil {
						t.Error(err)
					}
					req := podOf(tag)
					req.Object = object
					if hook == nil || name == "slow" { // elsewhere HEAD still works
						wantOne(t, evaluate(t, set, req), want, "it could not be verified: ask registry ")
					}
				})
			}
		})
	}
	t.Run("of an audited policy", func(t *testing.T) {
		set := load(t, Options{Timeout: time.Minute}, doc("signed", "validationActions: [Audit]\nattestors:\n"+keyAttestor("release", release)))
		wantOne(t, evaluate(t, set, podOf(down+"/shop/web@sha256:"+strings.Repeat("0", 64))), "audit: ")
	})
}

// TestHugeAnswers lets a registry send more than anybody reads: that is a fault
// of the image, which no failure policy lets pass.
func TestHugeAnswers(t *testing.T) {
	h, release := newHub(t, true), newKey(t)
	image := h.push("shop/web:1")
	var sent atomic.Int64
	h.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, ".sig") {
			return false
		}
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		_, _ = io.Copy(w, io.LimitReader(repeated{[]byte(`{"layers":[`), &sent}, 1<<30))
		return true
	})
	set := load(t, Options{}, doc("signed", "failurePolicy: Ignore\nattestors:\n"+keyAttestor("release", release)))
	wantOne(t, evaluate(t, set, podOf(image.String())), "deny: ", "it is not signed by release", "the registry sends more than 16 MiB")
	if n := sent.Load(); n > 32<<20 {
		t.Errorf("%d bytes were taken", n)
	}
}

// TestManySignatures reads only so many of them.
func TestManySignatures(t *testing.T) {
	h, release, other := newHub(t, true), newKey(t), newKey(t)
	image := h.push("shop/web:1")
	for i := range 2*maxSignatures + 1 {
		h.refer(image, other.bundle(inToto(t, image.DigestStr(), cosignSign, map[string]any{"n": i})))
	}
	var layers []mutate.Addendum
	for range maxSignatures + 1 {
		layers = append(layers, other.simple(claim(image.DigestStr())))
	}
	h.cosign(image, ".sig", layers...)
	h.forget()
	set := load(t, Options{RequestsPerSecond: 10_000}, doc("signed", "failurePolicy: Ignore\nattestors:\n"+keyAttestor("release", release)))
	wantOne(t, evaluate(t, set, podOf(image.String())), "deny: ", "not signed by release")
	if total, _ := h.requests(); total > 3*maxSignatures+10 {
		t.Errorf("%d requests", total)
	}
}

// TestOnce judges 1,000 pods of one image at the same time: it is verified once.
func TestOnce(t *testing.T) {
	h, release := newHub(t, true), newKey(t)
	image := h.push("shop/web:1")
	h.cosign(image, ".sig", release.simple(claim(image.DigestStr())))
	set := load(t, Options{}, doc("signed", "attestors:\n"+keyAttestor("release", release)))
	h.forget()
	var wait sync.WaitGroup
	var denied atomic.Int64
	for range 1000 {
		wait.Go(func() {
			found, err := set.Evaluate(t.Context(), podOf(image.String()))
			if err != nil || len(found) > 0 {
				denied.Add(1)
			}
		})
	}
	wait.Wait()
	if denied.Load() > 0 {
		t.Errorf("%d of 1000 are denied", denied.Load())
	}
	total, most := h.requests()
	if most != 1 || total > 6 {
		t.Errorf("%d requests, the most frequent %d times", total, most)
	}
	wantNone(t, evaluate(t, set, podOf(image.String())))
	if after, _ := h.requests(); after != total {
		t.Errorf("%d more requests for what is known", after-total)
	}
	if stats := set.verifier.Stats(); stats.Verified != 1 || stats.Remembered == 0 || stats.Failed != 0 {
		t.Errorf("%+v", stats)
	}
}

// TestRemembered moves the clock to see for how long a conclusion holds.
func TestRemembered(t *testing.T) {
	h, release := newHub(t, true), newKey(t)
	image := h.push("shop/web:1")
	var mu sync.Mutex
	now := time.Now()
	sleep := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); now = now.Add(d) }
	options := Options{Now: func() time.Time { mu.Lock(); defer mu.Unlock(); return now }}
	set := load(t, options, doc("signed", "attestors:\n"+keyAttestor("release", release)))
	asked := func() bool {
		total, _ := h.requests()
		h.forget()
		return total > 0
	}
	judge := func() []string { return evaluate(t, set, podOf(image.String())) }

	wantOne(t, judge(), "it has no signature")
	h.cosign(image, ".sig", release.simple(claim(image.DigestStr())))
	asked()
	wantOne(t, judge(), "it has no signature") // for a short time still
	if asked() {
		t.Error("what was invalid is not remembered")
	}
	sleep(31 * time.Second)
	wantNone(t, judge())
	asked()
	sleep(59 * time.Minute)
	wantNone(t, judge())
	if asked() {
		t.Error("what was valid is not remembered")
	}
	sleep(2 * time.Minute)
	h.answer(refuse("GET", 500))
	wantOne(t, judge(), "it could not be verified")
	asked()
	wantOne(t, judge(), "it could not be verified")
	if asked() {
		t.Error("a failure is not remembered")
	}
	h.answer(nil)
	sleep(6 * time.Second)
	wantNone(t, judge())
}

// TestReload keeps what is known when policies are loaded again, but for those
// that say something else.
func TestReload(t *testing.T) {
	h, release, other := newHub(t, true), newKey(t), newKey(t)
	image := h.push("shop/web:1")
	h.cosign(image, ".sig", release.simple(claim(image.DigestStr())))
	v := New(Options{AllowLoopback: true})
	judge := func(text string, by key) []string {
		set, err := v.Load(policy.File{Name: "p.yaml", Data: []byte(text)}, policy.File{Name: "release.pub", Data: []byte(by.public())})
		if err != nil {
			t.Fatal(err)
		}
		return evaluate(t, set, podOf(image.String()))
	}
	for name, signed := range map[string]func(by key) string{
		"key in the policy": func(by key) string { return doc("signed", "attestors:\n"+keyAttestor("release", by)) },
		"key beside it":     func(key) string { return doc("signed", "attestors: [{name: release, key: {file: release.pub}}]") },
	} {
		t.Run(name, func(t *testing.T) {
			wantNone(t, judge(signed(release), release))
			h.forget()
			wantNone(t, judge("# the same, loaded again\n"+signed(release), release))
			if total, _ := h.requests(); total > 0 {
				t.Error("the same policy asks again")
			}
			wantOne(t, judge(signed(other), other), "it is not signed by release")
		})
	}
}

// TestImpatience lets one who asks stop waiting, and the next one have the
// answer.
func TestImpatience(t *testing.T) {
	h, release := newHub(t, true), newKey(t)
	image := h.push("shop/web:1")
	h.cosign(image, ".sig", release.simple(claim(image.DigestStr())))
	set := load(t, Options{}, doc("signed", "attestors:\n"+keyAttestor("release", release)))
	open := make(chan struct{})
	h.answer(func(http.ResponseWriter, *http.Request) bool { <-open; return false })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	found, err := set.Evaluate(ctx, podOf(image.String()))
	if err != nil {
		t.Fatal(err)
	}
	wantOne(t, lines(found), "deny: ", "it could not be verified: verify ", "deadline exceeded")
	h.forget()
	close(open)
	wantNone(t, evaluate(t, set, podOf(image.String())))
}

// TestRate holds a registry to its rate: what would take too long is a failure.
func TestRate(t *testing.T) {
	h, release := newHub(t, true), newKey(t)
	set := load(t, Options{RequestsPerSecond: 0.005, Timeout: time.Minute}, doc("signed", "failurePolicy: Warn\nattestors:\n"+keyAttestor("release", release)))
	image := h.push("shop/web:1")
	h.forget()
	wantOne(t, evaluate(t, set, podOf(image.String())), "warn: ", "wait for a turn at "+h.host)
	if total, _ := h.requests(); total > 1 {
		t.Errorf("%d requests at a rate of one", total)
	}
}

// TestSlowNeighbour hangs all that may be asked of one registry, and still gets an
// answer of another. That a registry hangs is remembered for tags too.
func TestSlowNeighbour(t *testing.T) {
	slow, h, release := newHub(t, true), newHub(t, true), newKey(t)
	image := h.push("shop/web:1")
	h.cosign(image, ".sig", release.simple(claim(image.DigestStr())))
	slow.answer(func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true })
	set := load(t, Options{Timeout: 5 * time.Second}, doc("signed", "attestors:\n"+keyAttestor("release", release)))
	var wait sync.WaitGroup
	for i := range 2 * maxParallel {
		wait.Go(func() {
			if _, _, err := set.Mutate(t.Context(), podOf(fmt.Sprintf("%s/shop/web:%d", slow.host, i))); err != nil {
				t.Error(err)
			}
		})
	}
	within(t, time.Minute, func() { wantNone(t, evaluate(t, set, podOf(image.String()))) })
	within(t, time.Minute, wait.Wait)
	slow.forget()
	wantOne(t, evaluate(t, set, podOf(slow.host+"/shop/web:1")), "it could not be verified: ask registry "+slow.host)
	if total, _ := slow.requests(); total > 0 {
		t.Errorf("%d requests to a registry that hangs", total)
	}
}

// TestPanic makes the code over an image panic, which no test knows how to do from
// outside: the image is refused, and the program lives.
func TestPanic(t *testing.T) {
	var log strings.Builder
	v := New(Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	o := v.within("r.example.com", func(context.Context) outcome { panic("oh") })
	if len(o.problems) != 1 || o.problems[0] != "internal error" || !strings.Contains(log.String(), "panic=oh") {
		t.Errorf("%+v, log %s", o, log.String())
	}
}

// TestForget fills the memory of a verifier, which then forgets what is over.
func TestForget(t *testing.T) {
	now := time.Now()
	v := New(Options{Now: func() time.Time { return now }})
	for i := range maxCached {
		v.keep(fmt.Sprint("bad ", i), outcome{problems: []string{"x"}})
	}
	now = now.Add(31 * time.Second)
	v.keep("good", outcome{})
	if _, ok := v.recall("good"); !ok || len(v.cached) != 1 {
		t.Errorf("%d outcomes are remembered", len(v.cached))
	}
	for i := range 2 * maxCached {
		v.keep(fmt.Sprint("good ", i), outcome{})
	}
	if n := len(v.cached); n > maxCached || n < maxCached/2 {
		t.Errorf("%d outcomes are remembered, at most %d", n, maxCached)
	}
}

// BenchmarkEvaluate judges a pod of two images that are known.
func BenchmarkEvaluate(b *testing.B) {
	h, release := newHub(b, true), newKey(b)
	var images []string
	for _, at := range []string{"shop/web:1", "shop/log:1"} {
		image := h.push(at)
		h.cosign(image, ".sig", release.simple(claim(image.DigestStr())))
		images = append(images, image.String())
	}
	set := load(b, Options{}, doc("signed", "attestors:\n"+keyAttestor("release", release)), doc("allowed", "rules: {allowedImages: ['"+h.host+"/**']}"))
	req := podOf(images...)
	b.ReportAllocs()
	for b.Loop() {
		if found, err := set.Evaluate(b.Context(), req); err != nil || len(found) > 0 {
			b.Fatal(lines(found), err)
		}
	}
}

// BenchmarkVerify verifies one image anew each time, over loopback.
func BenchmarkVerify(b *testing.B) {
	h, release := newHub(b, true), newKey(b)
	image := h.push("shop/web:1")
	h.cosign(image, ".sig", release.simple(claim(image.DigestStr())))
	now := time.Now()
	set := load(b, Options{RequestsPerSecond: 1e6, Now: func() time.Time { return now }}, doc("signed", "attestors:\n"+keyAttestor("release", release)))
	req := podOf(image.String())
	for b.Loop() {
		now = now.Add(2 * time.Hour)
		if found, err := set.Evaluate(b.Context(), req); err != nil || len(found) > 0 {
			b.Fatal(lines(found), err)
		}
	}
}

// TestTLS asks a registry by HTTPS, whose authority must be known.
func TestTLS(t *testing.T) {
	h, release := newHub(t, true), newKey(t)
	image := h.push("shop/web:1")
	h.cosign(image, ".sig", release.simple(claim(image.DigestStr())))
	front := httptest.NewTLSServer(h.serve)
	defer front.Close()
	front.Config.ErrorLog = log.New(io.Discard, "", 0)
	at := strings.Replace(image.String(), h.host, strings.TrimPrefix(front.URL, "https://"), 1)
	signed := doc("signed", "attestors:\n"+keyAttestor("release", release))
	wantOne(t, evaluate(t, load(t, Options{}, signed), podOf(at)), "it could not be verified: ask registry ")
	roots := front.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	wantNone(t, evaluate(t, load(t, Options{RootCAs: roots}, signed), podOf(at)))
}

// TestNoPlainHTTP does not turn to HTTP when HTTPS fails, nor when sent there.
func TestNoPlainHTTP(t *testing.T) {
	for _, host := range []string{"10.1.2.3:5000", "registry.example.com"} {
		sent := false
		transport := roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.URL.Scheme == "http" {
				t.Errorf("%s is asked", r.URL)
			}
			if host != "registry.example.com" {
				return nil, errors.New("no HTTPS here")
			}
			sent = true
			return &http.Response{StatusCode: http.StatusFound, Header: http.Header{"Location": {"http://registry.example.com/"}}, Body: http.NoBody, Request: r}, nil
		})
		set := load(t, Options{Transport: transport}, doc("signed", "attestors:\n"+keyAttestor("release", newKey(t))))
		wantOne(t, evaluate(t, set, podOf(host+"/shop/web@sha256:"+strings.Repeat("0", 64))), "it could not be verified: ask registry "+host)
		if host == "registry.example.com" && !sent {
			t.Error("the registry was not asked")
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestForbiddenAddresses does not let the author of a pod choose whom we talk to.
func TestForbiddenAddresses(t *testing.T) {
	set, err := Load(policy.File{Name: "p.yaml", Data: []byte(doc("signed", "failurePolicy: Ignore\nattestors:\n"+keyAttestor("release", newKey(t))))})
	if err != nil {
		t.Fatal(err)
	}
	h := newHub(t, true)
	for _, host := range []string{h.host, "169.254.169.254", "[fe80::1]:443", "[::1]:5000", "0.0.0.0:80", "[::ffff:169.254.169.254]:80", "224.0.0.1:80"} {
		t.Run(host, func(t *testing.T) {
			image := host + "/shop/web@sha256:" + strings.Repeat("0", 64)
			found := evaluate(t, set, podOf(image))
			wantOne(t, found, "deny: ", fmt.Sprintf("image %s", image))
			if !strings.Contains(found[0], "is not that of a registry") && !strings.Contains(found[0], "not an image reference") {
				t.Error(found[0])
			}
		})
	}
	if total, _ := h.requests(); total > 0 {
		t.Errorf("%d requests reached this machine", total)
	}
}
