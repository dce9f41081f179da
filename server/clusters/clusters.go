// Package clusters is the server's side of many clusters: of a hub it takes what they
// report, and tells when one falls silent; of a spoke it reports to the hub.
package clusters

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus/leaf"
	"github.com/kubeguardian/kubeguardian/bus/roster"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/server/listener"
	"github.com/kubeguardian/kubeguardian/store"
)

// Options are what clusters are looked after with. All are needed.
type Options struct {
	Config config.Bus
	Own    string // the name of this server's cluster
	Store  *store.Store
	TLS    func(hosts ...string) *tls.Config // of a hub
	// Keep stores alerts that a cluster has reported; they are on disk when it
	// returns nil.
	Keep func(ctx context.Context, cluster string, alerts []alert.Alert) error
	// Raise stores an alert of the server's own, once for each event.
	Raise func(ctx context.Context, about finding.Subject, p alert.Priority, rule, event, output string)
	// State returns what to say of this cluster to the hub.
	State func() roster.State
	Log   *slog.Logger
}

const (
	stateEvery = 10 * time.Second // between states of a spoke
	judgeEvery = 2 * time.Second
)

// Clusters are those that report to a hub, or this one, which reports to one. Its
// methods may be called of nil, which is neither.
type Clusters struct {
	o     Options
	hub   *leaf.Hub   // nil: this is no hub
	spoke *leaf.Spoke // nil: it reports to none
	began time.Time

	mu  sync.Mutex
	all []roster.Cluster // as they were judged last
	err error            // why that is not known
}

// Open starts what the configuration says; nil if it is neither hub nor spoke.
func Open(o Options) (c *Clusters, err error) {
	c = &Clusters{o: o, began: time.Now()}
	switch leafs, hub := o.Config.LeafNodes, o.Config.Hub; {
	case leafs.Listen != "":
		c.hub, err = leaf.StartHub(leaf.HubOptions{
			Listen: leafs.Listen, TLS: c.tls(), Own: o.Own, Members: leafs.Clusters, Alerts: o.Keep, State: c.keepState, Log: o.Log,
		})
		if err != nil {
			return nil, &listener.Error{Name: "bus.leafNodes", Err: err}
		}
		if err := c.look(context.Background()); err != nil {
			o.Log.Error("it is not known how clusters are", "error", err)
		}
	case hub.URL != "":
		c.spoke, err = leaf.NewSpoke(leaf.SpokeOptions{
			URL: hub.URL, CAFile: hub.CAFile, KeyFile: hub.KeyFile, Cluster: o.Own, Alerts: o.Store, State: o.State, Interval: stateEvery, Log: o.Log,
		})
		if err != nil {
			return nil, err
		}
	default:
		return nil, nil
	}
	return c, nil
}

// tls returns how clusters reach the hub; nil is without TLS.
func (c *Clusters) tls() *tls.Config {
	hosts := c.o.Config.LeafNodes.Hosts
	host, _, err := net.SplitHostPort(c.o.Config.LeafNodes.Listen)
	ip := net.ParseIP(host)
	if err == nil && len(hosts) == 0 && (host == "localhost" || ip.IsLoopback()) {
		return nil
	}
	if !ip.IsUnspecified() {
		hosts = append(slices.Clone(hosts), host)
	}
	return c.o.TLS(hosts...)
}

// URL returns how clusters reach the hub, "" if this is none.
func (c *Clusters) URL() string {
	switch {
	case c == nil || c.hub == nil:
		return ""
	case c.tls() == nil:
		return "nats://" + c.hub.Addr().String()
	}
	return "tls://" + c.hub.Addr().String()
}

// Close ends the hub.
func (c *Clusters) Close() {
	if c != nil && c.hub != nil {
		c.hub.Stop()
	}
}

// Alerted says that there are new alerts of this cluster. It never waits.
func (c *Clusters) Alerted() {
	if c != nil && c.spoke != nil {
		c.spoke.Alerted()
	}
}

func (c *Clusters) keepState(ctx context.Context, cluster string, s *roster.State) error {
	return c.o.Store.SaveReport(ctx, roster.Report{Cluster: cluster, At: time.Now().UTC(), State: *s})
}

