package server

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/health"
)

// checks returns what the server watches about itself, with what to do.
func (s *Server) checks() []health.Check {
	s.state.mu.RLock()
	defer s.state.mu.RUnlock()
	st, silent, mistaken, bindings := s.state, 0, 0, 0
	events, _ := s.auditLog.Events()
	rules, listed := s.listedRules(), s.listed()
	for _, r := range rules {
		if r.Silent != "" {
			silent++
		}
	}
	for _, p := range listed.Items {
		if len(p.Errors) > 0 {
			mistaken++
		}
		if strings.HasSuffix(p.Kind, "Binding") {
			bindings++
		}
	}
	out := []health.Check{
		health.Of("Audit log", fmt.Sprintf("%d events since the start, the last of %s.", events, health.Moment(st.lastEvent)),
			"check --audit-webhook-config-file and --audit-policy-file of the API server, and that it reaches the webhook listener", s.auditProblems()...),
		health.Of("Posture scan", "The last one finished at "+health.Moment(st.posture.at)+".", "look at the server's log: a scan that fails leaves the last one in place",
			health.If(st.posture.at.IsZero() || time.Since(st.posture.at) > 3*s.cfg.Scan.Interval, "The last scan that finished is from %s.", health.Moment(st.posture.at))...),
		health.Of("Cluster", "The API server answers.", "check that the server reaches the API server, and its credentials",
			health.If(time.Since(st.contact) >= contactLimit, "The API server answered last at %s.", health.Moment(st.contact))...),
		health.Of("Database", st.retained.detail(s.cfg.Retention), "see that the database answers and has space, and what the retention is", append(st.storing.problem(), st.retained.problems(s.cfg.Retention)...)...),
		health.Of("Detection rules", fmt.Sprintf("%d are loaded, %d of them silent.", len(rules), silent), "look at detection.rules, detection.select and detection.priority", append(health.If(len(rules) == silent, "No rule raises alerts."), s.reloads.rules.problem()...)...),
		health.Of("Policies", fmt.Sprintf("%d are loaded, with %d bindings.", len(listed.Items)-bindings, bindings), "the page Policies names each mistake and its place; of files, the log", slices.Concat(health.If(mistaken > 0, "%d have mistakes.", mistaken), s.force.Load().problems(), s.reloads.policies.problem())...),
	}
	if err := s.joiner.Problem(); err != nil {
		out = append(out, health.Of("Incidents", "", "look at the server's log", fmt.Sprintf("Alerts are not joined into incidents: %v.", err)))
	}
	if s.cfg.Admission.Enabled {
		out = append(out, health.Of("Admission", "The webhook is registered, and the API server asks it.", "apply the output of kubeguardian setup rbac again, and check that the API server reaches the webhook listener",
			append(health.If(st.registered != nil, "It is not known whether requests are checked: %v.", st.registered), s.watchman.Problems()...)...))
	} else {
		out = append(out, health.Check{Name: "Admission", State: health.Off, Detail: "Requests are not checked.", Do: "set admission.enabled to true"})
	}
	if s.clusters.IsHub() {
		out = append(out, health.Of("Clusters", s.clusters.Detail(), "the table below has each cluster and its reasons", s.clusters.Problems()...))
	} else if s.clusters != nil {
		out = append(out, health.Of("Hub", s.clusters.Detail(), "check that this server reaches the hub, and that its key is in the hub's file of clusters", s.clusters.Problems()...))
	}
	if s.agents == nil {
		return append(out, health.Check{Name: "Node agents", State: health.Off, Detail: "Agents cannot report: what happens inside containers is not seen.", Do: "configure the bus, and install kubeguardian-agent on each node"})
	}
	return append(out, health.Of("Node agents", "All of them report.", "the table below has each agent and its reasons", s.agentProblems(st)...))
}
