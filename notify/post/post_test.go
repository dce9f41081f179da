package post_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/notifytest"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

// plain is a destination that has all its secrets where they can leak.
type plain struct {
	*post.Client
	urlFile notify.SecretFile
}

func (p plain) Batch() int { return 10 }

func (p plain) Send(ctx context.Context, batch []notify.Notification) error {
	to, err := p.urlFile.Read()
	if err != nil {
		return errors.Join(errors.New("under-test"), err)
	}
	body, err := json.Marshal(batch)
	if err != nil {
		return notify.Permanent(err)
	}
	_, err = p.Client.Send(ctx, post.Request{URL: string(to), Type: "application/json", Body: body})
	return err
}

func client(t *testing.T, c post.Config) *post.Client {
	t.Helper()
	out, err := post.New(c, notify.Options{Name: "under-test", Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	return out
}

func TestConforms(t *testing.T) {
	notifytest.HTTP{
		New: func(t *testing.T, to notifytest.Target) notify.Destination {
			return plain{client(t, post.Config{
				AllowAddresses: []string{"127.0.0.1"}, HeaderFiles: map[string]notify.SecretFile{"Authorization": to.SecretFile},
			}), to.URLFile}
		},
		Accept: func(t *testing.T, _ http.ResponseWriter, r *http.Request, body []byte) {
			if r.Header.Get("Authorization") != "token-S3cr3tOfTheFile" || !json.Valid(body) {
				t.Errorf("got header %q and body %.100q", r.Header.Get("Authorization"), body)
			}
		},
	}.Conform(t)
}

func TestAuthenticatesBothSides(t *testing.T) {
	notifytest.AuthenticatesBothSides(t, func(t *testing.T, url, ca, cert, key string) notify.Destination {
		file := filepath.Join(t.TempDir(), "url")
		if err := os.WriteFile(file, []byte(url), 0o600); err != nil {
			t.Fatal(err)
		}
		return plain{client(t, post.Config{AllowAddresses: []string{"127.0.0.1"}, CAFile: ca, CertFile: cert, KeyFile: key}), notify.SecretFile(file)}
	})
}

func TestGuard(t *testing.T) {
	const public, private, never = "public", "private", "never"
	for address, want := range map[string]string{
		"8.8.8.8": public, "2606:4700::1111": public, "172.32.0.1": public, "64:ff9b::808:808": public,
		"127.0.0.1": private, "127.255.0.9": private, "::1": private, "10.0.0.1": private, "192.168.1.1": private, "172.16.9.9": private,
		"100.64.0.1": private, "fd12::1": private, "::ffff:10.0.0.1": private, "64:ff9b::7f00:1": private, "2002:7f00:1::": private, "::127.0.0.1": private,
		"169.254.169.254": never, "::ffff:169.254.169.254": never, "fe80::1": never, "fe80::1%lo": never, "fd00:ec2::254": never, "100.100.100.200": never,
		"168.63.129.16": never, "0.0.0.0": never, "::": never, "0.1.2.3": never, "224.0.0.1": never, "ff02::1": never, "255.255.255.255": never,
		"64:ff9b:1::808:808": private, "64:ff9b:1::a00:1": private, "fec0::1": private, "::ffff:0:127.0.0.1": private,
		"64:ff9b:1::a9fe:a9fe": never, "64:ff9b:1:2::a9fe:a9fe": never, "::ffff:0:169.254.169.254": never,
		"64:ff9b::a9fe:a9fe": never, "2002:a9fe:a9fe::1": never, "192.0.0.192": never, "240.0.0.1": never,
	} {
		ip := netip.MustParseAddr(address)
		none, err := post.NewGuard(nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := none.Check(ip); (got == nil) != (want == public) {
			t.Errorf("%s: %v, want it %s", address, got, want)
		}
		all, err := post.NewGuard([]string{"0.0.0.0/0", "::/0"})
		if err != nil {
			t.Fatal(err)
		}
		if got := all.Check(ip); (got == nil) != (want != never) {
			t.Errorf("%s, everything allowed: %v, want it %s", address, got, want)
		}
	}
	if _, err := post.NewGuard([]string{"10.0.0.0/33"}); err == nil || !strings.Contains(err.Error(), "10.0.0.0/33") {
		t.Errorf("a network that is none: %v", err)
	}
}

// TestForbidden asks a server that is there: a name that leads to this machine is
// no way around the guard.
func TestForbidden(t *testing.T) {
	asked := false
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer server.Close()
	port := server.URL[strings.LastIndex(server.URL, ":"):]
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "169.254.169.254", "[fe80::1]", "0.0.0.0", "[::]"} {
		_, err := client(t, post.Config{}).Send(t.Context(), post.Request{URL: "http://" + host + port})
		var forbidden *post.ForbiddenError
		if !notify.IsPermanent(err) || !errors.As(err, &forbidden) {
			t.Errorf("%s: %v, want it forbidden for good", host, err)
		}
	}
	_, err := client(t, post.Config{AllowAddresses: []string{"127.0.0.1"}, Proxy: server.URL}).Send(t.Context(), post.Request{URL: "http://169.254.169.254/latest"})
	if !notify.IsPermanent(err) {
		t.Errorf("metadata by a proxy: %v, want it forbidden for good", err)
	}
	if asked {
		t.Error("the server was asked")
	}
	if _, err := client(t, post.Config{AllowAddresses: []string{"127.0.0.0/8", "::1"}}).Send(t.Context(), post.Request{URL: "http://localhost" + port}); err != nil || !asked {
		t.Errorf("an allowed address: %v", err)
	}
}

func TestProxy(t *testing.T) {
	var seen string
	proxy := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = r.URL.String() }))
	defer proxy.Close()
	c := client(t, post.Config{AllowAddresses: []string{"127.0.0.1"}, Proxy: proxy.URL})
	if _, err := c.Send(t.Context(), post.Request{URL: "http://receiver.example/x"}); err != nil || seen != "http://receiver.example/x" {
		t.Errorf("the proxy was asked for %q: %v", seen, err)
	}
}

