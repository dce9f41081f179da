package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// A client talks to the API server of a lab as one of its users. It knows just
// enough to tell when the lab is ready; a real client library would take
// longer to compile than the lab takes to start.
type client struct {
	server string
	http   *http.Client
}

// newClient reads a kubeconfig that [writeKubeconfig] wrote, and no other.
func newClient(kubeconfig string) (*client, error) {
	data, err := os.ReadFile(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	values := map[string]string{}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			values[key] = value
		}
	}
	decoded := func(key string) []byte {
		text, decodeErr := base64.StdEncoding.DecodeString(values[key])
		if decodeErr != nil {
			err = fmt.Errorf("read %s in %s: %w", key, kubeconfig, decodeErr)
		}
		return text
	}
	ca, cert, key := decoded("certificate-authority-data"), decoded("client-certificate-data"), decoded("client-key-data")
	if err != nil {
		return nil, err
	}
	identity, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("read client certificate in %s: %w", kubeconfig, err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &client{values["server"], &http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{
			RootCAs: roots, Certificates: []tls.Certificate{identity}, MinVersion: tls.VersionTLS13,
		}},
	}}, nil
}

// do sends a request and returns the answer's status and its first megabyte.
func (c *client) do(ctx context.Context, method, path string, body []byte) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.server+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, answer, err
}

// has succeeds when a GET of path is answered 200 with text in the body.
func (c *client) has(ctx context.Context, path, text string) error {
	code, body, err := c.do(ctx, http.MethodGet, path, nil)
	switch {
	case err != nil:
		return err
	case code != http.StatusOK:
		return fmt.Errorf("get %s: status %d", path, code)
	case !bytes.Contains(body, []byte(text)):
		return fmt.Errorf("get %s: no %q yet", path, text)
	}
	return nil
}

// ready succeeds when the API server says that it is.
func (c *client) ready(ctx context.Context) error { return c.has(ctx, "/readyz", "ok") }

// populated succeeds when the controllers have made what a fresh cluster has:
// without the service account no pod is admitted, and without the aggregated
// role the developer has no rights.
func (c *client) populated(ctx context.Context) error {
	for _, want := range []struct{ path, text string }{
		{"/api/v1/namespaces/kube-system", "kube-system"},
		{"/api/v1/namespaces/default/serviceaccounts/default", "default"},
		{"/apis/rbac.authorization.k8s.io/v1/clusterroles/edit", "pods/exec"},
	} {
		if err := c.has(ctx, want.path, want.text); err != nil {
			return err
		}
	}
	return nil
}

// grantDeveloper lets the developers edit the default namespace and nothing else.
func (c *client) grantDeveloper(ctx context.Context) error {
	const binding = `{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
		"metadata": {"name": "developers-edit"},
		"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
		"subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "developers"}]}`
	const path = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings"
	code, answer, err := c.do(ctx, http.MethodPost, path, []byte(binding))
	if err == nil && code != http.StatusCreated {
		err = fmt.Errorf("status %d: %s", code, answer)
	}
	if err != nil {
		return fmt.Errorf("grant the developers their rights: %w", err)
	}
	return nil
}
