package incident

import (
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
)

// A Mute keeps an incident from paging for a time: as far as the person knew it
// who has muted it, or whatever comes.
type Mute struct {
	MuteTill  time.Time `json:"muteTill,omitzero"`
	MuteAll   bool      `json:"muteAll,omitempty"`   // also when it escalates
	MuteLevel int       `json:"muteLevel,omitempty"` // its level then, above which it pages; 0: not known, so that it does not
}

// Muted reports whether the incident pages nobody at a time though it would.
func (i *Incident) Muted(now time.Time) bool {
	return now.Before(i.MuteTill) && (i.MuteAll || i.MuteLevel == 0 || i.Level() <= i.MuteLevel)
}

// Level says how far an incident has come: it rises with a more urgent alert than
// all before, and with each tactic of ATT&CK that an alert warns of for the first
// time. It is at least 1, and falls only when alerts are split off.
func (i *Incident) Level() int {
	return 1 + int(alert.Debug-i.Worst)*(len(killChain)+1) + min(i.warned(), len(killChain))
}

// warned returns how many tactics were warned of.
func (i *Incident) warned() int {
	tactics := map[string]bool{}
	for _, s := range i.Signals {
		if s.Priority > alert.Warning {
			continue
		}
		for _, t := range s.Tactics {
			tactics[t] = true
		}
	}
	return len(tactics)
}
