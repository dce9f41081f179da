package server

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/k8saudit"
	"github.com/kubeguardian/kubeguardian/k8saudit/heartbeat"
	"github.com/kubeguardian/kubeguardian/store"
)

// faultCauses says of which kinds faults are.
func faultCauses(faults k8saudit.Faults) string {
	var out []string
	for _, cause := range []struct {
		n    uint64
		text string
	}{
		{faults.JSON, "are no JSON"}, {faults.Event, "are no audit events"}, {faults.Depth, "are nested too deep"},
		{faults.Size, "are too large"}, {faults.Cut, "were cut by the log service"},
	} {
		if cause.n > 0 {
			out = append(out, fmt.Sprint(cause.n, " ", cause.text))
		}
	}
	return strings.Join(out, ", ")
}

// positions keeps how far the files of audit logs have been read, by a replica
// that has a name or by the only one.
type positions struct {
	store   *store.Store
	replica string
}

func (p positions) name(log string) string {
	if p.replica == "" {
		return "audit file " + log
	}
	return "audit file " + log + " of " + p.replica
}

// Position is [k8saudit.Positions].
func (p positions) Position(ctx context.Context, log string) (pos k8saudit.Position, known bool, err error) {
	body, known, err := p.store.Checkpoint(ctx, p.name(log))
	if err == nil && known {
		if err = json.Unmarshal(body, &pos); err != nil {
			err = fmt.Errorf("read position in %s: %w", log, err)
		}
	}
	return pos, known, err
}

// SavePosition is [k8saudit.Positions].
func (p positions) SavePosition(ctx context.Context, log string, pos k8saudit.Position) error {
	body, err := json.Marshal(pos)
	if err != nil {
		return fmt.Errorf("encode position in %s: %w", log, err)
	}
	return p.store.SaveCheckpoint(ctx, p.name(log), body)
}

// openTails makes what follows the files of audit logs.
func (s *Server) openTails(compat k8saudit.Compat) {
	for _, file := range s.cfg.Detection.AuditFiles {
		s.tails = append(s.tails, k8saudit.NewTail(k8saudit.TailOptions{
			Path: file, Handle: s.detect, Compat: compat, Positions: positions{s.store, s.replica}, Log: s.log,
		}))
	}
}

// auditEvents returns how many audit events have been handled, and what was not
// taken as it came.
func (s *Server) auditEvents() (n uint64, faults k8saudit.Faults) {
	c := s.receiver.Counters()
	n, faults = c.Events, c.Faults
	for _, t := range s.tails {
		c := t.Counters()
		n, faults = n+c.Events, faults.Plus(c.Faults)
	}
	return n, faults
}

// The rules of the alerts about the audit log itself.
const (
	ruleAuditBlind = "Audit log is blind"
	ruleAuditSees  = "Audit log is no longer blind"
)

// auditBlindAfter is how many heartbeats in a row must be missing.
const auditBlindAfter = 3

// watchAudit makes a request again and again that the audit log must show, and
// tells when it does not: then no rule has an input, and that there are no
// alerts means nothing.
func (s *Server) watchAudit(ctx context.Context) error {
	interval := s.cfg.Detection.Heartbeat
	if interval == 0 {
		return nil
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		s.sendAuditBeat(ctx, interval)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		s.judgeAudit(ctx, auditBlindAfter*interval)
	}
}

// sendAuditBeat asks for our own namespace. Whatever the answer is, the request
// is in the log, under the id that we gave it; only without an answer it need
// not be.
func (s *Server) sendAuditBeat(ctx context.Context, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	id := heartbeat.Prefix + strings.ToLower(rand.Text())
	if s.replica != "" {
		id = heartbeat.Prefix + s.replica + "." + strings.ToLower(rand.Text())
	}
	s.beats.Forget(2 * auditBlindAfter)
	s.beats.Add(id, time.Now())
	err := s.client.CoreV1().RESTClient().Get().AbsPath("/api/v1/namespaces/"+ownNamespace(s.cfg)).SetHeader("Audit-ID", id).Do(ctx).Error()
	if err != nil && apierrors.ReasonForError(err) == metav1.StatusReasonUnknown {
		s.beats.Remove(id)
	}
}

