// Package story runs KubeGuardian in front of a real API server and plays
// attacks against it. The demo tells the story; the end-to-end test asserts it.
package story

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
	"strings"
	"syscall"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/finding"
)

// Options say where things are and which cluster to use.
type Options struct {
	Root       string    // the repository
	Progress   io.Writer // what the lab and the server say while starting
	Kubeconfig string    // an existing cluster instead of the lab; empty: the lab
	Config     string    // configuration of a server that this cluster knows; empty: the story makes one

	// Keep has each alert kept, also those that say the same as one before.
	Keep bool
}

// A Story is a cluster guarded by a running KubeGuardian server.
type Story struct {
	Root       string
	Dir        string // everything the story writes
	Kubeconfig string // of an administrator
	Page       string // URL of the web page
	Token      string // login token of the page
	AuditLog   string // the lab's audit log; empty for an external cluster
	Blind      bool   // the cluster does not send its audit log to the server

	opts     Options
	config   string    // file
	access   string    // kubeconfig of the server
	token    string    // file
	programs string    // directory of the lab's programs; found on first use
	applied  []string  // manifests to remove from an external cluster
	touched  []WantObj // objects that attacks make, or try to
	server   *exec.Cmd
	exited   chan error // the server's exit, once
}

// Start brings up the lab (unless a kubeconfig is given), gives KubeGuardian
// its account and starts the server. On an error everything is undone.
func Start(ctx context.Context, opts Options) (_ *Story, err error) {
	dir, err := os.MkdirTemp("", "kubeguardian-story-")
	if err != nil {
		return nil, fmt.Errorf("create story directory: %w", err)
	}
	s := &Story{Root: opts.Root, Dir: dir, opts: opts, Kubeconfig: opts.Kubeconfig}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	for _, step := range []func(context.Context) error{s.configure, s.startLab, s.giveAccess, s.StartServer, s.look} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// External reports whether the story runs on a cluster that it did not start.
func (s *Story) External() bool { return s.opts.Kubeconfig != "" }

// Access returns the kubeconfig of the server's own account.
func (s *Story) Access() string { return s.access }

// Stop ends the server and the lab and removes what the story wrote.
func (s *Story) Stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	if s.External() {
		errs = append(errs, s.StopServer(), s.leave(ctx))
	} else if _, err := os.Stat(s.labDir()); err == nil {
		_, err := run(ctx, nil, nil, s.bin("lab"), "down", "--dir", s.labDir())
		errs = append(errs, err)
	}
	// The lab ends first: an API server waits for the receiver of its audit log.
	return errors.Join(append(errs, s.StopServer(), os.RemoveAll(s.Dir))...)
}

// leave removes everything that the story put into an external cluster.
func (s *Story) leave(ctx context.Context) error {
	_, uninstalled := s.Kubeguardian(ctx, "uninstall", "--config", s.config)
	errs := []error{uninstalled, s.Undo(ctx), s.remove(ctx)}
	if s.opts.Config == "" {
		_, err := s.Kubectl(ctx, "delete", "--ignore-not-found", "--wait=false", "-f", s.path("rbac.yaml"))
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (s *Story) path(name string) string { return filepath.Join(s.Dir, name) }
func (s *Story) labDir() string          { return s.path("lab") }
func (s *Story) bin(name string) string  { return filepath.Join(s.Root, "bin", name) }

// configure finds out where the server will be, and writes what it prints for
// the API server: the audit policy and the kubeconfig of the webhooks.
func (s *Story) configure(ctx context.Context) error {
	s.config, s.access = s.opts.Config, s.Kubeconfig
	if s.config == "" {
		s.config, s.access = s.path("config.yaml"), s.path("server.kubeconfig")
		if err := s.writeConfig(); err != nil {
			return err
		}
	}
	cfg, err := config.Load(s.config)
	if err != nil {
		return err
	}
	s.Page, s.token = "http://"+cfg.Web.Listen, cfg.Web.TokenFile
	for file, args := range map[string][]string{
		"webhook.kubeconfig": {"setup", "kubeconfig", "--config", s.config},
		"audit-policy.yaml":  {"setup", "audit-policy"},
		"rbac.yaml":          {"setup", "rbac"},
	} {
		out, err := s.Kubeguardian(ctx, args...)
		if err != nil {
			return err
		}
		if err := os.WriteFile(s.path(file), []byte(out), 0o600); err != nil {
			return fmt.Errorf("write %s: %w", file, err)
		}
	}
	return nil
}

// writeConfig writes a configuration that has everything in the story's folder
// and on loopback.
func (s *Story) writeConfig() error {
	page, err := freeAddress()
	if err != nil {
		return err
	}
	webhook, err := freeAddress()
	if err != nil {
		return err
	}
	text := fmt.Sprintf(`cluster: demo
dataDir: %s
kubeconfig: %s
web: {listen: %q}
webhook: {listen: %q}
admission: {requireClientCertificate: %t}
`, s.path("data"), s.access, page, webhook, !s.External())
	if s.opts.Keep {
		text += "detection: {cooldown: []}\n"
	}
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write server configuration: %w", err)
	}
	return nil
}

// freeAddress returns a loopback address that nothing listens on now.
func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return ln.Addr().String(), ln.Close()
}

