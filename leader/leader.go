// Package leader lets one of several replicas do what only one may do. They
// agree by a Lease of the cluster.
package leader

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// Life is how long a leader that says nothing any more is still taken for one.
const Life = 15 * time.Second

// Options say what [New] makes.
type Options struct {
	Client    kubernetes.Interface
	Namespace string
	Lease     string        // its name
	Replica   string        // who we are, unlike all others
	Life      time.Duration // 0: that of the package
	Log       *slog.Logger
}

// An Election is one replica's part in finding a leader.
type Election struct {
	opts    Options
	leads   atomic.Bool
	working sync.Mutex
}

// New returns the part of a replica.
func New(opts Options) *Election {
	if opts.Life == 0 {
		opts.Life = Life
	}
	return &Election{opts: opts}
}

// Leads reports whether this replica leads now. It may have lost that a moment
// ago: what must never happen twice needs a check where it is written.
func (e *Election) Leads() bool { return e.leads.Load() }

// Run calls work whenever this replica leads, until ctx ends. The context of
// work ends when another may lead soon. Run gives the lease back once work has
// returned, so that another takes over at once. When work returns an error of
// its own, Run ends with it.
func (e *Election) Run(ctx context.Context, work func(context.Context) error) error {
	held, release := context.WithCancelCause(context.WithoutCancel(ctx)) // until work has ended
	defer release(nil)
	stop := context.AfterFunc(ctx, func() {
		e.working.Lock()
		defer e.working.Unlock()
		release(nil)
	})
	defer stop()
	lead := func(leading context.Context) {
		e.working.Lock()
		defer e.working.Unlock()
		if err := e.lead(ctx, leading, work); err != nil {
			release(err)
		}
	}
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: e.opts.Namespace, Name: e.opts.Lease},
			Client:     e.opts.Client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: e.opts.Replica},
		},
		LeaseDuration: e.opts.Life, RenewDeadline: e.opts.Life * 2 / 3, RetryPeriod: e.opts.Life / 8,
		ReleaseOnCancel: true, Name: e.opts.Lease,
		Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: lead, OnStoppedLeading: func() {}},
	})
	if err != nil {
		return fmt.Errorf("elect a leader by lease %s: %w", e.opts.Lease, err)
	}
	for held.Err() == nil {
		elector.Run(held)
		e.awaitWork()
	}
	if cause := context.Cause(held); cause != context.Canceled {
		return cause
	}
	return nil
}

// awaitWork returns when what we did as the leader has ended.
func (e *Election) awaitWork() {
	e.working.Lock()
	defer e.working.Unlock()
}

// lead works until the lease is lost or ctx ends.
func (e *Election) lead(ctx, leading context.Context, work func(context.Context) error) error {
	leading, cancel := context.WithCancel(leading)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	if leading.Err() != nil {
		return nil
	}
	e.opts.Log.Info("leading", "lease", e.opts.Lease, "replica", e.opts.Replica)
	e.leads.Store(true)
	err := work(leading)
	e.leads.Store(false)
	if leading.Err() != nil {
		e.opts.Log.Info("no longer leading", "lease", e.opts.Lease, "replica", e.opts.Replica)
		return nil
	}
	return err
}
