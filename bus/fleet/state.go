package fleet

import "time"

// A State is what an agent says of itself, again and again.
type State struct {
	Node     string        `json:"node"`
	Version  string        `json:"version"`
	Time     time.Time     `json:"time"` // by the node's clock
	Started  time.Time     `json:"started"`
	Interval time.Duration `json:"interval"` // nanoseconds until the next one
	Stopped  bool          `json:"stopped,omitempty"`
	Kernel   string        `json:"kernel,omitempty"`
	Runtime  string        `json:"runtime,omitempty"` // of containers

	Rules      int                 `json:"rules"` // that can raise an alert
	RulesHash  string              `json:"rulesHash,omitempty"`
	RulesError string              `json:"rulesError,omitempty"` // why the rules that the server gave are not in force
	NotCovered map[string][]string `json:"notCovered,omitempty"` // types of events that the sensor does not show, by rule
	Missing    map[string]string   `json:"missing,omitempty"`    // why, by feature of the kernel
	Drift      bool                `json:"drift,omitempty"`      // it tells of programs that are not part of their image

	Events   uint64   `json:"events"` // read since the start
	Dropped  uint64   `json:"dropped"`
	Dropping bool     `json:"dropping,omitempty"` // some of them within the last hour
	Alerts   uint64   `json:"alerts"`
	Problems []string `json:"problems,omitempty"`
	Misses   []string `json:"misses,omitempty"` // those of Problems by which events are not seen, or alerts of them not told in time

	DroppedTypes map[string]uint64 `json:"droppedTypes,omitempty"` // of events that were dropped

	Waiting     uint64  `json:"waiting"`    // alerts in the spool
	LostAlerts  uint64  `json:"lostAlerts"` // that there was no room for, or that were damaged
	CPUSeconds  float64 `json:"cpuSeconds"` // since the start
	MemoryBytes uint64  `json:"memoryBytes"`
}
