package externaldata_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/externaldata"
	"github.com/kubeguardian/kubeguardian/policy/externaldata/providertest"
)

// newClient returns a client of a provider whose name is p.
func newClient(t *testing.T, document string, opts externaldata.Options) *externaldata.Client {
	t.Helper()
	set, err := externaldata.Load(policy.File{Name: "p.yaml", Data: []byte(document)})
	if err != nil {
		t.Fatal(err)
	}
	client, err := externaldata.NewClient(set, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func clientOf(t *testing.T, p *providertest.Provider, ttl time.Duration) *externaldata.Client {
	t.Helper()
	return newClient(t, p.Document("p"), externaldata.Options{CertFile: p.CertFile, KeyFile: p.KeyFile, TTL: ttl})
}

// lengths says of a key how long it is, and that one beginning with "bad" is none.
func lengths(key string) (any, string) {
	if strings.HasPrefix(key, "bad") {
		return nil, "no such key"
	}
	return len(key), ""
}

func items(list ...any) (out []externaldata.Item) {
	for i := 0; i+1 < len(list); i += 2 {
		key, _ := list[i].(string)
		item := externaldata.Item{Key: key, Value: list[i+1]}
		if problem, ok := list[i+1].(error); ok {
			item.Value, item.Error = nil, problem.Error()
		}
		out = append(out, item)
	}
	return out
}

func TestAsk(t *testing.T) {
	p := providertest.New(t, providertest.Answers(lengths))
	c := clientOf(t, p, time.Minute)
	bad := errors.New("no such key")
	for _, test := range []struct {
		keys  string
		want  []externaldata.Item
		calls int64
	}{
		{"aa b bad", items("aa", 2.0, "b", 1.0, "bad", bad), 1},
		{"b aa", items("b", 1.0, "aa", 2.0), 1},
		{"b ccc b", items("b", 1.0, "ccc", 3.0, "b", 1.0), 2},
		{"bad ccc", items("bad", bad, "ccc", 3.0), 2}, // errors are kept for a moment
		{"", items(), 2},
	} {
		answer, err := c.Ask(t.Context(), "p", strings.Fields(test.keys))
		if err != nil {
			t.Fatal(err)
		}
		if len(answer.Items)+len(test.want) > 0 && !reflect.DeepEqual(answer.Items, test.want) || answer.StatusCode != http.StatusOK || !answer.Idempotent || answer.SystemError != "" {
			t.Errorf("%q: %+v, want %v", test.keys, answer, test.want)
		}
		if n := p.Calls.Load(); n != test.calls {
			t.Errorf("%q: %d calls, want %d", test.keys, n, test.calls)
		}
	}
}

// TestOneCall expects a thousand questions at the same time to be one call.
func TestOneCall(t *testing.T) {
	p := providertest.New(t, providertest.Answers(lengths))
	c := clientOf(t, p, time.Minute)
	var group sync.WaitGroup
	for range 1000 {
		group.Go(func() {
			answer, err := c.Ask(t.Context(), "p", []string{"image"})
			if err != nil || len(answer.Items) != 1 || answer.Items[0].Value != 5.0 {
				t.Errorf("%+v, %v", answer, err)
			}
		})
	}
	group.Wait()
	if n := p.Calls.Load(); n != 1 {
		t.Errorf("%d calls, want 1", n)
	}
}

// TestAge expects an answer to be asked for anew when it is too old, and always
// when none is to be kept.
func TestAge(t *testing.T) {
	p := providertest.New(t, providertest.Answers(lengths))
	for ttl, want := range map[time.Duration]int64{0: 3, time.Hour: 1, 50 * time.Millisecond: 3} {
		c := clientOf(t, p, ttl)
		p.Calls.Store(0)
		for range 3 {
			if _, err := c.Ask(t.Context(), "p", []string{"a"}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * 50 * time.Millisecond)
		}
		if n := p.Calls.Load(); n != want {
			t.Errorf("kept for %s: %d calls, want %d", ttl, n, want)
		}
	}
}

// TestFailures expects each way to give no answer to be an error that names the
// provider and the key, and to be told.
func TestFailures(t *testing.T) {
	text := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status); fmt.Fprint(w, body) }
	}
	elsewhere := providertest.New(t, providertest.Answers(lengths))
	const head = `{"apiVersion": "externaldata.gatekeeper.sh/v1beta1", "kind": "ProviderResponse", "response": {"items": [{"key": "image", "value": `
	deep := strings.Repeat("[", 70) + strings.Repeat("]", 70)
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"hanging":     {hang, "no answer within its timeout of 2s"},
		"500":         {text(500, "oops"), "it answers 500 Internal Server Error: read its answer"},
		"404":         {text(404, "{}"), `it answers 404 Not Found: its answer is a "" of ""`},
		"no JSON":     {text(200, "hello"), "read its answer: invalid character"},
		"empty":       {text(200, ""), "read its answer: unexpected end"},
		"other JSON":  {text(200, `{"status": "ok"}`), `its answer is a "" of "": want a ProviderResponse`},
		"two values":  {text(200, head+"1}]}} {}"), "read its answer: invalid character"},
		"wrong types": {text(200, `{"kind": "ProviderResponse", "response": {"items": "none"}}`), "read its answer: json: cannot unmarshal"},
		"huge":        {text(200, head+`"`+strings.Repeat("x", 5<<20)), "its answer has more than 4194304 bytes"},
		"deep":        {text(200, head+deep+"}]}}"), `its answer for "image" is nested deeper than 64 levels`},
		"a redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		}, "it answers 307 Temporary Redirect: redirects are not followed"},
		"a connection": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := providertest.New(t, test.handler)
			var told atomic.Int64
			c := newClient(t, p.Document("p"), externaldata.Options{
				CertFile: p.CertFile, KeyFile: p.KeyFile, TTL: time.Minute,
				Failed: func(provider string, err error) {
					if provider == "p" && strings.Contains(err.Error(), test.want) {
						told.Add(1)
					}
				},
			})
			_, err := c.Ask(t.Context(), "p", []string{"image", "other"})
			var failed *externaldata.Error
			if !errors.As(err, &failed) || failed.StatusCode != http.StatusInternalServerError || !strings.HasPrefix(err.Error(), `ask provider "p" about "image" and 1 more: `+test.want) {
				t.Errorf("error %v, want %s", err, test.want)
			}
			if told.Load() != 1 {
				t.Error("nobody was told")
			}
		})
	}
	t.Cleanup(func() {
		if n := elsewhere.Calls.Load(); n > 0 {
			t.Errorf("%d redirects were followed", n)
		}
	})
}

