// Package alert holds what a detection rule concludes from an event. The JSON
// keys are Falco's, so that anything built for Falco reads an alert, plus id,
// cluster, subject and tactics.
package alert

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/finding"
)

// A Priority is Falco's grade of an alert. Lower values are more urgent.
type Priority uint8

// The priorities, most urgent first.
const (
	Emergency     Priority = iota
	AlertPriority          // named so because Alert is the type
	Critical
	Error
	Warning
	Notice
	Informational
	Debug
)

var priorityNames = [...]string{"Emergency", "Alert", "Critical", "Error", "Warning", "Notice", "Informational", "Debug"}

// String returns the name as Falco prints it, for example "Warning".
func (p Priority) String() string {
	if int(p) < len(priorityNames) {
		return priorityNames[p]
	}
	return fmt.Sprintf("Priority(%d)", uint8(p))
}

// ParsePriority returns the priority named s, in any case; "info" means
// informational.
func ParsePriority(s string) (Priority, error) {
	if strings.EqualFold(s, "info") {
		return Informational, nil
	}
	for i, name := range priorityNames {
		if strings.EqualFold(s, name) {
			return Priority(i), nil
		}
	}
	return 0, fmt.Errorf("unknown priority %q: want one of %s", s, strings.ToLower(strings.Join(priorityNames[:], ", ")))
}

// MarshalText writes the name.
func (p Priority) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads a name.
func (p *Priority) UnmarshalText(text []byte) error {
	v, err := ParsePriority(string(text))
	if err != nil {
		return err
	}
	*p = v
	return nil
}

// An Alert is one rule that matched one event.
type Alert struct {
	ID           string          `json:"id"` // from [NewID]; the same event and rule give the same id
	Time         time.Time       `json:"time"`
	Rule         string          `json:"rule"`
	Priority     Priority        `json:"priority"`
	Source       string          `json:"source"` // k8s_audit or syscall
	Output       string          `json:"output"`
	OutputFields map[string]any  `json:"output_fields"`
	Hostname     string          `json:"hostname"`
	Tags         []string        `json:"tags"`
	Cluster      string          `json:"cluster,omitempty"`
	Subject      finding.Subject `json:"subject"`
	Owner        string          `json:"owner,omitempty"` // the team that the subject belongs to; "": not known
	Tactics      []string        `json:"tactics,omitempty"`
	Attribution  *Attribution    `json:"attribution,omitempty"` // nil if it is not known
	Entities     []Entity        `json:"entities,omitempty"`    // that other alerts may be about, too

	// Alerts that were counted in place of being kept; nil if there were none.
	Repeats   *Repeats `json:"repeats,omitempty"`   // of this alert so far
	Previous  *Repeats `json:"previous,omitempty"`  // of the one before that said the same
	OverLimit bool     `json:"overLimit,omitempty"` // its repeats are of its rule, whatever they say
}

// An Entity is somebody or something that an alert involves, and by which alerts
// of one attack are told to belong together. Equal entities are the same one,
// within one cluster.
type Entity struct {
	Kind EntityKind `json:"kind"`
	Name string     `json:"name"`
}

// An EntityKind says what the name of an [Entity] is.
type EntityKind string

// The kinds of entities.
const (
	User      EntityKind = "user"      // as the API server knows it; also one that is impersonated, or given rights
	Token     EntityKind = "token"     // id of a service account's token
	Pod       EntityKind = "pod"       // namespace/name
	Workload  EntityKind = "workload"  // Kind/namespace/name of the topmost owner of a pod
	Object    EntityKind = "object"    // resource/namespace/name of any other object
	Container EntityKind = "container" // id
	Session   EntityKind = "session"   // node/pid@start of the process that began a login or service of a node
	Node      EntityKind = "node"      // name
	Image     EntityKind = "image"     // reference, as a pod names it
	Address   EntityKind = "address"   // IP address of the caller, or of whom a process of a node has to do with
)

// An Attribution says who is behind an object that a controller made: whoever
// wrote the spec of its topmost owner last.
type Attribution struct {
	Kind      string   `json:"kind"`
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	Writer    Writer   `json:"writer"`
	Chain     []string `json:"chain"` // from the object to this owner, each as Kind/name
}

// A Writer is who wrote an object, and by which request.
type Writer struct {
	User          string    `json:"user"`
	Impersonating string    `json:"impersonating,omitempty"`
	AuditID       string    `json:"auditID"`
	Time          time.Time `json:"time"`
}

// NewID returns the id of the alert that rule raises for the event with this
// id. A request that is audited at several stages, or delivered twice,
// therefore has one alert for each rule. No client may choose the event's id:
// the store drops an alert whose id it has. An audit ID alone is not enough.
func NewID(source, event, rule string) string {
	sum := sha256.Sum256([]byte(source + "\x00" + event + "\x00" + rule))
	return hex.EncodeToString(sum[:12])
}

// DriftTag is the tag of alerts about the start of a program that is not part of the
// image of its container, and of the rules that are there for that.
const DriftTag = "drift"

// Tactics returns the ATT&CK tactics among Falco tags: "mitre_lateral_movement"
// gives "lateral-movement".
func Tactics(tags []string) []string {
	var out []string
	for _, tag := range tags {
		if tactic, ok := strings.CutPrefix(tag, "mitre_"); ok {
			out = append(out, strings.ReplaceAll(tactic, "_", "-"))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
