// Package server wires the control plane: it watches the cluster, answers
// admission requests, receives audit events, keeps alerts and findings, and
// serves the page. It is the only package that sees everything.
package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kubeguardian/kubeguardian/access"
	"github.com/kubeguardian/kubeguardian/action/deed"
	"github.com/kubeguardian/kubeguardian/action/journal"
	"github.com/kubeguardian/kubeguardian/admission"
	"github.com/kubeguardian/kubeguardian/admission/watch"
	"github.com/kubeguardian/kubeguardian/alert/cooldown"
	"github.com/kubeguardian/kubeguardian/artifact"
	"github.com/kubeguardian/kubeguardian/audit"
	"github.com/kubeguardian/kubeguardian/bus/verdict"
	"github.com/kubeguardian/kubeguardian/clusterpolicy"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/correlate"
	"github.com/kubeguardian/kubeguardian/engine"
	"github.com/kubeguardian/kubeguardian/enrichment"
	"github.com/kubeguardian/kubeguardian/falco"
	"github.com/kubeguardian/kubeguardian/incident/joiner"
	"github.com/kubeguardian/kubeguardian/k8saudit/heartbeat"
	"github.com/kubeguardian/kubeguardian/k8saudit/intake"
	"github.com/kubeguardian/kubeguardian/leader"
	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/externaldata"
	"github.com/kubeguardian/kubeguardian/policy/image"
	"github.com/kubeguardian/kubeguardian/policy/setting"
	"github.com/kubeguardian/kubeguardian/rule"
	"github.com/kubeguardian/kubeguardian/server/agents"
	"github.com/kubeguardian/kubeguardian/server/clusters"
	"github.com/kubeguardian/kubeguardian/server/listener"
	"github.com/kubeguardian/kubeguardian/store"
	"github.com/kubeguardian/kubeguardian/tracing"
	"github.com/kubeguardian/kubeguardian/web"
)

// Options are what [New] needs besides the configuration file.
type Options struct {
	Config  *config.Config
	Cluster *rest.Config // credentials for the cluster
	Log     *slog.Logger
	Version string
	// Program is this program, in which people's policies are tried, see
	// [playground.Options].
	Program string

	commands  correlate.Options // how commands in containers are joined with requests; tests wait less
	strangers int               // in place of maxSenders and maxVisitors, for tests; 0: these
}

// A Server is the control plane. Make it with [New], run it once with Run, and
// release what it holds with Stop.
type Server struct {
	cfg     *config.Config
	log     *slog.Logger
	version string
	trials  string // the program for them

	rest   *rest.Config
	client kubernetes.Interface

	artifacts *artifact.Client // where policies may come from
	images    *image.Verifier
	files     []policy.File            // policies that the configuration names, at the start
	pulled    map[string][]policy.File // those of artifacts among them, which stay what they are
	settings  *setting.Settings        // of policies, at the start; may be nil
	loader    engine.Loader            // of files, and those of the cluster without them
	beside    engine.Loader            // of those of the cluster, with files
	named     []web.Policy             // what is in files
	policies  *engine.Set              // those of files, loaded
	force     atomic.Pointer[inForce]  // what admission enforces now; nil: not known yet
	cluster   *clusterpolicy.Watcher   // nil: policies come from files alone
	changed   policiesChanged
	sources   sources              // what policies ask for besides the object
	providers *externaldata.Client // of the policies in force
	silence   rate.Sometimes       // of what is said of providers
	auditor   *audit.Auditor
	summaries summaries                   // of audits, for constraints of the cluster
	defining  *policy.Set                 // the built-in policies, which define controls
	rules     atomic.Pointer[rule.Set]    // replaced when its files change
	ruleTexts atomic.Pointer[[]rule.File] // those that rules was made of
	reloads   reloads
	enrich    *enrichment.Enricher // of audit events, for the rules
	cooldown  cooldown.Policy      // of the alerts that they raise
	catalogue *control.Catalogue

	store        *store.Store
	replica      string           // our name among those that share the database; "": it is ours alone
	election     *leader.Election // nil: there are no others
	leaseLife    time.Duration    // 0: as usual
	authority    *admission.Authority
	registration *admission.Registration
	breakGlass   *admission.BreakGlass
	watchman     *watch.Watch // of admission
	auditLog     intake.Sources
	auditWatch   *heartbeat.Watch
	audited      atomic.Uint64 // audit events so far
	page         *web.Server
	oidc         *access.OIDC // nil: no issuer
	journal      *journal.Journal
	deeds        *deed.Recorder // what agents did
	metrics      *metrics
	joiner       *joiner.Joiner // of alerts into incidents
	notifier     *notify.Notifier
	state        *state
	agents       *agents.Agents // nil: none can report
	judge        *verdict.Judge // of commands in containers; nil without agents
	commands     correlate.Options
	clusters     *clusters.Clusters // nil: neither hub nor spoke

	webhookListener net.Listener
	webListener     net.Listener
	webTLS          *tls.Config     // nil: plain HTTP
	senders         *listener.Crowd // at the webhook port
	visitors        *listener.Crowd // at those of pages and Falco

	falco         *falco.Receiver // nil: no alerts of Falco are taken
	falcoListener net.Listener
	falcoTLS      *tls.Config // nil: plain HTTP

	removing  atomic.Bool   // it is being uninstalled
	removal   chan struct{} // closed when removing is set
	published []byte        // authority that agents find in a ConfigMap

	tracer       *tracing.Tracer
	traceSilence rate.Sometimes // of what is said of traces that are lost

	closing sync.RWMutex
	closed  bool // no more decisions are kept

	undo []func() error // newest last
}