func (s *Story) startLab(ctx context.Context) error {
	if s.External() {
		return nil
	}
	_, err := run(ctx, s.opts.Progress, nil, s.bin("lab"), "up", "--dir", s.labDir(),
		"--webhook-kubeconfig", s.path("webhook.kubeconfig"), "--audit-policy", s.path("audit-policy.yaml"))
	if err != nil {
		return err
	}
	out, err := run(ctx, nil, nil, s.bin("lab"), "kubeconfig", "--dir", s.labDir())
	if err != nil {
		return err
	}
	s.Kubeconfig = strings.TrimSpace(out)
	s.AuditLog = filepath.Join(s.labDir(), "audit.jsonl")
	return nil
}

// giveAccess creates the server's service account with its published rights
// and writes a kubeconfig that holds nothing but that account's token.
func (s *Story) giveAccess(ctx context.Context) error {
	if s.opts.Config != "" {
		return nil // that server has its credentials
	}
	if _, err := s.Kubectl(ctx, "apply", "-f", s.path("rbac.yaml")); err != nil {
		return err
	}
	token, err := s.Kubectl(ctx, "create", "token", "kubeguardian", "--namespace", "kubeguardian", "--duration", "24h")
	if err != nil {
		return err
	}
	cluster, err := s.Kubectl(ctx, "config", "view", "--raw", "--minify", "--flatten", "--output", "json")
	if err != nil {
		return err
	}
	var kubeconfig map[string]any
	if err := json.Unmarshal([]byte(cluster), &kubeconfig); err != nil {
		return fmt.Errorf("read kubeconfig: %w", err)
	}
	users, ok := kubeconfig["users"].([]any)
	if !ok || len(users) != 1 {
		return fmt.Errorf("read kubeconfig: want one user in the current context, have %d", len(users))
	}
	users[0].(map[string]any)["user"] = map[string]any{"token": strings.TrimSpace(token)}
	data, err := json.Marshal(kubeconfig)
	if err != nil {
		return fmt.Errorf("write kubeconfig of the server: %w", err)
	}
	return os.WriteFile(s.access, data, 0o600)
}

// look finds out whether the server of an external cluster receives the audit
// log: within some seconds after a request it must have seen an event.
func (s *Story) look(ctx context.Context) error {
	if !s.External() {
		return nil
	}
	if _, err := s.Kubectl(ctx, "get", "--raw", "/api/v1/namespaces/default/configmaps?limit=1"); err != nil {
		return err
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if last, err := s.LastAuditEvent(ctx); err != nil || !last.IsZero() {
			return err
		}
	}
	s.Blind = true
	return nil
}

// StartServer starts `kubeguardian serve` and waits until it is ready.
func (s *Story) StartServer(ctx context.Context) error {
	logFile, err := os.OpenFile(s.path("server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open server log: %w", err)
	}
	defer logFile.Close()
	s.server = exec.Command(s.bin("kubeguardian"), "serve", "--config", s.config)
	s.server.Env = s.environment()
	s.server.Stderr = logFile
	s.server.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := s.server.Start(); err != nil {
		return fmt.Errorf("start server: %w", err)
	}
	s.exited = make(chan error, 1)
	go func(cmd *exec.Cmd, exited chan<- error) { exited <- cmd.Wait() }(s.server, s.exited)
	return s.waitReady(ctx)
}

func (s *Story) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		body, err := s.get(ctx, "/readyz")
		if err == nil {
			token, err := os.ReadFile(s.token)
			s.Token = strings.TrimSpace(string(token))
			return err
		}
		select {
		case exit := <-s.exited:
			s.exited <- exit
			return fmt.Errorf("server ended before it was ready: %w\n%s", exit, s.logTail())
		case <-ctx.Done():
			return fmt.Errorf("wait for the server: %w: %s\n%s", err, body, s.logTail())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (s *Story) logTail() string {
	data, err := os.ReadFile(s.path("server.log"))
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-10):], []byte("\n")))
}

