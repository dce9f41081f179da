package evidence

import (
	"errors"
	"time"

	"github.com/kubeguardian/kubeguardian/fact"
	"github.com/kubeguardian/kubeguardian/finding"
)

// RuntimeVersion is the apiVersion of a file that says what watches a cluster:
// [Heartbeat]s and [Alert]s of a sensor that is not ours.
const RuntimeVersion = "kubeguardian.dev/runtime/v1"

// The streams of which a [Heartbeat] may speak.
const (
	AuditStream  = "audit"  // audit events of the API server
	SensorStream = "sensor" // a runtime sensor on a node
)

// A Heartbeat says when a stream of events was last seen alive. SeenAt is when
// that was looked up.
type Heartbeat struct {
	Origin
	Stream string
	Node   string    // of a sensor
	Since  time.Time // since when the stream is waited for
	At     time.Time // of the newest event or heartbeat; zero for none
	// Of a sensor: what is wrong with it although it lives, one sentence each, and
	// whether it would tell of a program that is not part of its image.
	Problems []string
	Drift    fact.Fact
	// Unheard is why nobody can know whether a sensor lives, if that is so.
	Unheard string
}

// An Alert is an alert of a detection rule.
type Alert struct {
	Origin
	Rule     string
	At       time.Time
	Subject  finding.Subject
	Critical bool          // asks for a person's answer
	Respond  time.Duration // the agreed time to give it; 0 for none
	Drift    bool          // a program ran that is not part of the image
}

// Unread says that there are too many alerts to look at all: of those that are
// critical, and of those about drift, up to when they were not looked at.
type Unread struct{ Critical, Drift time.Time }

// runtimeFile is the form of a file; field names are its keys.
type runtimeFile struct {
	APIVersion string    `yaml:"apiVersion"`
	Tool       string    `yaml:"tool"`
	At         time.Time `yaml:"at"`
	Heartbeats []struct {
		Stream   string    `yaml:"stream"`
		Node     string    `yaml:"node"`
		Since    time.Time `yaml:"since"`
		At       time.Time `yaml:"at"`
		Problems []string  `yaml:"problems"`
		Drift    *bool     `yaml:"drift"`
	} `yaml:"heartbeats"`
	Respond time.Duration `yaml:"respondWithin"`
	Alerts  []struct {
		Rule      string    `yaml:"rule"`
		At        time.Time `yaml:"at"`
		Kind      string    `yaml:"kind"`
		Namespace string    `yaml:"namespace"`
		Name      string    `yaml:"name"`
		Drift     bool      `yaml:"drift"`
	} `yaml:"criticalAlerts"`
}

func runtimeRecords(d document) (*Set, error) {
	var file runtimeFile
	if err := d.strict(&file); err != nil {
		return nil, err
	}
	if file.At.IsZero() || file.Respond < 0 {
		return nil, d.errorf(0, "want at, the time of the observation, and respondWithin of 0 or more")
	}
	origin := Origin{Kind: Runtime, Tool: file.Tool, Source: d.name, SeenAt: file.At}
	set := &Set{}
	var errs []error
	for i, h := range file.Heartbeats {
		if h.Stream != AuditStream && h.Stream != SensorStream || (h.Stream == SensorStream) != (h.Node != "") {
			errs = append(errs, d.errorf(0, "heartbeat %d: want stream audit, or stream sensor with its node", i+1))
		}
		beat := Heartbeat{Origin: origin, Stream: h.Stream, Node: h.Node, Since: h.Since, At: h.At, Problems: h.Problems}
		if h.Drift != nil {
			beat.Drift = fact.Of(*h.Drift)
		}
		set.Heartbeats = append(set.Heartbeats, beat)
	}
	for i, a := range file.Alerts {
		if a.Rule == "" || a.At.IsZero() || a.Kind == "" || a.Name == "" {
			errs = append(errs, d.errorf(0, "critical alert %d: want rule, at, kind and name", i+1))
		}
		set.Alerts = append(set.Alerts, Alert{
			Origin: origin, Rule: a.Rule, At: a.At, Critical: true, Respond: file.Respond, Drift: a.Drift,
			Subject: finding.Subject{Kind: a.Kind, Namespace: a.Namespace, Name: a.Name},
		})
	}
	return set, errors.Join(errs...)
}
