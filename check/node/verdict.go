package node

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
)

// most is how many things a message or evidence lists.
const most = 8

// A verdict collects what is wrong with a node in one respect, what could not
// be seen, and what was. One wrong thing decides; else one unseen thing leaves
// it open. A verdict that saw nothing does not apply.
type verdict struct {
	wrong, unseen, seen []string
	absent              []string // what the node does not have
}

func (v *verdict) fail(format string, args ...any) {
	v.wrong = append(v.wrong, fmt.Sprintf(format, args...))
}

func (v *verdict) unknown(format string, args ...any) {
	v.unseen = once(v.unseen, fmt.Sprintf(format, args...))
}

func (v *verdict) see(format string, args ...any) {
	v.seen = once(v.seen, fmt.Sprintf(format, args...))
}

func once(parts []string, part string) []string {
	if slices.Contains(parts, part) {
		return parts
	}
	return append(parts, part)
}

func (v *verdict) finding() finding.Verdict {
	f := finding.Verdict{Evidence: list(v.seen)}
	switch {
	case len(v.wrong) > 0:
		f.Status, f.Message = finding.Fail, list(v.wrong)
	case len(v.unseen) > 0:
		f.Status, f.Reason = finding.Unknown, list(v.unseen)
	case len(v.seen) > 0:
		f.Status = finding.Pass
	default:
		f.Status = finding.NotApplicable
		f.Reason = "the node has " + cmp.Or(list(v.absent), "nothing to judge")
	}
	return f
}

func list(parts []string) string {
	if more := len(parts) - most; more > 0 {
		parts = append(slices.Clone(parts[:most]), fmt.Sprintf("and %d more", more))
	}
	return strings.Join(parts, "; ")
}

// program returns a program of a node, or nil, and notes flags of it as seen.
func (v *verdict) program(m *member, name string, flags ...string) *evidence.Program {
	p := m.programs[name]
	if p == nil {
		if gap := m.gap(evidence.PartPrograms); gap != "" {
			v.unknown("%s is not seen: %s", name, gap)
		} else {
			v.absent = append(v.absent, "no "+name)
		}
		return nil
	}
	given := []string{}
	for _, flag := range flags {
		if len(p.Flags[flag]) > 0 {
			given = append(given, "--"+flag+"="+strings.Join(p.Flags[flag], ","))
		}
	}
	if len(given) == 0 && len(flags) > 0 {
		given = append(given, "none of --"+strings.Join(flags, ", --"))
	}
	v.see("%s", strings.TrimSuffix(fmt.Sprintf("%s (%s): %s", name, p.Source, strings.Join(given, " ")), ": "))
	return p
}

// unread notes that a file which decides could not be read, if so.
func (v *verdict) unread(p *evidence.Program, flag string) bool {
	why := p.Unread[flag]
	if why != "" {
		v.unknown("--%s %s of %s is not read: %s", flag, p.Flags.Value(flag), p.Name, why)
	}
	return why != ""
}

// want fails if any of some flags is not given.
func (v *verdict) want(p *evidence.Program, flags ...string) {
	missing := slices.DeleteFunc(slices.Clone(flags), p.Flags.Has)
	if len(missing) > 0 {
		v.fail("%s runs without --%s", p.Name, strings.Join(missing, ", --"))
	}
}