// Run looks after clusters until ctx ends. Each replica of a hub does: a cluster
// is connected to one of them.
func (c *Clusters) Run(ctx context.Context) error {
	if c == nil || c.hub == nil {
		return nil
	}
	tick := time.NewTicker(judgeEvery)
	defer tick.Stop()
	var watch roster.Watch
	for {
		if err := c.look(ctx); err != nil && ctx.Err() == nil {
			c.o.Log.Error("it is not known how clusters are", "error", err)
		}
		for _, change := range watch.Judge(c.List()) {
			rule, p := "Cluster is silent", alert.Critical
			if !change.Silent {
				rule, p = "Cluster is no longer silent", alert.Notice
			}
			c.o.Log.Warn("a cluster needs attention", "cluster", change.Cluster, "what", change.Text)
			c.o.Raise(ctx, finding.Subject{Kind: "Cluster", Name: change.Cluster}, p, rule, change.Cluster+"\x00"+change.Event, change.Text)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Sent returns up to which alert the hub has all; reports is false where there is
// no hub. Before anything was sent it is 0.
func (c *Clusters) Sent(ctx context.Context) (seq int64, reports bool, err error) {
	if c == nil || c.spoke == nil {
		return 0, false, nil
	}
	seq, _, err = leaf.Sent(ctx, c.o.Store)
	return seq, true, err
}

// Report reports to the hub until ctx ends. One of several replicas does.
func (c *Clusters) Report(ctx context.Context) error {
	if c == nil || c.spoke == nil {
		<-ctx.Done()
		return nil
	}
	return c.spoke.Run(ctx)
}

// look reads how clusters are.
func (c *Clusters) look(ctx context.Context) error {
	reports, err := c.o.Store.Reports(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err = err; err == nil {
		c.all = roster.Clusters(time.Now(), c.began, slices.Sorted(maps.Keys(c.hub.Clusters())), reports)
	}
	return err
}

// List returns the clusters that may report, those first that need somebody; none
// if this is no hub.
func (c *Clusters) List() []roster.Cluster {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all
}

// IsHub reports whether clusters may report here.
func (c *Clusters) IsHub() bool { return c != nil && c.hub != nil }

// Problems returns what is wrong with clusters, or with reporting to the hub, one
// sentence each.
func (c *Clusters) Problems() []string {
	switch {
	case c == nil:
		return nil
	case c.spoke != nil:
		return spokeProblems(c.spoke.Stats())
	}
	out := roster.Problems(c.List())
	if _, err := c.hub.Refused(); err != nil {
		out = append(out, fmt.Sprintf("No cluster can connect anew: %v.", err))
	}
	for name, counts := range c.hub.Clusters() {
		for cause, n := range counts.Refused {
			out = append(out, fmt.Sprintf("Since the start %d alerts of cluster %s were refused as %s.", n, name, cause))
		}
	}
	slices.Sort(out)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		out = append(out, fmt.Sprintf("It is not known how clusters are: %v.", c.err))
	}
	return out
}

// Detail returns how reporting goes, one sentence.
func (c *Clusters) Detail() string {
	switch {
	case c == nil:
		return ""
	case c.hub != nil:
		return fmt.Sprintf("%d report to this hub.", len(c.List()))
	}
	switch st := c.spoke.Stats(); {
	case !st.Running:
		return "Another replica, which leads, reports to the hub."
	case st.Waiting > 0:
		return fmt.Sprintf("Up to %d alerts of this cluster are not there yet, the oldest of %s.", st.Waiting, st.Oldest.UTC().Format(time.RFC3339))
	}
	return "It has the alerts of this cluster."
}

func spokeProblems(st leaf.SpokeStats) (out []string) {
	waiting := roster.State{Waiting: st.Waiting, Oldest: st.Oldest}
	since := fmt.Sprintf("alerts since %s wait", st.Oldest.UTC().Format(time.RFC3339))
	switch {
	case st.Err != nil && !st.Oldest.IsZero():
		out = append(out, fmt.Sprintf("The hub does not take alerts, and %s: %v.", since, st.Err))
	case st.Err != nil:
		out = append(out, fmt.Sprintf("The hub does not take alerts: %v.", st.Err))
	case waiting.Late(time.Now()):
		out = append(out, fmt.Sprintf("The hub takes alerts more slowly than they come: %s.", since))
	}
	for _, cause := range slices.Sorted(maps.Keys(st.Refused)) {
		out = append(out, fmt.Sprintf("Since the start %d alerts were not taken by the hub as %s.", st.Refused[cause], cause))
	}
	return out
}

// Collector exports what becomes of what clusters report.
func (c *Clusters) Collector() prometheus.Collector { return collector{c} }

type collector struct{ *Clusters }

// Describe is prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect is prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	emit := func(kind prometheus.ValueType, name, help string, value float64, labels ...string) {
		var names, values []string
		for i := 0; i < len(labels); i += 2 {
			names, values = append(names, labels[i]), append(values, labels[i+1])
		}
		ch <- prometheus.MustNewConstMetric(prometheus.NewDesc("kubeguardian_"+name, help, names, nil), kind, value, values...)
	}
	if c.spoke != nil {
		st := c.spoke.Stats()
		emit(prometheus.GaugeValue, "hub_connected", "1 while this server has a connection to its hub.", one(st.Connected))
		emit(prometheus.CounterValue, "hub_alerts_sent_total", "Alerts that the hub has stored.", float64(st.Sent))
		emit(prometheus.CounterValue, "hub_failures_total", "Attempts to report to the hub that failed and were repeated.", float64(st.Failed))
		emit(prometheus.GaugeValue, "hub_alerts_waiting", "Alerts that the hub does not have yet, at most.", float64(st.Waiting))
		waiting := roster.State{Oldest: st.Oldest}
		emit(prometheus.GaugeValue, "hub_lag_seconds", "Age of the oldest alert that the hub does not have yet.", waiting.Lag(time.Now()).Seconds())
		for _, cause := range []string{leaf.CauseMalformed, leaf.CauseForeign, leaf.CauseTooLarge} {
			emit(prometheus.CounterValue, "hub_alerts_refused_total", "Alerts that the hub will never have, by cause.", float64(st.Refused[cause]), "cause", cause)
		}
		return
	}
	refused, _ := c.hub.Refused()
	emit(prometheus.CounterValue, "cluster_connections_refused_total", "Connections of clusters to the hub that were refused.", float64(refused))
	emit(prometheus.CounterValue, "cluster_connection_errors_total", "Times that a connection to the hub went wrong: protocol, TLS, authentication.", float64(c.hub.ConnectionErrors()))
	counts := c.hub.Clusters()
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		n := counts[name]
		emit(prometheus.GaugeValue, "cluster_connected", "1 while a cluster is connected to this server.", one(n.Connected), "reporting", name)
		emit(prometheus.CounterValue, "cluster_alerts_received_total", "Alerts of a cluster that were stored, those that came again among them.", float64(n.Received), "reporting", name)
		emit(prometheus.CounterValue, "cluster_batches_failed_total", "Batches of alerts of a cluster that could not be stored and came again.", float64(n.Failed), "reporting", name)
		for _, cause := range []string{leaf.CauseMalformed, leaf.CauseForeign} {
			emit(prometheus.CounterValue, "cluster_alerts_refused_total", "Alerts of a cluster that were given up, by cause.", float64(n.Refused[cause]), "reporting", name, "cause", cause)
		}
	}
	for _, cl := range c.List() {
		emit(prometheus.GaugeValue, "cluster_silent", "1 while nobody says what happens in a cluster: it is silent, was stopped or has never reported.", one(cl.Unknown()), "reporting", cl.Name)
		emit(prometheus.GaugeValue, "cluster_lag_seconds", "Age of the oldest alert of a cluster that the hub does not have yet, as it said last.", cl.Lag(time.Now()).Seconds(), "reporting", cl.Name)
		emit(prometheus.GaugeValue, "cluster_alerts_waiting", "Alerts of a cluster that the hub does not have yet, at most, as it said last.", float64(cl.Waiting), "reporting", cl.Name)
		if !cl.LastSeen.IsZero() {
			emit(prometheus.GaugeValue, "cluster_last_seen_timestamp_seconds", "When a cluster was heard last.", float64(cl.LastSeen.UnixMilli())/1000, "reporting", cl.Name)
		}
	}
}

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