// New loads the content, opens the store and binds the listeners. It does not
// speak to the cluster yet. On an error nothing stays open.
func New(ctx context.Context, opts Options) (_ *Server, err error) {
	s := &Server{
		cfg: opts.Config, cooldown: cooldownPolicy(opts.Config.Detection.Cooldown), rest: opts.Cluster, log: opts.Log, version: opts.Version, trials: opts.Program, commands: opts.commands,
		changed: newPoliciesChanged(), removal: make(chan struct{}),
		silence: rate.Sometimes{Interval: 10 * time.Second}, traceSilence: rate.Sometimes{Interval: time.Minute},
		reloads: reloads{newReload("rules"), newReload("policies")}, pulled: map[string][]policy.File{},
		senders: listener.NewCrowd("webhook", cmp.Or(opts.strangers, maxSenders), opts.Log), visitors: listener.NewCrowd("web", cmp.Or(opts.strangers, maxVisitors), opts.Log),
		state: &state{began: time.Now(), registered: errors.New("the webhook is not registered yet")},
	}
	s.auditor = audit.New(standing{s})
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	for _, step := range []func(context.Context) error{
		s.loadContent, s.openData, s.pruneArtifacts, s.connect, s.openTracing, s.joinReplicas, s.openProviders, s.followPolicies, s.openNotifier, s.buildPage, s.openWebTLS, s.listen, s.openBus, s.openClusters, s.listenFalco,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// How many connections and requests there are at a time: at the webhook port, where
// reviews of several API servers at their limits (--max-mutating-requests-inflight is
// 200) are far fewer, also when each opens a connection for each at first; and at those
// of pages and Falco together, which has a connection from each node.
const (
	maxSenders  = 4096
	maxVisitors = 8192
)

func (s *Server) onStop(undo func() error) { s.undo = append(s.undo, undo) }

// Stop releases everything New opened, newest first. It may be called twice.
func (s *Server) Stop() error {
	var errs []error
	for _, undo := range slices.Backward(s.undo) {
		errs = append(errs, undo())
	}
	s.undo = nil
	return errors.Join(errs...)
}

func (s *Server) openData(ctx context.Context) error {
	dir := s.cfg.DataDir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create data directory: %w", err)
	}
	return s.openStore(ctx)
}

// lock keeps a second server off the data directory, until unlock is called: both
// would store alerts and fight over the registration. The kernel releases it however
// we end.
func lock(dir string) (unlock func() error, err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock data directory %s: another server uses it: %w", dir, err)
	}
	return f.Close, nil
}

// listen binds both listeners, so that a port in use is known before anything
// starts.
func (s *Server) listen(context.Context) (err error) {
	if s.webhookListener, err = listener.Bind("webhook", s.cfg.Webhook.Listen); err != nil {
		return err
	}
	s.onStop(listener.Closer(s.webhookListener))
	if s.webListener, err = listener.Bind("web", s.cfg.Web.Listen); err != nil {
		return err
	}
	s.onStop(listener.Closer(s.webListener))
	return nil
}

// WebURL returns the address of the page.
func (s *Server) WebURL() string {
	scheme := "http"
	if s.cfg.Web.CertFile != "" || s.cfg.Web.OwnAuthority {
		scheme = "https"
	}
	return scheme + "://" + s.webListener.Addr().String()
}

// Run serves until ctx ends or a part fails. What was received before is
// answered first: the other parts go on until the webhooks are drained.
func (s *Server) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	parts, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	group.Go(func() error { defer end(); return s.serveWebhooks(ctx) })
	group.Go(func() error { return s.serveWeb(parts) })
	group.Go(func() error { return s.watch(parts) })
	group.Go(func() error { return s.register(parts) })
	if s.cluster != nil {
		group.Go(func() error { return s.untilRemoved(parts, s.cluster.Run) })
	}
	group.Go(func() error { s.guard(parts); return nil })
	group.Go(func() error { return s.alone(parts) })
	group.Go(func() error { return s.follow(parts) })
	group.Go(func() error { return s.watchStore(parts) })
	group.Go(func() error { return s.watchRules(parts) })
	group.Go(func() error { return s.watchPolicies(parts) })
	group.Go(func() error { s.auditWatch.Run(parts); return nil })
	group.Go(func() error { return s.serveBus(parts) })
	group.Go(func() error { return s.clusters.Run(parts) })
	if s.falco != nil {
		group.Go(func() error { return s.serveFalco(parts) })
	}
	for _, t := range s.auditLog.Tails {
		group.Go(func() error { return t.Run(parts) })
	}
	s.log.Info("serving", "version", s.version, "cluster", s.cfg.Cluster, "page", s.WebURL(),
		"webhooks", s.webhookListener.Addr().String(),
		"policies", s.policies.Len(), "rules", len(s.rules.Load().Rules()))
	err := group.Wait()
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return nil
	}
	return err
}

// drained returns a context that ends some time after ctx. Meanwhile the server
// is not ready and serves on, so that whoever still thinks it is ready is
// answered.
func (s *Server) drained(ctx context.Context) context.Context {
	out, end := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() {
		defer end()
		s.state.update(func(st *state) { st.draining = true })
		s.log.Info("ending", "drain", s.cfg.Webhook.Drain)
		time.Sleep(s.cfg.Webhook.Drain)
	})
	return out
}

// httpLog sends what an HTTP server complains about, such as failed TLS
// handshakes, to the log at debug level: anybody can cause it.
func (s *Server) httpLog(listener string) *log.Logger {
	return slog.NewLogLogger(s.log.With("listener", listener).Handler(), slog.LevelDebug)
}
