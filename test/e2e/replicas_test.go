package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kubeguardian/kubeguardian/alert"
)

// A deployment is a lab with two replicas of the server behind a service.
type deployment struct {
	root, dir string
	admin     *rest.Config
	client    kubernetes.Interface
	service   *service
	replicas  []*replica
}

// deploy brings up a lab and two replicas that share their authority by a
// Secret, and takes all down when the test ends.
func deploy(t *testing.T) *deployment {
	t.Helper()
	d := newLab(t, "replicas", "gatekeeper")
	d.service = newService(t)
	for i := range 2 {
		d.replicas = append(d.replicas, d.newReplica(t, i))
	}
	for _, r := range d.replicas {
		r.start(t)
		t.Cleanup(func() { r.stop(t) })
		d.service.add(r.webhook, r.ready)
	}
	d.service.await(t, 2)
	return d
}

// newLab brings up a lab where the server has its rights, and what further
// parts of the setup say.
func newLab(t *testing.T, parts ...string) *deployment {
	t.Helper()
	if testing.Short() {
		t.Skip("brings up an API server")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	d := &deployment{root: root, dir: t.TempDir()}
	d.run(t, nil, "make", "-C", root, "build")
	lab := d.path("lab")
	policy := d.path("audit-policy.yaml")
	if err := os.WriteFile(policy, d.run(t, nil, d.bin("kubeguardian"), "setup", "audit-policy"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.run(t, nil, d.bin("lab"), "up", "--dir", lab, "--audit-policy", policy)
	t.Cleanup(func() {
		if out, err := exec.Command(d.bin("lab"), "down", "--dir", lab).CombinedOutput(); err != nil {
			t.Errorf("end lab: %v\n%s", err, out)
		}
	})
	if d.admin, err = clientcmd.BuildConfigFromFlags("", filepath.Join(lab, "admin.kubeconfig")); err != nil {
		t.Fatal(err)
	}
	d.admin.QPS = -1
	d.client = kubernetes.NewForConfigOrDie(d.admin)
	for _, part := range append([]string{"rbac"}, parts...) {
		d.run(t, d.run(t, nil, d.bin("kubeguardian"), "setup", part), d.kubectl(t), "--kubeconfig", filepath.Join(lab, "admin.kubeconfig"), "apply", "-f", "-")
	}
	d.giveAccess(t)
	return d
}

func (d *deployment) path(name string) string { return filepath.Join(d.dir, name) }
func (d *deployment) bin(name string) string  { return filepath.Join(d.root, "bin", name) }

// run runs a program with an input and returns its output.
func (d *deployment) run(t *testing.T, in []byte, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &errOut
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, errOut.Bytes())
	}
	return out.Bytes()
}

func (d *deployment) kubectl(t *testing.T) string {
	t.Helper()
	return filepath.Join(strings.TrimSpace(string(d.run(t, nil, d.bin("lab"), "build"))), "kubectl")
}

// giveAccess writes a kubeconfig with nothing but the rights of the server.
func (d *deployment) giveAccess(t *testing.T) {
	t.Helper()
	token, err := d.client.CoreV1().ServiceAccounts("kubeguardian").CreateToken(t.Context(), "kubeguardian", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	err = clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"lab": {Server: d.admin.Host, CertificateAuthorityData: d.admin.CAData}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"lab": {Token: token.Status.Token}},
		Contexts:       map[string]*clientcmdapi.Context{"lab": {Cluster: "lab", AuthInfo: "lab"}},
		CurrentContext: "lab",
	}, d.path("server.kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
}

// A replica is one server process.
type replica struct {
	name, program, config, dir string
	web, webhook               string
	cmd                        *exec.Cmd
	exited                     chan error
}

func (d *deployment) newReplica(t *testing.T, i int) *replica {
	t.Helper()
	r := &replica{name: fmt.Sprintf("replica %d", i), program: d.bin("kubeguardian"), dir: d.path(fmt.Sprint("replica", i))}
	r.web, r.webhook, r.config = free(t), free(t), r.dir+".yaml"
	text := fmt.Sprintf(`cluster: replicas
dataDir: %s
kubeconfig: %s
web: {listen: %q}
webhook: {listen: %q, url: "https://%s", drain: 1s, authoritySecret: webhook-authority}
admission: {fromCluster: true, policies: [testdata/policies, ../../content/policies/privileged-containers.yaml], failClosed: [services]}
`, r.dir, d.path("server.kubeconfig"), r.web, r.webhook, d.service.address())
	if err := os.WriteFile(r.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return r
}

func free(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func (r *replica) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(r.dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	r.cmd = exec.Command(r.program, "serve", "--config", r.config)
	r.cmd.Stderr = log
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.exited = make(chan error, 1)
	go func(cmd *exec.Cmd, exited chan<- error) { exited <- cmd.Wait() }(r.cmd, r.exited)
}

// stop ends the process as an administrator would. It may be called twice.
func (r *replica) stop(t *testing.T) {
	t.Helper()
	if r.cmd == nil {
		return
	}
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	if err := <-r.exited; err != nil {
		t.Errorf("%s: %v\n%s", r.name, err, r.log())
	}
	r.cmd = nil
}

func (r *replica) log() string {
	text, err := os.ReadFile(r.dir + ".log")
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (r *replica) ready() bool {
	resp, err := http.Get("http://" + r.web + "/readyz")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// get reads a path of the page.
func (r *replica) get(path string) (string, error) {
	token, err := os.ReadFile(filepath.Join(r.dir, "token"))
	if err != nil {
		return "", err
	}
	req, err := http.NewRequest(http.MethodGet, "http://"+r.web+path, nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// awaitAlert waits until the replica has an alert of a rule.
func (r *replica) awaitAlert(t *testing.T, rule string) alert.Alert {
	t.Helper()
	var body string
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		var err error
		if body, err = r.get("/api/v1/alerts?rule=" + url.QueryEscape(rule)); err != nil {
			continue
		}
		var page struct{ Items []alert.Alert }
		if json.Unmarshal([]byte(body), &page) == nil && len(page.Items) > 0 {
			return page.Items[0]
		}
	}
	t.Fatalf("%s: no alert %q: %s\n%s", r.name, rule, body, r.log())
	return alert.Alert{}
}

// A service hands connections to replicas that are ready, as a Service of a
// cluster does: connections that are open stay where they are.
type service struct {
	ln  net.Listener
	cut atomic.Bool // nobody is reached

	mu       sync.Mutex
	backends []*backend
	next     int
	open     map[net.Conn]bool
}

type backend struct {
	address string
	ready   bool
}

func newService(t *testing.T) *service {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &service{ln: ln, open: map[net.Conn]bool{}}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go s.forward(conn)
		}
	}()
	t.Cleanup(func() { ln.Close(); s.hangUp() })
	return s
}

func (s *service) address() string { return s.ln.Addr().String() }

// add looks whether a replica is ready, again and again.
func (s *service) add(address string, ready func() bool) {
	b := &backend{address: address}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.backends = append(s.backends, b)
	go func() {
		for {
			now := ready()
			s.mu.Lock()
			b.ready = now
			s.mu.Unlock()
			time.Sleep(100 * time.Millisecond)
		}
	}()
}

func (s *service) await(t *testing.T, n int) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if len(s.endpoints()) == n {
			return
		}
	}
	t.Fatalf("%d replicas are ready, want %d", len(s.endpoints()), n)
}

func (s *service) endpoints() []*backend {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.backends), func(b *backend) bool { return !b.ready })
}

