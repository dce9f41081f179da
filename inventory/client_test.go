package inventory

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
)

// A late proxy stands before an API server and lets pages be asked for too late:
// in the first tokens it makes the moment that the list is of a long gone one.
type late struct {
	http.Handler
	tokens  atomic.Int64 // still to be made old
	begun   atomic.Int64 // lists of config maps
	expired atomic.Int64 // answers
	accept  atomic.Value // what the last list of config maps accepts
}

func newLate(t *testing.T, c cluster, tokens int64) (*late, *rest.Config) {
	t.Helper()
	target, err := url.Parse(c.url)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	l := &late{Handler: proxy}
	l.tokens.Store(tokens)
	proxy.ModifyResponse = func(r *http.Response) error {
		if r.StatusCode == http.StatusGone {
			l.expired.Add(1)
		}
		return nil
	}
	server := httptest.NewTLSServer(l)
	t.Cleanup(server.Close)
	return l, &rest.Config{Host: server.URL, BearerToken: "admin", TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
}

func (l *late) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	if r.URL.Path == "/api/v1/configmaps" && query.Get("continue") == "" {
		l.begun.Add(1)
		l.accept.Store(r.Header.Get("Accept"))
	}
	if token := query.Get("continue"); token != "" && l.tokens.Add(-1) >= 0 {
		query.Set("continue", old(token))
		r.URL.RawQuery = query.Encode()
	}
	l.Handler.ServeHTTP(w, r)
}

// old returns a token that goes on at the same object at revision 1.
func old(token string) string {
	var fields map[string]any
	data, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil {
		err = json.Unmarshal(data, &fields)
	}
	if err != nil {
		return err.Error()
	}
	fields["rv"] = 1
	data, _ = json.Marshal(fields)
	return base64.RawURLEncoding.EncodeToString(data)
}

// compact lets etcd forget all but the current state.
func (c cluster) compact(t *testing.T) {
	t.Helper()
	list, err := c.admin(t).CoreV1().ConfigMaps("").List(t.Context(), metav1.ListOptions{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", c.etcd)
	}}}
	defer client.CloseIdleConnections()
	body := fmt.Sprintf(`{"revision":%q,"physical":true}`, list.ResourceVersion)
	answer, err := client.Post("http://etcd/v3/kv/compaction", "application/json", bytes.NewBufferString(body))
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("compact: %s", answer.Status)
	}
}

// A list whose next page the API server can no longer give starts anew, and ends
// when that happens again and again.
func TestExpiredPages(t *testing.T) {
	c := startCluster(t)
	c.configMaps(t, "page", pageSize+50)
	c.compact(t)
	t.Run("once", func(t *testing.T) {
		l, config := newLate(t, c, 1)
		inv, err := FromCluster(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		if l.expired.Load() != 1 || l.begun.Load() != 2 {
			t.Errorf("%d answers of 410, %d lists; want 1 and 2", l.expired.Load(), l.begun.Load())
		}
		names := map[string]bool{}
		for _, o := range inv.Kind("", "ConfigMap") {
			names[o.GetNamespace()+"/"+o.GetName()] = true
		}
		if got := len(inv.Kind("", "ConfigMap")); got < pageSize+50 || len(names) != got {
			t.Errorf("%d config maps of %d names", got, len(names))
		}
		if accept := l.accept.Load().(string); !strings.HasPrefix(accept, runtime.ContentTypeProtobuf) {
			t.Errorf("config maps are asked for as %s", accept)
		}
	})
	t.Run("always", func(t *testing.T) {
		l, config := newLate(t, c, 1000)
		inv, err := FromCluster(t.Context(), config)
		if inv != nil || err == nil || !strings.HasPrefix(err.Error(), "list configmaps: ") {
			t.Errorf("FromCluster = %v, %v", inv, err)
		}
		if got := l.begun.Load(); got != maxExpired {
			t.Errorf("%d lists, want %d", got, maxExpired)
		}
	})
}
