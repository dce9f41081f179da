// Package leaf lets many clusters report to one hub.
//
// The server of a cluster, a spoke, runs a NATS server that connects to that of
// the hub as a leaf node, and proves by a key which cluster it is. The hub gives
// each cluster an account of its own, in which there are two services: one that
// takes alerts and one that takes how the cluster is. Which cluster asks the hub
// knows by the account, not by what is said: no cluster can see or speak for
// another. The hub has no way into the cluster: it answers, and cannot ask.
//
// Alerts wait in the spoke's own store, in their order. The hub answers when its
// store has them, and only then the spoke goes on to the next: what either side
// loses on the way is sent again, and counts once by its id.
package leaf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus/roster"
)

// The services of a cluster's account, and in the account of the hub's server
// what they are there: the name of the cluster follows.
const (
	alertService = "kubeguardian.hub.alerts"
	stateService = "kubeguardian.hub.state"

	alertPrefix = "kubeguardian.clusters.alerts."
	statePrefix = "kubeguardian.clusters.state."
)

// Bounds of messages, in bytes.
const (
	maxMessage = 8 << 20
	maxAlert   = maxMessage - 4096 // with what a batch adds to it
	batchBytes = 1 << 20           // from which on a batch takes no more
	maxState   = 256 << 10
)

const batchSize = 500 // alerts that are sent at once

// clusterName is words between dots, of which NATS makes no pattern.
var clusterName = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)

// CheckCluster returns what is wrong with the name of a cluster.
func CheckCluster(name string) error {
	if len(name) > 100 || !clusterName.MatchString(name) {
		return fmt.Errorf("want the name of a cluster (letters, digits, dashes and dots, at most 100), have %.60q", name)
	}
	return nil
}

// A batch is alerts on their way to the hub.
type batch struct {
	Cluster string            `json:"cluster"` // who the sender believes to be
	Alerts  []json.RawMessage `json:"alerts"`
}

// An answer of the hub: to a batch, or to a state.
type answer struct {
	// Error says why nothing was taken; it is to be sent again.
	Error string `json:"error,omitempty"`
	// Refused are alerts that were given up, by cause.
	Refused map[string]int `json:"refused,omitempty"`
}

// decodeState reads a state.
func decodeState(data []byte) (*roster.State, error) {
	if len(data) > maxState {
		return nil, fmt.Errorf("%d bytes, at most %d", len(data), maxState)
	}
	var s roster.State
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, err
	}
	s.Bound()
	return &s, nil
}

// The causes for which the hub gives an alert up.
const (
	CauseMalformed = "malformed" // it is no alert
	CauseForeign   = "foreign"   // it says that it is of another cluster
)

// Bounds of an alert, besides its size.
const (
	maxName   = 1024 // bytes of an id, the name of a rule and others
	maxFields = 512
	maxTags   = 256
)

// readAlert reads an alert of a cluster. Its id is made one of the cluster: none
// can take the id of an alert that is not its own.
func readAlert(data []byte, cluster string, a *alert.Alert) (cause string, err error) {
	if err := decode(data, a); err != nil {
		return CauseMalformed, err
	}
	switch {
	case a.ID == "" || a.Rule == "" || a.Time.IsZero():
		return CauseMalformed, errors.New("id, rule or time is missing")
	case max(len(a.ID), len(a.Rule), len(a.Hostname), len(a.Source)) > maxName:
		return CauseMalformed, fmt.Errorf("an id or a name has more than %d bytes", maxName)
	case len(a.OutputFields) > maxFields || len(a.Tags) > maxTags || len(a.Entities) > maxTags || len(a.Tactics) > maxTags:
		return CauseMalformed, fmt.Errorf("more than %d fields or %d tags", maxFields, maxTags)
	case a.Cluster != "" && a.Cluster != cluster:
		return CauseForeign, fmt.Errorf("it says that it is of cluster %.60q, and comes from %s", a.Cluster, cluster)
	}
	a.Cluster, a.ID = cluster, ID(cluster, a.ID, a.Rule)
	return "", nil
}

// ID returns the id by which the hub knows an alert of a cluster.
func ID(cluster, id, rule string) string {
	return alert.NewID("cluster", cluster+"\x00"+id, rule)
}

// decode reads one JSON value and nothing after it. Numbers stay exact.
func decode(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more than one value")
	}
	return nil
}
