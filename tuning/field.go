package tuning

import (
	"slices"
	"strings"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/event"
)

// A Trust says who decides what value a field has.
type Trust uint8

// From what the API server has found out to what anybody can send.
const (
	Established Trust = iota // the API server has found it out, or allowed just that
	Written                  // whoever makes the request writes it into the object or its name
	Free                     // the client sends what it likes
)

// String says so.
func (t Trust) String() string {
	switch t {
	case Established:
		return "established by the API server"
	case Written:
		return "whoever makes the request writes it"
	}
	return "the client chooses it freely"
}

// trustOf returns who decides what value a field has; usable is false for fields
// that differ between any two requests or are of no use in an exception.
func trustOf(name string, list bool) (trust Trust, usable bool) {
	base, ok := baseOf(name, list)
	if !ok {
		return 0, false
	}
	switch {
	case strings.HasPrefix(base, "evt."), strings.HasPrefix(base, "kg.token."), slices.Contains([]string{
		"ka.auditid", "kg.owner.auditid", "jevt.time", "jevt.time.iso8601", "jevt.rawtime", "jevt.obj",
	}, base):
		return 0, false
	case slices.Contains([]string{
		"ka.user.name", "ka.user.groups", "ka.impuser.name", "ka.verb", "ka.sourceips", "ka.auth.decision", "ka.auth.reason",
		"ka.target.resource", "ka.target.subresource", "ka.target.namespace", "ka.response.code", "ka.stage",
		"kg.user.class", "kg.user.namespace", "kg.owner.kind", "kg.owner.name", "kg.owner.writer", "kg.role.powers",
	}, base):
		return Established, true
	case base == "ka.target.name", base == "ka.resp.name", strings.HasPrefix(base, "ka.req."), strings.HasPrefix(base, "kg.pod."):
		return Written, true
	}
	return Free, true
}

// baseOf returns the name of a field without its argument; ok is false if an
// exception cannot have the field, or not with such a value.
func baseOf(name string, list bool) (base string, ok bool) {
	base, arg, given := strings.Cut(name, "[")
	f, known := event.Lookup(event.K8sAudit, base)
	if !known || f.Type != event.TypeString && !list || list && (f.Type != event.TypeList || given) {
		return "", false
	}
	var argument *string
	if given {
		arg, ok = strings.CutSuffix(arg, "]")
		if !ok || arg == "" || strings.ContainsFunc(arg, func(r rune) bool {
			return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("/._-~:", r))
		}) {
			return "", false
		}
		argument = &arg
	}
	ref, err := event.Resolve(f, argument)
	return base, err == nil && ref.Text == name
}

// An actor is who made a request; for a controller, that does what others have
// written, also who that is, if the output of the rule says so.
type actor struct{ user, impersonated, behind string }

// String names the actor.
func (a actor) String() string {
	switch {
	case a.user == "":
		return "nobody known"
	case a.impersonated != "":
		return a.user + " as " + a.impersonated
	case a.behind != "":
		return a.user + " for " + a.behind
	}
	return a.user
}

// isController reports whether a user does what others have written into objects.
func isController(user string) bool {
	name, own := strings.CutPrefix(user, "system:serviceaccount:kube-system:")
	return own && (strings.HasSuffix(name, "-controller") || strings.HasSuffix(name, "-collector")) ||
		user == "system:kube-controller-manager" || user == "system:kube-scheduler" || user == "system:apiserver"
}

// refused says why nothing of an actor is silenced; it is empty if it may be.
func (a actor) refused() string {
	switch {
	case a.user == "" || a.user == "system:anonymous" || a.impersonated == "system:anonymous":
		return "anybody may be that"
	case isController(a.user) && a.behind == "":
		return "it does what others have written, and whose doing this is is not said (kg.owner.writer)"
	}
	return ""
}

func newSample(a *alert.Alert) *sample {
	s := &sample{Alert: a, values: map[string]Field{}}
	s.actor.user, _ = a.OutputFields["ka.user.name"].(string)
	s.actor.impersonated, _ = a.OutputFields["ka.impuser.name"].(string)
	if isController(s.actor.user) {
		s.actor.behind, _ = a.OutputFields["kg.owner.writer"].(string)
	}
	for name, v := range a.OutputFields {
		f := Field{Name: name}
		switch v := v.(type) {
		case string:
			f.Values = []string{v}
		case []string:
			f.Values, f.List = v, true
		case []any:
			f.List = true
			for _, item := range v {
				if text, ok := item.(string); ok {
					f.Values = append(f.Values, text)
				}
			}
		}
		trust, usable := trustOf(name, f.List)
		if f.Trust = trust; !usable || len(f.Values) == 0 || len(f.Values) > maxValues || slices.ContainsFunc(f.Values, func(s string) bool { return !writable(s) }) {
			continue
		}
		if f.List {
			f.Values = slices.Compact(slices.Sorted(slices.Values(f.Values)))
		}
		s.values[name] = f
	}
	return s
}

// Limits of what stands in an exception.
const (
	maxValues = 16
	maxLength = 200
)

// writable reports whether a value can stand in an exception: long ones never
// come again, and Falco's texts cannot hold all characters.
func writable(s string) bool {
	return s != "" && len(s) <= maxLength && !strings.ContainsFunc(s, func(r rune) bool {
		return r < ' ' || r == 0x7f || r == '\\' || r == '"' || r == '\'' || r == 0xfffd
	})
}

// A record is an alert, asked for the fields that are in its output.
type record struct{ *sample }

// Value returns the value of a field.
func (r record) Value(ref event.Ref) event.Value {
	switch v := r.OutputFields[ref.Text].(type) {
	case string:
		return event.Text(v)
	case []string:
		return event.List(v)
	case []any:
		var items []string
		for _, item := range v {
			text, _ := item.(string)
			items = append(items, text)
		}
		return event.List(items)
	}
	return event.Value{}
}

// Subject is of no account here.
func (record) Subject() event.Subject { return event.Subject{} }