func (s *service) forward(conn net.Conn) {
	defer conn.Close()
	ready := s.endpoints()
	if len(ready) == 0 || s.cut.Load() {
		return
	}
	s.mu.Lock()
	s.next++
	b := ready[s.next%len(ready)]
	s.open[conn] = true
	s.mu.Unlock()
	defer func() { s.mu.Lock(); delete(s.open, conn); s.mu.Unlock() }()
	to, err := net.Dial("tcp", b.address)
	if err != nil {
		return
	}
	defer to.Close()
	go func() {
		io.Copy(to, conn)
		to.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(conn, to)
}

// hangUp closes all connections.
func (s *service) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.open {
		conn.Close()
	}
}

// warnings collects the warnings of one request.
type warnings struct{ texts []string }

type warningsKey struct{}

// HandleWarningHeaderWithContext is rest.WarningHandlerWithContext.
func (*warnings) HandleWarningHeaderWithContext(ctx context.Context, _ int, _ string, text string) {
	if w, ok := ctx.Value(warningsKey{}).(*warnings); ok {
		w.texts = append(w.texts, text)
	}
}

// heard returns a client whose warnings come with the context, and a context.
func (d *deployment) heard() kubernetes.Interface {
	config := rest.CopyConfig(d.admin)
	config.WarningHandlerWithContext = &warnings{}
	return kubernetes.NewForConfigOrDie(config)
}

func listen(ctx context.Context) (context.Context, *warnings) {
	w := &warnings{}
	return context.WithValue(ctx, warningsKey{}, w), w
}
