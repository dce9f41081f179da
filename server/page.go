package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/kubeguardian/kubeguardian/action/deed"
	"github.com/kubeguardian/kubeguardian/action/journal"
	"github.com/kubeguardian/kubeguardian/bus/roster"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/incident/joiner"
	"github.com/kubeguardian/kubeguardian/playground"
	"github.com/kubeguardian/kubeguardian/server/listener"
	"github.com/kubeguardian/kubeguardian/web"
)

func (s *Server) buildPage(ctx context.Context) error {
	gate, err := s.openGate()
	if err != nil {
		return err
	}
	s.metrics.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "kubeguardian", Name: "alerts_unjoined", Help: "Stored alerts that were not joined into incidents yet.",
	}, func() float64 { return s.joiner.Behind() }))
	s.joiner = joiner.New(s.store, joiner.Options{Log: s.log, Joined: func(opened, paged int) {
		s.notifier.Alerted()
		s.metrics.incidents.WithLabelValues("opened").Add(float64(opened))
		s.metrics.incidents.WithLabelValues("paged").Add(float64(paged))
	}})
	if s.journal, err = journal.Open(ctx, s.store, s.log, filepath.Join(s.cfg.DataDir, actionsHead)); err != nil {
		return err
	}
	s.deeds = deed.NewRecorder(s.journal, s.log)
	s.page, err = web.New(web.Options{
		Cluster: s.cfg.Cluster, Version: s.version, Access: gate, Login: s.loginPage(), Sessions: s.store.Sessions(), Actions: s.journal,
		Alerts: s.store, Incidents: s.joiner, Decisions: s.store, Findings: s.store, Entities: s.store, Rules: s.listedRules,
		Deliveries: deliveries{s.notifier, s.store},
		Checks:     s.checks, Settings: s.cfg.Settings, Playground: playground.New(playground.Options{Rules: s.ruleFiles, Program: s.trials}), Agents: s.listedAgents, Clusters: func() []roster.Cluster { return s.clusters.List() },
		Posture: s.posture, Audit: s.lastAudit, Readiness: s.readiness, Policies: s.listed, Health: s.health, Log: s.log,
	})
	return err
}

func (s *Server) posture() (control.Score, []control.Fix, time.Time) {
	s.state.mu.RLock()
	defer s.state.mu.RUnlock()
	p := s.state.posture
	return p.score, p.fixes, p.at
}

func (s *Server) health() web.Health {
	s.state.mu.RLock()
	defer s.state.mu.RUnlock()
	events, _ := s.auditLog.Events()
	h := web.Health{
		LastAuditEvent: s.state.lastEvent,
		AuditEvents:    int64(events),
		Admission:      s.cfg.Admission.Enabled && s.state.registered == nil,
		Problems:       []string{},
	}
	if !s.cfg.Admission.Enabled {
		h.Problems = append(h.Problems, "Admission requests are not checked: admission.enabled is false.")
	} else if err := s.state.registered; err != nil {
		h.Problems = append(h.Problems, fmt.Sprintf("It is not known whether admission requests are checked: %v.", err))
	}
	if s.cfg.Admission.Enabled {
		h.Admission = h.Admission && !s.watchman.Blind()
		h.Problems = append(h.Problems, s.watchman.Problems()...)
	}
	h.Problems = append(h.Problems, s.auditProblems()...)
	h.Problems = append(h.Problems, s.agentProblems(s.state)...)
	h.Problems = append(h.Problems, s.clusters.Problems()...)
	h.Problems = append(append(h.Problems, s.state.storing.problem()...), s.state.retained.problems(s.cfg.Retention)...)
	if err := s.journal.Problem(); err != nil {
		h.Problems = append(h.Problems, fmt.Sprintf("The log of actions is not what it was: %v.", err))
	}
	if err := s.joiner.Problem(); err != nil {
		h.Problems = append(h.Problems, fmt.Sprintf("Alerts are not joined into incidents: %v.", err))
	}
	h.Problems = append(h.Problems, slices.Concat(s.force.Load().problems(), s.reloads.policies.problem(), s.reloads.rules.problem())...)
	switch contact := s.state.contact; {
	case s.state.inventory == nil:
		h.Problems = append(h.Problems, "The cluster has not been read yet.")
	case time.Since(contact) >= contactLimit:
		h.Problems = append(h.Problems, fmt.Sprintf("The API server has not answered since %s.", contact.UTC().Format(time.RFC3339)))
	}
	return h
}

// unready says why the server has not started yet, or "". Once it has it stays
// ready until it ends: a cluster that is away for a moment must not cut the server off from
// the audit log and from admission. What is wrong then is in the health.
func (s *Server) unready() string {
	s.state.mu.RLock()
	defer s.state.mu.RUnlock()
	switch {
	case s.state.draining:
		return "the server ends"
	case s.state.started:
		return ""
	case s.state.posture.at.IsZero():
		return "the cluster has not been scanned yet"
	}
	return "the admission webhook is not registered yet"
}

// pageGrace is how long requests of pages may take once the server ends.
const pageGrace = 5 * time.Second

// openWebTLS reads the certificate of the pages, or takes one of the webhooks'
// authority, for the names of the Service, and for who reaches them through a tunnel.
// It asks browsers for no certificate.
func (s *Server) openWebTLS(context.Context) error {
	web := s.cfg.Web
	switch {
	case web.OwnAuthority:
		hosts := []string{"localhost", "127.0.0.1", "::1"}
		if service := s.cfg.Webhook.Service; service.Name != "" {
			hosts = append(hosts, service.Name, service.Name+"."+service.Namespace, service.Name+"."+service.Namespace+".svc")
		}
		own := s.authority.ServerTLS(hosts...)
		s.webTLS = &tls.Config{MinVersion: own.MinVersion, NextProtos: own.NextProtos, GetCertificate: own.GetCertificate}
	case web.CertFile != "":
		cert, err := tls.LoadX509KeyPair(web.CertFile, web.KeyFile)
		if err != nil {
			return fmt.Errorf("load certificate of web.listen: %w", err)
		}
		s.webTLS = &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, Certificates: []tls.Certificate{cert}}
	}
	return nil
}

// serveWeb serves the page, the API, the metrics and the health endpoints.
func (s *Server) serveWeb(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.Handle("/", s.page)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if reason := s.unready(); reason != "" {
			http.Error(w, "not ready: "+reason, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	srv := listener.NewServer(mux, listener.Limits{Body: time.Minute, Answer: 2 * time.Minute})
	srv.ErrorLog = s.httpLog("page")
	srv.RegisterOnShutdown(s.page.Close)
	return s.visitors.Serve(ctx, srv, s.webListener, s.webTLS, pageGrace)
}
