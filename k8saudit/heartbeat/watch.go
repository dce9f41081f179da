package heartbeat

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/event"
)

// The rules of the alerts about the audit log itself.
const (
	RuleBlind = "Audit log is blind"
	RuleSees  = "Audit log is no longer blind"
)

// blindAfter is how many heartbeats in a row must be missing.
const blindAfter = 3

// Checkpoints are notes that replicas leave for each other.
type Checkpoints interface {
	// Checkpoint returns what was saved last under a name; known is false if
	// nothing was.
	Checkpoint(ctx context.Context, name string) (body []byte, known bool, err error)
	// SaveCheckpoint keeps a note.
	SaveCheckpoint(ctx context.Context, name string, body []byte) error
}

// Options are what a watch looks at the audit log with. All but Replica are needed.
type Options struct {
	Client      kubernetes.Interface
	Namespace   string        // our own, which requests ask for
	Interval    time.Duration // between requests; 0: none are made
	Replica     string        // our name among those that share the checkpoints; "": there are no others
	Checkpoints Checkpoints
	// Raise stores an alert, once for each event.
	Raise func(ctx context.Context, p alert.Priority, rule, event, output string)
	Log   *slog.Logger
}

// A Watch makes a request again and again that the audit log must show, and tells
// when it does not: then no rule has an input, and that there are no alerts means
// nothing. It is safe for concurrent use.
type Watch struct {
	o     Options
	beats Beats

	blindGauge, lastGauge prometheus.Gauge
	delay                 prometheus.Histogram

	mu    sync.Mutex
	blind time.Time // since when requests do not appear in the audit log; zero: they do
}

// NewWatch returns a watch that has seen nothing.
func NewWatch(o Options) *Watch {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "kubeguardian", Name: name, Help: help})
	}
	return &Watch{
		o: o, blindGauge: gauge("audit_blind", "1 when requests to the API server do not appear in the audit log."),
		lastGauge: gauge("audit_heartbeat_timestamp_seconds", "When a request of our own was seen in the audit log last."),
		delay: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "kubeguardian", Name: "audit_delay_seconds", Help: "From a request of our own until it was seen in the audit log.",
			Buckets: prometheus.ExponentialBuckets(0.125, 2, 10),
		}),
	}
}

// Collectors are the metrics of the watch.
func (w *Watch) Collectors() []prometheus.Collector {
	return []prometheus.Collector{w.blindGauge, w.lastGauge, w.delay}
}

// Run makes requests until ctx ends.
func (w *Watch) Run(ctx context.Context) {
	if w.o.Interval == 0 {
		return
	}
	tick := time.NewTicker(w.o.Interval)
	defer tick.Stop()
	for {
		w.Send(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		w.judge(ctx, blindAfter*w.o.Interval)
	}
}

// Send asks for our own namespace. Whatever the answer is, the request is in the
// log, under the id that we gave it; only without an answer it need not be.
func (w *Watch) Send(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, w.o.Interval)
	defer cancel()
	id := Prefix + strings.ToLower(rand.Text())
	if w.o.Replica != "" {
		id = Prefix + w.o.Replica + "." + strings.ToLower(rand.Text())
	}
	w.beats.Forget(2 * blindAfter)
	w.beats.Add(id, time.Now())
	err := w.o.Client.CoreV1().RESTClient().Get().AbsPath("/api/v1/namespaces/"+w.o.Namespace).SetHeader("Audit-ID", id).Do(ctx).Error()
	if err != nil && apierrors.ReasonForError(err) == metav1.StatusReasonUnknown {
		w.beats.Remove(id)
	}
}

// Saw looks at an event of the log that came at a time. It returns by how much the
// log lags, if the event says so, or 0.
func (w *Watch) Saw(ctx context.Context, e *event.Event, now time.Time) (lag time.Duration) {
	id := Of(e)
	if id == "" {
		return 0
	}
	if delay, ours := w.beats.Saw(id, now); ours {
		w.delay.Observe(delay.Seconds())
		lag = delay
	}
	w.tellSender(ctx, id)
	return lag
}

// seenFor is the checkpoint of the last heartbeat of a replica that another one
// has seen: what receives the audit log is one of them.
func seenFor(replica string) string { return "audit heartbeat of " + replica }

// tellSender lets the replica that sent a heartbeat know that it was seen.
func (w *Watch) tellSender(ctx context.Context, id string) {
	sender, _, named := strings.Cut(strings.TrimPrefix(id, Prefix), ".")
	if w.o.Replica == "" || !named || sender == "" || sender == w.o.Replica || len(validation.IsDNS1123Label(sender)) > 0 {
		return
	}
	if err := w.o.Checkpoints.SaveCheckpoint(ctx, seenFor(sender), []byte(id)); err != nil {
		w.o.Log.Error("another replica does not hear that its request is in the audit log", "replica", sender, "error", err)
	}
}

// hear notes what other replicas have seen of ours.
func (w *Watch) hear(ctx context.Context, now time.Time) {
	if w.o.Replica == "" {
		return
	}
	id, _, err := w.o.Checkpoints.Checkpoint(ctx, seenFor(w.o.Replica))
	if err != nil {
		w.o.Log.Error("it is not known whether other replicas receive the audit log", "error", err)
	}
	w.beats.Saw(string(id), now)
}

// judge tells what changed.
func (w *Watch) judge(ctx context.Context, limit time.Duration) {
	now := time.Now()
	w.hear(ctx, now)
	missing, n := w.beats.Missing()
	last := w.beats.Last()
	before := w.Blind()
	since := before
	switch blind := n >= blindAfter && now.Sub(missing) >= limit; {
	case blind && before.IsZero():
		since = missing
	case !blind && (missing.IsZero() || last.After(before)):
		since = time.Time{}
	}
	w.set(since, last)
	switch {
	case !since.IsZero() && before.IsZero():
		seen := "never"
		if !last.IsZero() {
			seen = last.UTC().Format(time.RFC3339)
		}
		w.o.Log.Error("the audit log is blind", "since", missing, "lastSeen", seen)
		w.o.Raise(ctx, alert.Critical, RuleBlind, missing.String(), "Requests to the API server do not appear in the audit log that arrives here, so that no detection rule can see them; last seen: "+seen)
	case since.IsZero() && !before.IsZero():
		w.o.Log.Info("the audit log is no longer blind", "since", before)
		w.o.Raise(ctx, alert.Notice, RuleSees, before.String(), "Requests appear in the audit log again; they did not from "+before.UTC().Format(time.RFC3339)+" on, until the log has been caught up with")
	}
}

// set notes since when the log is blind, and when one of ours was seen last.
func (w *Watch) set(blind, last time.Time) {
	w.mu.Lock()
	w.blind = blind
	w.mu.Unlock()
	w.blindGauge.Set(0)
	if !blind.IsZero() {
		w.blindGauge.Set(1)
	}
	if !last.IsZero() {
		w.lastGauge.Set(float64(last.UnixMilli()) / 1000)
	}
}

// Blind returns since when the audit log does not show our requests; the zero time
// while it does.
func (w *Watch) Blind() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.blind
}

// Problems returns what is wrong with the log, one sentence each.
func (w *Watch) Problems() []string {
	blind := w.Blind()
	if blind.IsZero() {
		return nil
	}
	return []string{fmt.Sprintf("The audit log is blind since %s: requests to the API server do not appear in it, and no rule can see them.", blind.UTC().Format(time.RFC3339))}
}
