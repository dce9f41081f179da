package finding

import (
	"cmp"
	"slices"
	"time"
)

// Enforced says what a binding or constraint does about violations of a policy.
type Enforced struct {
	Policy      string `json:"policy"`
	Binding     string `json:"binding,omitempty"`
	Enforcement string `json:"enforcement"` // deny, warn, dryrun or audit
}

// Readiness says what a policy that only warns or notes would have denied: what
// would stop for whom if it were to deny. Nothing at all for some time means that
// it can.
type Readiness struct {
	Enforced
	Requests int            `json:"requests"` // that it would have denied
	Last     time.Time      `json:"last,omitzero"`
	Users    []UserRequests `json:"users"`   // who made most of them, at most [ReadinessUsers]
	Samples  []Held         `json:"samples"` // the newest of their kind, at most [ReadinessSamples]
}

// The sizes of the lists in a [Readiness].
const (
	ReadinessUsers   = 10
	ReadinessSamples = 5
)

// UserRequests says how many requests a user made.
type UserRequests struct {
	User     string `json:"user"` // "" for those beyond what is counted apart
	Requests int    `json:"requests"`
}

// A Held request was let pass with a violation held against it.
type Held struct {
	Time      time.Time `json:"time"`
	Operation string    `json:"operation"`
	User      string    `json:"user"`
	Subject   Subject   `json:"subject"`
	Message   string    `json:"message"`
}

// Held returns the violations of a request that passed in spite of them, the
// strongest of each binding. A dry run held nothing: it would not have come to be.
func (d *Decision) Held() []Violation {
	if d.DryRun {
		return nil
	}
	type place struct{ policy, binding string }
	strongest := map[place]int{}
	var out []Violation
	for _, v := range d.Violations {
		at := place{v.Policy, v.Binding}
		i, ok := strongest[at]
		switch {
		case !ok:
			strongest[at] = len(out)
			out = append(out, v)
		case Strength(v.Enforcement) > Strength(out[i].Enforcement):
			out[i] = v
		}
	}
	held := out[:0]
	for _, v := range out {
		if v.Enforcement != "deny" {
			held = append(held, v)
		}
	}
	return held
}

// Strength orders enforcement actions: what denies is above what warns, and that
// above what is only noted.
func Strength(enforcement string) int {
	switch enforcement {
	case "deny":
		return 2
	case "warn":
		return 1
	}
	return 0
}

// InForce joins what was held with the policies that are in force: those that do
// not deny are listed, also without a request, with the enforcement of now; those
// that deny or are gone are not.
func InForce(held []Readiness, enforced []Enforced) []Readiness {
	known := map[[2]string]Readiness{}
	for _, r := range held {
		known[[2]string{r.Policy, r.Binding}] = r
	}
	strongest := map[[2]string]Enforced{}
	for _, e := range enforced {
		at := [2]string{e.Policy, e.Binding}
		if before, ok := strongest[at]; !ok || Strength(e.Enforcement) > Strength(before.Enforcement) {
			strongest[at] = e
		}
	}
	out := []Readiness{}
	for at, e := range strongest {
		if e.Enforcement == "deny" {
			continue
		}
		r, ok := known[at]
		if !ok {
			r = Readiness{Users: []UserRequests{}, Samples: []Held{}}
		}
		r.Enforced = e
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b Readiness) int {
		return cmp.Or(cmp.Compare(b.Requests, a.Requests), cmp.Compare(a.Policy, b.Policy), cmp.Compare(a.Binding, b.Binding))
	})
	return out
}
