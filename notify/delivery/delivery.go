// Package delivery holds what is known of each message to each destination: what
// a queue keeps, and what pages show.
package delivery

import (
	"encoding/json"
	"errors"
	"time"
)

// A State says what has become of a message.
type State string

// The states.
const (
	Waiting    State = "waiting"    // to be sent, or sent again
	Delivered  State = "delivered"  // the destination has taken it
	Dead       State = "dead"       // it is not sent any more, for the reason given
	Summarised State = "summarised" // a summary was sent in its place
)

// States lists all states.
func States() []State { return []State{Waiting, Delivered, Dead, Summarised} }

// A Message is one message to one destination, with all that happened to it.
type Message struct {
	Seq         int64     `json:"seq"` // grows; names the message
	Destination string    `json:"destination"`
	Key         string    `json:"key"` // one message of a destination has it
	State       State     `json:"state"`
	Title       string    `json:"title"`   // what it is about
	Created     time.Time `json:"created"` // when it came into the queue, the last time
	Due         time.Time `json:"due"`     // when it is to be sent, and its place in the order
	Next        time.Time `json:"next"`    // when it is tried next
	Done        time.Time `json:"done,omitzero"`
	Attempts    int       `json:"attempts"`
	Reason      string    `json:"reason,omitempty"` // why the last attempt failed, or what else became of it

	// Alerts that the message stands for: how many, and when.
	Count int       `json:"count"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`

	// Group is what messages have in common that say much the same, empty for one
	// that stands for itself. Until is when the group's next message may be due.
	Group string    `json:"-"`
	Until time.Time `json:"-"`
	// Follows is the key of the message to the same destination that this one says
	// more to; empty for one that stands for itself. It is sent after that, and has
	// no sense without.
	Follows string `json:"follows,omitempty"`
	// Incident is what the message names the incident that it is about; empty for
	// alerts.
	Incident string `json:"incident,omitempty"`
	// Body is the notification as JSON, without what the fields above say.
	Body json.RawMessage `json:"-"`
}

// A Result is what an attempt led to. For [Waiting] there is a next one.
type Result struct {
	Seq    int64
	State  State
	Reason string
	Next   time.Time
}

// A Progress is up to where what happened has been made into messages.
type Progress struct {
	Alert     int64    // seq of the last alert
	Incidents []Told   // those that are messages from now on
	Became    []Became // what messages tell of incidents from now on
}

// A Told is an incident that messages tell of: as what they name it, and how it was
// then.
type Told struct {
	Incident string // id
	As       string // its id, or a name of its own where it has escalated since
	State    string
	Level    int
}

// A Became is the state of an incident that messages tell of, which became
// messages by this id.
type Became struct{ Incident, State string }

// A Standing is how a destination is doing.
type Standing struct {
	Waiting    int       `json:"waiting"`
	Dead       int       `json:"dead"`
	Delivered  int       `json:"delivered"`
	Summarised int       `json:"summarised"`
	Oldest     time.Time `json:"oldest,omitzero"` // when the first of those that wait was due; zero: none waits
	Attempts   int       `json:"attempts"`        // so far, of the first that waits
	Reason     string    `json:"reason,omitempty"`
}

// A Status is a destination, and how it is doing.
type Status struct {
	Name string `json:"name"`
	Type string `json:"type"`
	Standing
}

// ErrUnknownDestination is the name of none.
var ErrUnknownDestination = errors.New("there is no destination of this name")

// A Query selects messages, the newest first. Empty fields select all.
type Query struct {
	Destination string
	State       State
	Incident    string // id, whatever messages have named it
	Before      int64  // seq; 0: from the newest on
	Limit       int
}