// hang answers nothing for as long as somebody waits.
func hang(_ http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err == nil { // else it is not known when the client goes
		<-r.Context().Done()
	}
}

// TestStatus expects the status of an answer to be passed on, and an answer that
// is not 200, or has an error of the system, not to be kept.
func TestStatus(t *testing.T) {
	for body, status := range map[string]int{
		`"items": [{"key": "a", "value": 1}]`:                            http.StatusServiceUnavailable,
		`"items": [{"key": "a", "value": 1}], "systemError": "degraded"`: http.StatusOK,
	} {
		p := providertest.New(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"apiVersion": "externaldata.gatekeeper.sh/v1alpha1", "kind": "ProviderResponse", "response": {%s}}`, body)
		}))
		c := clientOf(t, p, time.Minute)
		for range 2 {
			answer, err := c.Ask(t.Context(), "p", []string{"a"})
			if err != nil || answer.StatusCode != status || answer.Idempotent || (answer.SystemError != "") != strings.Contains(body, "degraded") {
				t.Errorf("%+v, %v", answer, err)
			}
		}
		if n := p.Calls.Load(); n != 2 {
			t.Errorf("%s: %d calls, want 2", body, n)
		}
	}
}

// TestUnasked expects what nobody asked for to be told last, and not to be kept.
func TestUnasked(t *testing.T) {
	p := providertest.New(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"apiVersion": "externaldata.gatekeeper.sh/v1beta1", "kind": "ProviderResponse", "response": {"items": [{"key": "b", "error": "revoked"}, {"key": "a", "value": "x"}]}}`)
	}))
	c := clientOf(t, p, time.Minute)
	for _, key := range []string{"a", "b"} {
		answer, err := c.Ask(t.Context(), "p", []string{key})
		if err != nil || len(answer.Items) != 2 || answer.Items[0].Key != key {
			t.Errorf("%s: %+v, %v", key, answer, err)
		}
	}
	if n := p.Calls.Load(); n != 2 {
		t.Errorf("%d calls, want 2", n)
	}
}

