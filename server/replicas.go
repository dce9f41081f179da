package server

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kubeguardian/kubeguardian/clusterpolicy"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/leader"
	"github.com/kubeguardian/kubeguardian/store"
)

// leaseName is the Lease by which replicas that share a database agree which of
// them does what only one may do.
const leaseName = "kubeguardian-leader"

// followEvery is how often a replica looks for alerts that others have stored.
const followEvery = time.Second

// openStore opens the database that the configuration names. One in a file is of
// one server, by a lock on the data directory; one in PostgreSQL may be of several,
// which elect a leader.
func (s *Server) openStore(ctx context.Context) (err error) {
	dir := s.cfg.DataDir
	address, shared := filepath.Join(dir, databaseFile), s.cfg.Database.URLFile != ""
	if shared {
		url, err := config.DatabaseURL(s.cfg.Database.URLFile)
		if err != nil {
			return err
		}
		address = string(url)
		if s.replica, err = leader.Name(filepath.Join(dir, "replica")); err != nil {
			return err
		}
	} else {
		unlock, err := lock(dir)
		if err != nil {
			return err
		}
		s.onStop(unlock)
	}
	if s.store, err = store.Open(ctx, address); err != nil {
		return err
	}
	s.store.Own = s.cfg.Cluster
	s.onStop(s.store.Close)
	return nil
}

// joinReplicas makes our part in the election, where there may be several of us.
func (s *Server) joinReplicas(context.Context) error {
	if s.replica != "" {
		s.election = leader.New(leader.Options{
			Client: s.client, Namespace: ownNamespace(s.cfg), Lease: leaseName, Replica: s.replica, Life: s.leaseLife, Log: s.log,
		})
	}
	return nil
}

// removeLeases removes the Leases of replicas that are being uninstalled, until none
// comes back: one that ends its work writes its own until then.
func removeLeases(ctx context.Context, client kubernetes.Interface, namespace string) error {
	leases := client.CoordinationV1().Leases(namespace)
	for {
		list, err := leases.List(ctx, metav1.ListOptions{})
		if err != nil {
			return fmt.Errorf("list leases: %w", err)
		}
		removed := false
		for _, l := range list.Items {
			if l.Name != leaseName && !clusterpolicy.OwnLease(l.Labels) {
				continue
			}
			if err := leases.Delete(ctx, l.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("remove lease %s: %w", l.Name, err)
			}
			removed = true
		}
		if !removed {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(leader.Life / 4): // its holder writes it more often
		}
	}
}

// leads reports whether we do what only one replica may do.
func (s *Server) leads() bool { return s.election == nil || s.election.Leads() }

// alone runs what only one replica may do, while we are that one.
func (s *Server) alone(ctx context.Context) error {
	work := func(ctx context.Context) error {
		group, ctx := errgroup.WithContext(ctx)
		for _, part := range []func(context.Context) error{s.joiner.Run, s.retain, s.store.Indexer(s.log), s.notifier.Run, s.clusters.Report} {
			group.Go(func() error { return part(ctx) })
		}
		return group.Wait()
	}
	if s.election == nil {
		return work(ctx)
	}
	return s.untilRemoved(ctx, func(ctx context.Context) error { return s.election.Run(ctx, work) })
}

// follow tells the live pages and the joiner of alerts that other replicas have
// stored.
func (s *Server) follow(ctx context.Context) error {
	if s.election == nil {
		return nil
	}
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	var seen int64
	for {
		last, err := s.store.LastAlert(ctx)
		if err == nil && last != seen {
			seen = last
			s.page.Wake()
			s.joiner.Alerted()
		}
		if ctx.Err() == nil && err != nil {
			s.log.Error("alerts of other replicas are not shown until the database answers", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
