package tuning

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
)

// maxTuples is how many exceptions that differ in values only are better than a
// wider one that leaves a field open.
const maxTuples = 8

// mine returns exceptions for alerts that are alike in all fields, and, of the
// alerts that are not, in all but those that differ most: each time the field
// with the most values is left open, until enough are alike.
func (o Options) mine(name string, samples []*sample) []Exception {
	var out []Exception
	fields, rest := allFields(samples), samples
	for count(rest) >= o.Min {
		groups := map[string][]*sample{}
		for _, s := range rest {
			key := s.key(fields)
			groups[key] = append(groups[key], s)
		}
		maps.DeleteFunc(groups, func(_ string, of []*sample) bool { return count(of) < o.Min })
		if len(groups) <= maxTuples {
			for _, key := range slices.Sorted(maps.Keys(groups)) {
				out = append(out, newException(name, groups[key][0], fields))
			}
			rest = slices.DeleteFunc(slices.Clone(rest), func(s *sample) bool { _, done := groups[s.key(fields)]; return done })
		}
		widest, ok := mostValues(rest, fields)
		if !ok {
			break
		}
		fields = slices.DeleteFunc(slices.Clone(fields), func(f string) bool { return f == widest })
	}
	return out
}

// allFields lists the fields of samples: who, then what is established, then the
// others.
func allFields(samples []*sample) []string {
	trust := map[string]Trust{}
	for _, s := range samples {
		for name, f := range s.values {
			trust[name] = f.Trust
		}
	}
	return slices.SortedFunc(maps.Keys(trust), func(a, b string) int {
		who := func(name string) int { return slices.Index([]string{"ka.impuser.name", "ka.user.name"}, name) }
		return cmp.Or(cmp.Compare(who(b), who(a)), cmp.Compare(trust[a], trust[b]), strings.Compare(a, b))
	})
}

// key is equal for alerts that have the same values in all fields.
func (s *sample) key(fields []string) string {
	var values [][]string
	for _, name := range fields {
		values = append(values, s.values[name].Values)
	}
	text, _ := json.Marshal(values) // texts have a JSON
	return string(text)
}

// mostValues returns the field with the most values, the least trusted one of
// several; ok is false if none has two.
func mostValues(samples []*sample, fields []string) (name string, ok bool) {
	most := 1
	for _, f := range fields {
		if n := values(samples, f); n > 1 && n >= most {
			name, most, ok = f, n, true
		}
	}
	return name, ok
}

func values(samples []*sample, field string) int {
	seen := map[string]bool{}
	for _, s := range samples {
		seen[s.key([]string{field})] = true
	}
	return len(seen)
}

// newException returns an exception for what is like a sample. A missing value
// cannot be asked for, so that its field is left open.
func newException(ruleName string, like *sample, fields []string) Exception {
	var x Exception
	for _, name := range fields {
		if f, ok := like.values[name]; ok {
			x.Fields = append(x.Fields, f)
		}
	}
	text, _ := json.Marshal([]any{ruleName, x.Fields})
	sum := sha256.Sum256(text)
	x.Name = "tuned_" + hex.EncodeToString(sum[:5])
	return x
}

// verify finds out what exceptions silence, and leaves out those that silence
// alerts of several actors, of too few, or none that another one does not.
func (o Options) verify(name string, candidates []Exception, samples []*sample, reasons map[string]string) ([]Exception, error) {
	slices.SortFunc(candidates, func(a, b Exception) int { return strings.Compare(a.Name, b.Name) })
	candidates = slices.CompactFunc(candidates, func(a, b Exception) bool { return a.Name == b.Name })
	candidates = slices.DeleteFunc(candidates, func(x Exception) bool { return len(x.Fields) == 0 })
	if len(candidates) == 0 {
		return nil, nil
	}
	silenced, err := o.silenced(candidates, samples)
	if err != nil {
		return nil, err
	}
	var out []Exception
	for i, x := range candidates {
		x.describe(silenced[i], samples)
		if len(x.Actors) > 1 && !o.Across {
			for _, who := range x.Actors {
				reasons[who] = "an exception would silence " + strings.Join(x.Actors, ", ")
			}
			continue
		}
		if x.Count >= o.Min {
			out = append(out, x)
		}
	}
	// The widest first, so that what it silences needs no other one.
	slices.SortStableFunc(out, func(a, b Exception) int { return cmp.Compare(len(b.Alerts), len(a.Alerts)) })
	var kept []Exception
	for _, x := range out {
		if !slices.ContainsFunc(kept, func(k Exception) bool { return within(x.Alerts, k.Alerts) }) {
			kept = append(kept, x)
		}
	}
	slices.SortStableFunc(kept, func(a, b Exception) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Name, b.Name))
	})
	return kept, nil
}

func within(some, all []*alert.Alert) bool {
	in := map[*alert.Alert]bool{}
	for _, a := range all {
		in[a] = true
	}
	return !slices.ContainsFunc(some, func(a *alert.Alert) bool { return !in[a] })
}

// describe says what the alerts are that an exception silences.
func (x *Exception) describe(silenced, all []*sample) {
	actors, hours := map[string]bool{}, map[time.Time]bool{}
	for _, s := range silenced {
		x.Alerts = append(x.Alerts, s.Alert)
		x.Count += s.count()
		x.Repeats += s.count() - 1
		actors[s.actor.String()] = true
		hours[s.Time.Truncate(time.Hour)] = true
		if x.First.IsZero() || s.Time.Before(x.First) {
			x.First = s.Time
		}
		if s.Time.After(x.Last) {
			x.Last = s.Time
		}
	}
	x.Hours, x.Actors = len(hours), slices.Sorted(maps.Keys(actors))
	for _, name := range allFields(all) {
		if !slices.ContainsFunc(x.Fields, func(f Field) bool { return f.Name == name }) {
			x.Open = append(x.Open, Open{name, values(silenced, name)})
		}
	}
}

// silenced evaluates each exception, as one of a rule that alerts on everything,
// over what the alerts say.
func (o Options) silenced(candidates []Exception, samples []*sample) ([][]*sample, error) {
	probes, index := "", map[string]int{}
	for i, x := range candidates {
		index[x.Name] = i
		probes += "- rule: " + x.Name + "\n  desc: probe\n  source: k8s_audit\n  condition: evt.num exists\n  output: probe\n  priority: DEBUG\n" +
			"  exceptions:\n" + x.yaml()
	}
	opts := rule.Options{Select: []rule.Selection{{Rule: "*"}, {Rule: "tuned_*", On: true}}}
	set, results := opts.Load(append(slices.Clone(o.Rules), rule.File{Name: "exceptions", Data: []byte(probes)})...)
	if set == nil {
		return nil, rule.Mistakes(results)
	}
	out := make([][]*sample, len(candidates))
	for _, s := range samples {
		loud := make([]bool, len(candidates))
		for _, a := range set.Match(&event.Event{Source: event.K8sAudit, ID: s.ID, Time: s.Time, Record: record{s}}, rule.All) {
			loud[index[a.Rule]] = true
		}
		for i := range out {
			if !loud[i] {
				out[i] = append(out[i], s)
			}
		}
	}
	return out, nil
}
