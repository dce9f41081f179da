package server

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/bus/verdict"
	"github.com/kubeguardian/kubeguardian/correlate"
)

// newJudge returns what judges commands in containers by the audit log.
func (s *Server) newJudge(limits correlate.Options) (*verdict.Judge, error) {
	o := verdict.Options{
		Cluster: s.cfg.Cluster, Expected: s.expected, Known: func(e correlate.Exec) bool { return s.pod(e) != nil },
		Keep: s.keep, Faults: s.auditFaults, Log: s.log,
	}
	if interval := s.cfg.Detection.Heartbeat; interval > 0 {
		o.Ask = func(ctx context.Context) { s.sendAuditBeat(ctx, interval) }
	}
	return verdict.New(o, limits)
}

// auditFaults counts what the audit log lost.
func (s *Server) auditFaults() uint64 {
	_, faults := s.auditEvents()
	lost := faults.Malformed() + s.receiver.Counters().Rejected.Incomplete
	for _, t := range s.tails {
		lost += t.Counters().Gaps
	}
	return lost
}

// pod returns the pod of a command, nil if it is not known.
func (s *Server) pod(e correlate.Exec) *unstructured.Unstructured {
	s.state.mu.RLock()
	inv := s.state.inventory
	s.state.mu.RUnlock()
	if inv == nil {
		return nil
	}
	if o := inv.Get("", "Pod", e.Namespace, e.Pod); o != nil {
		return o.Unstructured
	}
	return nil
}

// expected says by which probe or hook of its pod a command is started; empty if
// by none.
func (s *Server) expected(e correlate.Exec) string {
	pod := s.pod(e)
	if pod == nil {
		return ""
	}
	for _, list := range []string{"containers", "initContainers"} {
		containers, _, err := unstructured.NestedSlice(pod.Object, "spec", list)
		if err != nil {
			continue
		}
		for _, item := range containers {
			container, ok := item.(map[string]any)
			if !ok || e.Container != "" && container["name"] != e.Container {
				continue
			}
			for _, path := range [][]string{{"livenessProbe"}, {"readinessProbe"}, {"startupProbe"}, {"lifecycle", "postStart"}, {"lifecycle", "preStop"}} {
				words, _, err := unstructured.NestedStringSlice(container, append(path[:len(path):len(path)], "exec", "command")...)
				if err == nil && e.Runs(words) {
					return fmt.Sprintf("%s of container %v", path[len(path)-1], container["name"])
				}
			}
		}
	}
	return ""
}