// TestWaiting expects who asked to wait no longer than it wants, and the answer
// that comes later to be there for the next one.
func TestWaiting(t *testing.T) {
	release := make(chan struct{})
	p := providertest.New(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-release
		providertest.Answers(lengths).ServeHTTP(w, r)
	}))
	c := clientOf(t, p, time.Minute)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Ask(ctx, "p", []string{"a"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	close(release)
	if _, err := c.Ask(t.Context(), "p", []string{"a"}); err != nil {
		t.Error(err)
	}
	if n := p.Calls.Load(); n != 1 {
		t.Errorf("%d calls, want 1", n)
	}
}

// TestParallel expects a provider to have no more than its share of calls.
func TestParallel(t *testing.T) {
	var now, most atomic.Int64
	p := providertest.New(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		time.Sleep(5 * time.Millisecond)
		providertest.Answers(lengths).ServeHTTP(w, r)
	}))
	c := clientOf(t, p, time.Minute)
	var group sync.WaitGroup
	for i := range 5 * externaldata.MaxCalls {
		group.Go(func() {
			if _, err := c.Ask(t.Context(), "p", []string{fmt.Sprint(i)}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n := most.Load(); n < 2 || n > externaldata.MaxCalls {
		t.Errorf("%d calls at a time, want some, at most %d", n, externaldata.MaxCalls)
	}
}

// TestHanging expects a provider that is late again and again not to hold up
// those who ask next.
func TestHanging(t *testing.T) {
	p := providertest.New(t, http.HandlerFunc(hang))
	c := newClient(t, strings.Replace(p.Document("p"), "timeout: 2", "timeout: 1", 1), externaldata.Options{CertFile: p.CertFile, KeyFile: p.KeyFile})
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			if _, err := c.Ask(t.Context(), "p", []string{fmt.Sprint(i)}); err == nil {
				t.Error("an answer")
			}
		})
	}
	group.Wait()
	before := p.Calls.Load()
	if _, err := c.Ask(t.Context(), "p", []string{"a"}); err == nil || !strings.Contains(err.Error(), `about "a": not asked: it was late 4 times in a row`) {
		t.Errorf("error %v", err)
	}
	if n := p.Calls.Load(); n != before {
		t.Error("it was asked")
	}
}

