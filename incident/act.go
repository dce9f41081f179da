package incident

import (
	"fmt"
	"slices"
	"time"
)

// An Act is something that a person did to an incident.
type Act struct {
	Time time.Time `json:"time"`
	By   string    `json:"by,omitempty"` // "": not known
	Did  string    `json:"did"`          // such as "acknowledged it", "assigned it to ada"
}

// maxActs bounds the acts of one incident that are kept: beyond it the oldest go.
// The log of actions has all.
const maxActs = 200

// note remembers what a change has done.
func (i *Incident) note(c *Change, was *Incident) {
	did := func(format string, args ...any) {
		i.Acts = append(i.Acts, Act{c.At, c.By, fmt.Sprintf(format, args...)})
	}
	switch {
	case i.State == was.State:
	case i.State == Closed:
		did("closed it: %s", i.Reason)
	case i.State == New:
		did("made it new again")
	default:
		did("%s it", i.State)
	}
	switch {
	case i.Assignee == was.Assignee:
	case i.Assignee == "":
		did("assigned it to nobody")
	default:
		did("assigned it to %s", i.Assignee)
	}
	switch {
	case i.Mute == was.Mute:
	case i.MuteTill.IsZero():
		did("lets it page again")
	case i.MuteAll:
		did("muted it till %s, whatever comes", i.MuteTill.UTC().Format(time.RFC3339))
	default:
		did("muted it till %s, unless it escalates", i.MuteTill.UTC().Format(time.RFC3339))
	}
	for _, id := range c.Merge {
		did("took in incident %s", id)
	}
	switch len(c.Split) {
	case 0:
	case 1:
		did("split an alert off")
	default:
		did("split %d alerts off", len(c.Split))
	}
	i.bound()
}

// takeActs takes over what people did to another incident that is a part of this
// one from now on.
func (i *Incident) takeActs(other *Incident) {
	i.Acts = append(slices.Clone(i.Acts), other.Acts...)
	slices.SortStableFunc(i.Acts, func(a, b Act) int { return a.Time.Compare(b.Time) })
	i.bound()
}

func (i *Incident) bound() {
	if beyond := len(i.Acts) - maxActs; beyond > 0 {
		i.Acts = slices.Clone(i.Acts[beyond:])
	}
}
