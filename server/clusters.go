package server

import (
	"context"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus/roster"
	"github.com/kubeguardian/kubeguardian/server/clusters"
)

// openClusters starts the hub, or makes what reports to one, where that is
// configured.
func (s *Server) openClusters(context.Context) (err error) {
	s.clusters, err = clusters.Open(clusters.Options{
		Config: s.cfg.Bus, Own: s.cfg.Cluster, Store: s.store, TLS: s.authority.ServerTLS,
		Keep: s.keepReported, Raise: s.raiseAbout, State: s.clusterState, Log: s.log,
	})
	if err != nil || s.clusters == nil {
		return err
	}
	s.onStop(func() error { s.clusters.Close(); return nil })
	s.metrics.registry.MustRegister(s.clusters.Collector())
	return nil
}

// HubURL returns how other clusters reach this one as their hub, "" if it is none.
func (s *Server) HubURL() string { return s.clusters.URL() }

// keepReported stores alerts that another cluster has reported.
func (s *Server) keepReported(ctx context.Context, cluster string, alerts []alert.Alert) error {
	if len(alerts) == 0 {
		return nil
	}
	began := time.Now()
	added, err := s.store.AddReported(ctx, cluster, alerts)
	s.metrics.wrote("alerts", began)
	if s.stored(err) != nil {
		return err
	}
	s.announce(added)
	return nil
}

// announce tells who waits for alerts that they are stored.
func (s *Server) announce(added []alert.Alert) {
	s.metrics.alerted(added)
	s.notifier.Observe(added)
	s.page.Publish(added)
	s.joiner.Alerted()
	s.clusters.Alerted()
}

// clusterState returns what to say of this cluster to its hub.
func (s *Server) clusterState() roster.State {
	st := roster.State{Version: s.version, Problems: s.health().Problems, Agents: map[string]int{}}
	for _, a := range s.listedAgents() {
		st.Agents[string(a.Status)]++
	}
	score, _, at := s.posture()
	if at.IsZero() {
		return st
	}
	st.Score = &roster.Score{Total: score.Total, Levels: []roster.Level{}, At: at}
	for _, l := range score.Levels {
		st.Score.Levels = append(st.Score.Levels, roster.Level{Level: string(l.Level), Score: l.Score})
	}
	return st
}