// TestTrust expects both sides to prove who they are.
func TestTrust(t *testing.T) {
	p := providertest.New(t, providertest.Answers(lengths))
	stranger := providertest.New(t, providertest.Answers(lengths))
	expired := providertest.Until(t, time.Now().Add(-time.Minute), providertest.Answers(lengths))
	for name, test := range map[string]struct {
		document, certFile, keyFile, want string
	}{
		"no client certificate":    {p.Document("p"), "", "", "certificate required"},
		"a stranger's certificate": {p.Document("p"), stranger.CertFile, stranger.KeyFile, "certificate"},
		"an unknown authority":     {strings.Replace(p.Document("p"), p.CABundle, stranger.CABundle, 1), p.CertFile, p.KeyFile, "signed by unknown authority"},
		"an expired server":        {expired.Document("p"), expired.CertFile, expired.KeyFile, "certificate has expired"},
		"another name":             {strings.Replace(p.Document("p"), "127.0.0.1", "localhost", 1), p.CertFile, p.KeyFile, "wanted to match localhost"},
		"a metadata service":       {strings.Replace(p.Document("p"), "127.0.0.1", "169.254.169.254", 1), p.CertFile, p.KeyFile, "address 169.254.169.254 is not that of a provider"},
		"one in IPv6":              {strings.Replace(p.Document("p"), "127.0.0.1", "[::ffff:169.254.169.254]", 1), p.CertFile, p.KeyFile, "is not that of a provider"},
		"one behind a translator":  {strings.Replace(p.Document("p"), "127.0.0.1", "[64:ff9b::a9fe:a9fe]", 1), p.CertFile, p.KeyFile, "is not that of a provider"},
		"one of AWS in IPv6":       {strings.Replace(p.Document("p"), "127.0.0.1", "[fd00:ec2::254]", 1), p.CertFile, p.KeyFile, "is not that of a provider"},
		"a link-local address":     {strings.Replace(p.Document("p"), "127.0.0.1", "[fe80::1]", 1), p.CertFile, p.KeyFile, "is not that of a provider"},
		"no address":               {strings.Replace(p.Document("p"), "127.0.0.1", "0.0.0.0", 1), p.CertFile, p.KeyFile, "is not that of a provider"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClient(t, test.document, externaldata.Options{CertFile: test.certFile, KeyFile: test.keyFile})
			if _, err := c.Ask(t.Context(), "p", []string{"a"}); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %s", err, test.want)
			}
		})
	}
	if n := p.Calls.Load(); n > 0 {
		t.Errorf("%d calls got through", n)
	}
}

func TestUnknownProvider(t *testing.T) {
	c, err := externaldata.NewClient(nil, externaldata.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Ask(t.Context(), "lost", []string{"a"})
	var failed *externaldata.Error
	if !errors.As(err, &failed) || failed.StatusCode != http.StatusBadRequest || err.Error() != `ask provider "lost" about "a": there is no such Provider` {
		t.Errorf("error %v", err)
	}
}

func TestLargeQuestion(t *testing.T) {
	p := providertest.New(t, providertest.Answers(lengths))
	c := clientOf(t, p, 0)
	many := make([]string, 10_001)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	for want, keys := range map[string][]string{"more than 10000 keys": many, "more than 1048576 bytes": {strings.Repeat("x", 1<<20+1)}} {
		if _, err := c.Ask(t.Context(), "p", keys); err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 500 {
			t.Errorf("error %.600v, want %s", err, want)
		}
	}
}

// TestRenewal expects a renewed certificate to be used by the next connection,
// the one before while the files do not fit, and files that are missing to be an
// error at once.
func TestRenewal(t *testing.T) {
	p := providertest.New(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		serial, err := json.Marshal(r.TLS.PeerCertificates[0].SerialNumber.String())
		if err != nil {
			t.Error(err)
		}
		fmt.Fprintf(w, `{"apiVersion": "externaldata.gatekeeper.sh/v1beta1", "kind": "ProviderResponse", "response": {"items": [{"key": "a", "value": %s}]}}`, serial)
	}))
	c := clientOf(t, p, 0)
	serial := func() any {
		answer, err := c.Ask(t.Context(), "p", []string{"a"})
		if err != nil {
			t.Fatal(err)
		}
		return answer.Items[0].Value
	}
	first := serial()
	p.Renew(t)
	second := serial()
	if first == second {
		t.Error("the certificate was not renewed")
	}
	if err := os.WriteFile(p.KeyFile, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if third := serial(); third != second {
		t.Error("the certificate is not the one before")
	}
	if _, err := externaldata.NewClient(nil, externaldata.Options{CertFile: p.CertFile, KeyFile: p.KeyFile}); err == nil || !strings.Contains(err.Error(), "read client certificate for providers") {
		t.Errorf("error %v", err)
	}
	if _, err := externaldata.NewClient(nil, externaldata.Options{CertFile: p.CertFile + ".none", KeyFile: p.KeyFile}); err == nil {
		t.Error("a missing file is no error")
	}
}

func TestClose(t *testing.T) {
	asked := make(chan struct{})
	p := providertest.New(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { close(asked); hang(w, r) }))
	c := clientOf(t, p, 0)
	go func() { <-asked; c.Close() }()
	if _, err := c.Ask(t.Context(), "p", []string{"a"}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