// StopServer ends the server as an administrator would, by SIGTERM.
func (s *Story) StopServer() error { return s.signalServer(syscall.SIGTERM) }

// KillServer ends the server by SIGKILL, as a crash would.
func (s *Story) KillServer() error { return s.signalServer(syscall.SIGKILL) }

func (s *Story) signalServer(sig syscall.Signal) error {
	if s.server == nil || s.server.Process == nil {
		return nil
	}
	if err := s.server.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end server: %w", err)
	}
	err := <-s.exited
	s.server = nil
	if sig == syscall.SIGTERM && err != nil {
		return fmt.Errorf("end server: %w\n%s", err, s.logTail())
	}
	return nil
}

// Kubeguardian runs the command line and returns its standard output.
func (s *Story) Kubeguardian(ctx context.Context, args ...string) (string, error) {
	return run(ctx, nil, s.environment(), s.bin("kubeguardian"), args...)
}

// environment lets the product find the cluster when its configuration does
// not name one.
func (s *Story) environment() []string { return append(os.Environ(), "KUBECONFIG="+s.Kubeconfig) }

// Kubectl runs kubectl as the administrator and returns its standard output.
func (s *Story) Kubectl(ctx context.Context, args ...string) (string, error) {
	kubectl, err := s.kubectl(ctx)
	if err != nil {
		return "", err
	}
	return run(ctx, nil, nil, kubectl, append([]string{"--kubeconfig", s.Kubeconfig}, args...)...)
}

// kubectl returns the kubectl of PATH for an external cluster, else the lab's.
func (s *Story) kubectl(ctx context.Context) (string, error) {
	if s.External() {
		if path, err := exec.LookPath("kubectl"); err == nil {
			return path, nil
		}
	}
	if s.programs == "" {
		dir, err := run(ctx, s.opts.Progress, nil, s.bin("lab"), "build")
		if err != nil {
			return "", err
		}
		s.programs = strings.TrimSpace(dir)
	}
	return filepath.Join(s.programs, "kubectl"), nil
}

// Alerts returns the stored alerts of a rule since a time, newest first.
func (s *Story) Alerts(ctx context.Context, query string) ([]alert.Alert, error) {
	var all []alert.Alert
	for cursor := ""; ; {
		body, err := s.get(ctx, "/api/v1/alerts?limit=1000&before="+url.QueryEscape(cursor)+"&"+query)
		if err != nil {
			return nil, err
		}
		var page struct {
			Items []alert.Alert `json:"items"`
			Next  string        `json:"next"`
		}
		if err := json.Unmarshal(body, &page); err != nil {
			return nil, fmt.Errorf("read alerts: %w", err)
		}
		all = append(all, page.Items...)
		if cursor = page.Next; cursor == "" {
			return all, nil
		}
	}
}

// Decisions returns the newest admission decisions.
func (s *Story) Decisions(ctx context.Context) ([]finding.Decision, error) {
	body, err := s.get(ctx, "/api/v1/decisions")
	if err != nil {
		return nil, err
	}
	var page struct {
		Items []finding.Decision `json:"items"`
	}
	if err := json.Unmarshal(body, &page); err != nil {
		return nil, fmt.Errorf("read decisions: %w", err)
	}
	return page.Items, nil
}

// LastAuditEvent returns the time of the newest audit event that the server
// has handled, zero if there is none.
func (s *Story) LastAuditEvent(ctx context.Context) (time.Time, error) {
	body, err := s.get(ctx, "/api/v1/health")
	if err != nil {
		return time.Time{}, err
	}
	var health struct{ LastAuditEvent time.Time }
	err = json.Unmarshal(body, &health)
	return health.LastAuditEvent, err
}

// get reads a path of the server with the login token.
func (s *Story) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Page+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+s.Token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("get %s: %s", path, resp.Status)
	}
	return body, err
}

// run runs a program and returns its standard output. Its standard error goes
// to progress, or into the error when progress is nil. env is its environment,
// nil for that of this process.
func run(ctx context.Context, progress io.Writer, env []string, name string, args ...string) (string, error) {
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if progress != nil {
		cmd.Stderr = io.MultiWriter(progress, &errOut)
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, bytes.TrimSpace(errOut.Bytes()))
	}
	return out.String(), nil
}
