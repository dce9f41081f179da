package enforce

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
	"github.com/kubeguardian/kubeguardian/sensor"
	"github.com/kubeguardian/kubeguardian/sensor/record"
	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// see notes the container of a control group, and has guards made when it is new
// or when more is known of it.
func (e *Enforcer) see(number uint64, c *syscall.Container) {
	if c.OnHost() || number <= 1 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	before := e.groups[number]
	if before != nil && (before.container.Known || !c.Known) || before == nil && len(e.groups) >= maxGroups {
		return
	}
	e.groups[number] = &group{container: c}
	e.changed = true
	if c.Known {
		e.reguard()
	}
}

// A group is a control group of a container, and the guards that are about it.
type group struct {
	container *syscall.Container
	guards    []sensor.Guard
	made      bool // the guards are
}

// look lists the control groups of containers, so that guards are there before
// anything happens in them, and forgets those that are gone.
func (e *Enforcer) look(now time.Time) {
	found, err := cgroups(e.path(e.hierarchy.Records))
	own := containerOf(found, int(e.self))
	e.keepRoots(found)
	known := map[uint64]*group{}
	for _, f := range found {
		c := &syscall.Container{ID: f.container}
		if details := e.o.Containers(f.container); details != nil {
			c.Known, c.Details = true, *details
		}
		known[f.number] = &group{container: c}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.looked, e.changed = now, false
	if err != nil {
		e.failure = err
		return
	}
	if e.own == "" && own != "" {
		e.own = own
		for _, g := range e.groups {
			g.made = false
		}
	}
	for number, g := range known {
		if before := e.groups[number]; before != nil && before.container.Known {
			known[number] = before
		} else if !g.container.Known {
			e.changed = true // asked again soon
		}
	}
	e.groups = known
	e.reguard()
}

// hurry has the agent woken at once for events that something may be done about.
// The lock is held.
func (e *Enforcer) hurry() {
	if e.o.Kernel == nil {
		return
	}
	urgent := map[string]bool{}
	for name := range e.orders {
		for _, typ := range e.loaded(slices.Clone(e.types[name])...) {
			urgent[typ] = true
		}
	}
	if slices.ContainsFunc(e.o.Drift, Drift.acts) {
		for _, typ := range e.loaded(DriftTypes()...) {
			urgent[typ] = true
		}
	}
	if err := e.o.Kernel.SetUrgent(slices.Sorted(maps.Keys(urgent))); err != nil {
		e.o.Log.Warn("actions of the agent come late", "error", err)
	}
}

// usual is a pod as most are.
var usual = &syscall.Container{
	ID: strings.Repeat("0", 64), Known: true, Details: syscall.Details{Name: "c", Repository: "r", Pod: &syscall.Pod{Namespace: "n", Name: "p"}},
}

// reguard gives the kernel the guards that follow from rules and containers. The
// lock is held.
func (e *Enforcer) reguard() {
	if e.rules == nil || e.o.Kernel == nil {
		return
	}
	set := guardSet{}
	for number, g := range e.groups {
		if c := g.container; !g.made && c.Known {
			g.guards, g.made = nil, true
			if e.own != c.ID && e.refuseContainer(c) == "" {
				g.guards = e.guardsOf(number, c)
			}
		}
		set.add(g.guards)
	}
	guards := set.list()
	if err := e.o.Kernel.SetGuards(guards); err != nil {
		e.failure, e.guards = err, 0
		e.o.Log.Error("the kernel does not enforce", "error", err)
		return
	}
	e.failure, e.guards = nil, len(guards)
}

// guardsOf returns the guards of a container.
func (e *Enforcer) guardsOf(number uint64, c *syscall.Container) []sensor.Guard {
	var guards []sensor.Guard
	for _, name := range slices.Sorted(maps.Keys(e.orders)) {
		for _, o := range e.orders[name] {
			if o.Action != Kill {
				continue
			}
			some, all := e.guardsOfRule(name, e.types[name], number, c)
			e.noteWay(name, len(some) > 0, all)
			if covered, _ := o.covers(c); !covered {
				continue
			}
			for _, g := range some {
				g.Action = sensor.Kill
				if o.DryRun {
					g.Action = sensor.DryRun
				}
				guards = append(guards, g)
			}
		}
	}
	if i := e.mode(c); i >= 0 && e.o.Drift[i].acts() && len(e.o.Drift[i].Except) == 0 {
		for _, typ := range e.loaded("execve", "execveat") {
			guards = append(guards, sensor.Guard{Cgroup: number, Type: typ, Executables: record.ExeAdded, Action: e.o.Drift[i].action()})
		}
	}
	return guards
}

// action returns what the kernel does in a mode that acts.
func (d Drift) action() sensor.Action {
	switch {
	case d.DryRun:
		return sensor.DryRun
	case d.Mode == Deny:
		return sensor.Deny
	}
	return sensor.Kill
}

func (e *Enforcer) noteWay(name string, some, all bool) {
	way := agentsWay
	switch {
	case all && some:
		way = kernelsWay
	case some:
		way = mixedWay
	}
	if before, ok := e.ways[name]; ok && before != way {
		way = mixedWay
	}
	e.ways[name] = way
}

func (e *Enforcer) loaded(types ...string) []string {
	return slices.DeleteFunc(types, func(t string) bool { return !slices.Contains(e.o.Types, t) })
}

// typesOfRules returns the types of events that each rule is about.
func typesOfRules(set *rule.Set) map[string][]string {
	types := map[string][]string{}
	for typ, names := range set.Needs().Rules {
		for _, name := range names {
			types[name] = append(types[name], typ)
		}
	}
	for _, of := range types {
		slices.Sort(of)
	}
	return types
}

// Types of events that no guard can be about.
var unguarded = []string{"clone", "clone3", "fork", "vfork", "procexit"}

// guardsOfRule returns the guards that kill nothing but what a rule matches, and
// whether they cover each type of event that it is about.
func (e *Enforcer) guardsOfRule(name string, types []string, number uint64, c *syscall.Container) (guards []sensor.Guard, all bool) {
	all = true
	for _, typ := range types {
		if slices.Contains(unguarded, typ) || !slices.Contains(e.o.Types, typ) {
			all = false
			continue
		}
		executables, ok := e.executables(name, typ, c)
		if !ok {
			all = false
			continue
		}
		guards = append(guards, sensor.Guard{Cgroup: number, Type: typ, Executables: executables})
	}
	return guards, all
}

// executables returns which executables the kernel has to look for, 0 for any, so
// that a rule is certain to match. Of other calls than execve there are none to
// look for.
func (e *Enforcer) executables(name, typ string, c *syscall.Container) (mask uint32, ok bool) {
	if e.certain(name, typ, c, nil) {
		return 0, true
	}
	if typ != "execve" && typ != "execveat" {
		return 0, false
	}
	for bit, exe := range map[uint32]syscall.Executable{
		record.ExeUpper: {Upper: true}, record.ExeMemFD: {Memory: true}, record.ExeOnTmpFS: {},
	} {
		if e.certain(name, typ, c, &exe) {
			mask |= bit
		}
	}
	return mask, mask != 0
}

// certain reports whether a rule matches each call of a type, by a container and
// with an executable, that succeeds.
func (e *Enforcer) certain(name, typ string, c *syscall.Container, exe *syscall.Executable) bool {
	call := &syscall.Event{Type: syscall.TypeOf(typ), Called: true, Container: c, Process: (&syscall.Process{Exe: exe}).Ready()}
	return e.rules.Certain(name, &event.Event{Source: event.Syscall, Record: call}, func(field string) bool {
		switch field {
		case "evt.type", "syscall.type", "evt.failed", "evt.res":
			return true
		case "evt.rawres": // others return numbers that are not known before
			return typ == "execve" || typ == "execveat"
		case "proc.is_exe_upper_layer", "proc.is_exe_lower_layer", "proc.is_exe_from_memfd":
			return exe != nil
		case "container.start_ts", "container.duration":
			return false
		}
		return strings.HasPrefix(field, "container.") || strings.HasPrefix(field, "k8s.")
	})
}

// A guardSet joins guards: the kernel has one for each control group and type.
type guardSet map[guardKey]guardValue

type guardKey struct {
	cgroup uint64
	typ    string
}

type guardValue [sensor.Deny + 1]*uint32 // executables, by action

func (s guardSet) add(guards []sensor.Guard) {
	for _, g := range guards {
		k := guardKey{g.Cgroup, g.Type}
		v := s[k]
		v[g.Action] = widen(v[g.Action], g.Executables)
		s[k] = v
	}
}

// widen joins masks, in which 0 stands for every executable.
func widen(have *uint32, more uint32) *uint32 {
	if have != nil {
		if *have == 0 || more == 0 {
			more = 0
		} else {
			more |= *have
		}
	}
	return &more
}

// list returns the guards. Where one kills or denies and one is a dry run, the
// kernel does; the agent says what else would have been. Where one kills and one
// denies, it kills.
func (s guardSet) list() []sensor.Guard {
	var guards []sensor.Guard
	for k, v := range s {
		g := sensor.Guard{Cgroup: k.cgroup, Type: k.typ, Action: sensor.Kill}
		kill, deny := v[sensor.Kill], v[sensor.Deny]
		switch {
		case kill != nil && deny != nil:
			g.Executables = *widen(kill, *deny)
		case kill != nil:
			g.Executables = *kill
		case deny != nil:
			g.Action, g.Executables = sensor.Deny, *deny
		default:
			g.Action, g.Executables = sensor.DryRun, *v[sensor.DryRun]
		}
		guards = append(guards, g)
	}
	return guards
}

// A Status is what an enforcer does now.
type Status struct {
	Ways    map[string]string // by rule that kills: kernel, agent, or kernel and agent
	Guards  int               // in the kernel
	Blocked []string          // containers that are kept from the network, by id
	Kills   uint64            // by the kernel, of which a record was seen
	Denials uint64            // the same
	Counts  map[[2]string]uint64
	Errors  []error
}

// Status returns what it does now; the counts are by action and outcome.
func (e *Enforcer) Status() Status {
	s := Status{}
	var failed error
	s.Counts, failed = e.audit.state()
	e.mu.Lock()
	defer e.mu.Unlock()
	s.Ways, s.Guards, s.Kills, s.Denials = maps.Clone(e.ways), e.guards, e.kills, e.denials
	s.Blocked = slices.Sorted(maps.Keys(e.blocked))
	for _, name := range e.lacks {
		s.Errors = append(s.Errors, fmt.Errorf("enforcement: the agent lacks %s", name))
	}
	if e.cannotDeny != nil {
		s.Errors = append(s.Errors, e.lacksDenial())
	}
	for _, entry := range e.idle {
		s.Errors = append(s.Errors, fmt.Errorf("enforcement: %s is about no rule that can raise an alert", entry))
	}
	for _, err := range []error{failed, e.failure} {
		if err != nil {
			s.Errors = append(s.Errors, fmt.Errorf("enforcement: %w", err))
		}
	}
	return s
}

// String tells which way each rule that kills is enforced.
func (s Status) String() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(s.Ways)) {
		fmt.Fprintf(&b, "%s: %s; ", name, s.Ways[name])
	}
	return strings.TrimSuffix(b.String(), "; ")
}
