package s3_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/notifytest"
	"github.com/kubeguardian/kubeguardian/notify/post"
	"github.com/kubeguardian/kubeguardian/notify/s3"
)

const (
	accessKey = "AKIAEXAMPLE"
	secretKey = "s3cr3t-Key-Of-The-Bucket"
)

// A bucket is a service that verifies signatures, version 4, and keeps what is
// put.
type bucket struct {
	mu      sync.Mutex
	objects map[string][]byte
}

var authorization = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8}/([a-z0-9-]+)/s3/aws4_request), ?SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})$`)

// signature computes what the signature of a request must be.
func signature(r *http.Request, scope, region string, signed []string) string {
	var headers strings.Builder
	for _, name := range signed {
		value := strings.Join(r.Header.Values(name), ",")
		if name == "host" {
			value = r.Host
		}
		headers.WriteString(name + ":" + strings.TrimSpace(value) + "\n")
	}
	request := strings.Join([]string{
		r.Method, r.URL.EscapedPath(), r.URL.RawQuery, headers.String(), strings.Join(signed, ";"), r.Header.Get("X-Amz-Content-Sha256"),
	}, "\n")
	sum := sha256.Sum256([]byte(request))
	text := "AWS4-HMAC-SHA256\n" + r.Header.Get("X-Amz-Date") + "\n" + scope + "\n" + hex.EncodeToString(sum[:])
	key := []byte("AWS4" + secretKey)
	for _, step := range []string{scope[:8], region, "s3", "aws4_request", text} {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(step))
		key = mac.Sum(nil)
	}
	return hex.EncodeToString(key)
}

func (b *bucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fields := authorization.FindStringSubmatch(r.Header.Get("Authorization"))
	if fields == nil || fields[1] != accessKey || !slices.Contains(strings.Split(fields[4], ";"), "host") ||
		signature(r, fields[2], fields[3], strings.Split(fields[4], ";")) != fields[5] {
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, `<Error><Code>SignatureDoesNotMatch</Code><Message>`+r.Header.Get("Authorization")+`</Message></Error>`)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || r.Method != http.MethodPut {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.objects == nil {
		b.objects = map[string][]byte{}
	}
	b.objects[r.URL.Path] = body
	w.Header().Set("ETag", `"etag"`)
}

// write writes a file with a secret.
func write(t *testing.T, text string) notify.SecretFile {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return notify.SecretFile(file)
}

// serve runs a bucket over TLS and returns a configuration for it.
func serve(t *testing.T, b *bucket) s3.Config {
	t.Helper()
	srv := httptest.NewTLSServer(b)
	t.Cleanup(srv.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return s3.Config{
		URL: srv.URL, Bucket: "security-lake", Region: "eu-central-1", Account: "123456789012", AccessKeyFile: write(t, accessKey), SecretKeyFile: write(t, secretKey),
		TLS: post.Config{CAFile: ca, AllowAddresses: []string{"127.0.0.1"}},
	}
}

func build(t *testing.T, c s3.Config) notify.Destination {
	t.Helper()
	d, err := s3.New(c, notify.Options{Name: "under-test", Cluster: "prod", Version: "1.2.3"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// TestObjects: each day has its objects, and a batch that is sent again replaces
// itself.
func TestObjects(t *testing.T) {
	var b bucket
	c := serve(t, &b)
	c.Format = "ocsf-1.8.0"
	d := build(t, c)
	batch := notifytest.Notifications(10)
	for i := 6; i < 10; i++ {
		batch[i].Alert.Time = batch[i].Alert.Time.Add(12 * time.Hour)
	}
	for range 2 {
		if err := d.Send(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	days := map[string]int{}
	for path, body := range b.objects {
		parts := strings.Split(path, "/")
		if len(parts) != 7 || strings.Join(parts[1:5], "/") != "security-lake/kubeguardian/region=eu-central-1/accountId=123456789012" || !strings.HasSuffix(path, ".json.gz") {
			t.Errorf("object %s", path)
			continue
		}
		z, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(z)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var event struct {
				ClassUID int `json:"class_uid"`
			}
			if err := json.Unmarshal(lines.Bytes(), &event); err != nil || event.ClassUID/10 != 200 {
				t.Errorf("%s: %v", lines.Text(), err)
			}
			days[parts[5]]++
		}
		if lines.Err() != nil {
			t.Error(lines.Err())
		}
	}
	if len(b.objects) != 2 || days["eventDay=20261126"] != 6 || days["eventDay=20261127"] != 4 {
		t.Errorf("%d objects, %v", len(b.objects), days)
	}
}

func TestKeysAreReplaced(t *testing.T) {
	var b bucket
	c := serve(t, &b)
	d := build(t, c)
	if err := os.WriteFile(string(c.SecretKeyFile), []byte("another-key-0000"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := d.Send(t.Context(), notifytest.Notifications(1))
	if !notify.IsPermanent(err) || !strings.Contains(err.Error(), "answer 403 Forbidden") {
		t.Errorf("another key: %v", err)
	} else {
		notifytest.Silent(t, err.Error(), "another-key-0000", accessKey)
	}
	if err := os.WriteFile(string(c.SecretKeyFile), []byte(secretKey), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Send(t.Context(), notifytest.Notifications(1)); err != nil || len(b.objects) != 1 {
		t.Errorf("the key: %v, %d objects", err, len(b.objects))
	}
}

func TestConforms(t *testing.T) {
	notifytest.HTTP{
		New: func(t *testing.T, to notifytest.Target) notify.Destination {
			u, err := url.Parse(to.URL)
			if err != nil {
				t.Fatal(err)
			}
			d, err := s3.New(s3.Config{
				URL: "http://" + u.Host, Bucket: "alerts", AccessKeyFile: write(t, accessKey), SecretKeyFile: to.SecretFile,
				TLS: post.Config{AllowAddresses: []string{"127.0.0.1"}},
			}, to.Options)
			if err != nil {
				t.Fatal(err)
			}
			return d
		},
		Accept: func(t *testing.T, w http.ResponseWriter, r *http.Request, _ []byte) {
			if r.Method != http.MethodPut || !strings.HasPrefix(r.URL.Path, "/alerts/kubeguardian/region=us-east-1/accountId=prod/eventDay=20261126/") {
				t.Errorf("%s %s", r.Method, r.URL)
			}
			w.Header().Set("ETag", `"etag"`)
		},
	}.Conform(t)
}

func TestConfig(t *testing.T) {
	good := s3.Config{URL: "https://s3", Bucket: "b", Account: "a", AccessKeyFile: "a", SecretKeyFile: "s"}
	for want, change := range map[string]func(*s3.Config){
		"url: want one that":         func(c *s3.Config) { c.URL = "s3" },
		"without a path":             func(c *s3.Config) { c.URL = "https://s3/bucket" },
		"accessKeyFile and secret":   func(c *s3.Config) { c.SecretKeyFile = "" },
		"bucket: want letters":       func(c *s3.Config) { c.Bucket = "a/b" },
		"account: want letters":      func(c *s3.Config) { c.Account = "" },
		"prefix: want letters":       func(c *s3.Config) { c.Prefix = "../a" },
		"region: want letters":       func(c *s3.Config) { c.Region = "a b" },
		`unknown format "parquet"`:   func(c *s3.Config) { c.Format = "parquet" },
		"tls.timeout: want 0s to 5m": func(c *s3.Config) { c.TLS.Timeout = time.Hour },
		"read authorities":           func(c *s3.Config) { c.TLS.CAFile = "none" },
		"read allowed address":       func(c *s3.Config) { c.TLS.AllowAddresses = []string{"x"} },
	} {
		c := good
		change(&c)
		if _, err := s3.New(c, notify.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
	if _, err := s3.New(good, notify.Options{}); err != nil {
		t.Error(err)
	}
}