// seenFor is the checkpoint of the last heartbeat of a replica that another one
// has seen: what receives the audit log is one of them.
func seenFor(replica string) string { return "audit heartbeat of " + replica }

// tellSender lets the replica that sent a heartbeat know that it was seen.
func (s *Server) tellSender(ctx context.Context, id string) {
	sender, _, named := strings.Cut(strings.TrimPrefix(id, heartbeat.Prefix), ".")
	if s.replica == "" || !named || sender == "" || sender == s.replica || len(validation.IsDNS1123Label(sender)) > 0 {
		return
	}
	if err := s.store.SaveCheckpoint(ctx, seenFor(sender), []byte(id)); err != nil {
		s.log.Error("another replica does not hear that its request is in the audit log", "replica", sender, "error", err)
	}
}

// hearOfBeats notes what other replicas have seen of ours.
func (s *Server) hearOfBeats(ctx context.Context, now time.Time) {
	if s.replica == "" {
		return
	}
	id, _, err := s.store.Checkpoint(ctx, seenFor(s.replica))
	if err != nil {
		s.log.Error("it is not known whether other replicas receive the audit log", "error", err)
	}
	s.beats.Saw(string(id), now)
}

// judgeAudit tells what changed.
func (s *Server) judgeAudit(ctx context.Context, limit time.Duration) {
	now := time.Now()
	s.hearOfBeats(ctx, now)
	missing, n := s.beats.Missing()
	last := s.beats.Last()
	var before time.Time
	blind := n >= auditBlindAfter && now.Sub(missing) >= limit
	s.state.update(func(st *state) {
		before = st.auditBlind
		switch {
		case blind && before.IsZero():
			st.auditBlind = missing
		case !blind && (missing.IsZero() || last.After(before)):
			st.auditBlind = time.Time{}
		}
		blind = !st.auditBlind.IsZero()
	})
	s.metrics.auditSeen(blind, last)
	switch {
	case blind && before.IsZero():
		seen := "never"
		if !last.IsZero() {
			seen = last.UTC().Format(time.RFC3339)
		}
		s.log.Error("the audit log is blind", "since", missing, "lastSeen", seen)
		s.raiseAudit(ctx, alert.Critical, ruleAuditBlind, missing.String(), "Requests to the API server do not appear in the audit log that arrives here, so that no detection rule can see them; last seen: "+seen)
	case !blind && !before.IsZero():
		s.log.Info("the audit log is no longer blind", "since", before)
		s.raiseAudit(ctx, alert.Notice, ruleAuditSees, before.String(), "Requests appear in the audit log again; they did not from "+before.UTC().Format(time.RFC3339)+" on, until the log has been caught up with")
	}
}

// raiseAudit stores an alert about the audit log, once for each event. One that
// cannot be stored is no reason to end: the state says it too.
func (s *Server) raiseAudit(ctx context.Context, priority alert.Priority, rule, event, output string) {
	s.raiseAbout(ctx, finding.Subject{Kind: "AuditLog", Name: s.cfg.Cluster}, priority, rule, event, output)
}

// auditProblems returns what is wrong with the audit log, one sentence each.
func (s *Server) auditProblems(st *state) []string {
	var out []string
	if !st.auditBlind.IsZero() {
		out = append(out, fmt.Sprintf("The audit log is blind since %s: requests to the API server do not appear in it, and no rule can see them.", st.auditBlind.UTC().Format(time.RFC3339)))
	}
	if _, faults := s.auditEvents(); faults.Malformed() > 0 {
		out = append(out, fmt.Sprintf("Since the start %d audit events could not be read, or not with their bodies: %s.", faults.Malformed(), faultCauses(faults)))
	}
	for i, t := range s.tails {
		if c := t.Counters(); c.Gaps > 0 {
			out = append(out, fmt.Sprintf("The audit log in %s was lost in part: a file was gone before it was read, %d times since the start.", s.cfg.Detection.AuditFiles[i], c.Gaps))
		}
	}
	return out
}