func TestURLs(t *testing.T) {
	for _, to := range []string{"", "receiver", "ftp://a/b", "file:///etc/passwd", "http://", "http://a b/", "://S3cret", "http://h/%zzS3cret"} {
		_, err := client(t, post.Config{}).Send(t.Context(), post.Request{URL: to})
		if !notify.IsPermanent(err) || strings.Contains(err.Error(), "S3cret") {
			t.Errorf("%q: %v, want a permanent error that does not quote it", to, err)
		}
	}
}

func TestTimeout(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer server.Close()
	defer close(release)
	_, err := client(t, post.Config{AllowAddresses: []string{"127.0.0.1"}, Timeout: 50 * time.Millisecond}).Send(t.Context(), post.Request{URL: server.URL})
	if !errors.Is(err, context.DeadlineExceeded) || notify.IsPermanent(err) {
		t.Errorf("got %v, want that time ran out", err)
	}
}

func TestHeaders(t *testing.T) {
	var got http.Header
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header }))
	defer server.Close()
	c := client(t, post.Config{AllowAddresses: []string{"127.0.0.1"}, Headers: map[string]string{"x-scope-orgid": "shop"}})
	own := http.Header{"X-Own": {"1"}}
	if _, err := c.Send(t.Context(), post.Request{URL: server.URL, Header: own, Type: "text/plain"}); err != nil {
		t.Fatal(err)
	}
	if got.Get("X-Scope-Orgid") != "shop" || got.Get("X-Own") != "1" || got.Get("Content-Type") != "text/plain" || len(own) != 1 {
		t.Errorf("got %v", got)
	}
}

func TestConfigurations(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		config post.Config
		want   string
	}{
		"negative time": {post.Config{Timeout: -1}, "timeout"},
		"long time":     {post.Config{Timeout: time.Hour}, "timeout"},
		"no authority":  {post.Config{CAFile: empty}, "empty.pem"},
		"no file":       {post.Config{CAFile: empty + "2"}, "empty.pem2"},
		"half a pair":   {post.Config{CertFile: empty}, "keyFile"},
		"no pair":       {post.Config{CertFile: empty, KeyFile: empty}, "client certificate"},
		"bad name":      {post.Config{Headers: map[string]string{"X A": "1"}}, `"X A"`},
		"bad value":     {post.Config{Headers: map[string]string{"X-A": "1\r\nX-B: 2"}}, `"X-A"`},
		"bad file name": {post.Config{HeaderFiles: map[string]notify.SecretFile{"": "f"}}, "header"},
		"bad proxy":     {post.Config{Proxy: "user:S3cret@"}, "proxy"},
		"bad address":   {post.Config{AllowAddresses: []string{"localhost"}}, `"localhost"`},
	} {
		if _, err := post.New(c.config, notify.Options{}); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "S3cret") {
			t.Errorf("%s: %v, want it to name %s", name, err, c.want)
		}
	}
}

func FuzzURL(f *testing.F) {
	for _, seed := range []string{"http://127.0.0.1/", "https://[fe80::1%25eth0]/", "http://user:pass@0/", "http://0x7f.1/"} {
		f.Add(seed)
	}
	c, err := post.New(post.Config{}, notify.Options{Name: "fuzz"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, to string) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // nothing is connected to
		_, err := c.Send(ctx, post.Request{URL: to})
		if u, parseErr := url.Parse(to); err == nil || parseErr == nil && len(u.Path) > 8 && strings.Contains(err.Error(), u.Path) {
			t.Errorf("%q: %v", to, err)
		}
	})
}
