package sensor

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/kubeguardian/kubeguardian/sensor/record"
)

// A Feature is one thing that the sensor asks of the kernel.
type Feature struct {
	Name  string   // such as exec
	Using string   // how it is done here; empty if it is not
	Err   error    // why not; wraps the error number of the refusal
	Types []string // the wanted types of events that depend on it
}

// Features says what the wanted types of events need and how it is done on this
// kernel. Types that the sensor has no program for are under the name "types".
func (s *Sensor) Features() []Feature {
	s.types.Lock()
	defer s.types.Unlock()
	return slices.Clone(s.features)
}

// Missing returns the wanted types of events that are not covered, each with the
// reason.
func (s *Sensor) Missing() map[string]error {
	missing := map[string]error{}
	for _, f := range s.Features() {
		for _, name := range f.Types {
			if f.Err != nil {
				missing[name] = fmt.Errorf("%s: %w", f.Name, f.Err)
			}
		}
	}
	return missing
}

// A part is a program and the types of events that it makes.
type part struct {
	feature string
	program string
	types   []string
	calls   []call // of programs that the table of calls leads to
}

// dispatcher is the program that looks up what to do with a call.
const dispatcher = "call_exit"

func (s *Sensor) load() error {
	spec, err := loadKernel()
	if err != nil {
		return fmt.Errorf("read programs: %w", err)
	}
	_ = rlimit.RemoveMemlock() // older kernels count maps against this limit; they say so when it is in the way
	parts, unknown, err := s.parts()
	if err != nil {
		return err
	}
	if err := s.configure(spec); err != nil {
		return err
	}
	if err := s.createMaps(spec); err != nil {
		return err
	}
	// Nothing is attached before everything is loaded, which takes seconds on a
	// busy machine: events would fill the buffers, which nobody reads yet.
	cache := btf.NewCache()
	var features []Feature
	for _, p := range parts {
		features = append(features, Feature{Name: p.feature, Types: p.types, Err: s.prepare(spec, cache, p)})
	}
	if s.config.Enforce {
		s.loadEgress(spec, cache)
	}
	if s.denies() {
		s.loadDeny(spec, cache)
	}
	calls, err := s.prepareCalls(spec, cache)
	if err != nil {
		return err
	}
	working := 0
	for i, p := range parts {
		f := &features[i]
		if f.Err == nil {
			f.Err = s.attachPart(p)
		}
		if f.Err == nil {
			f.Using = "tp_btf"
			working++
		}
	}
	s.features = append(features, s.features...)
	s.addUnknown(unknown)
	if len(parts) > 0 && working == 0 {
		return fmt.Errorf("%s: %w", s.features[0].Name, s.features[0].Err)
	}
	if !calls {
		return nil
	}
	return s.attach(dispatcher)
}

// parts returns what the wanted types need, and the types that nothing makes.
func (s *Sensor) parts() (parts []part, unknown []string, err error) {
	calls, err := newCalls(runtime.GOARCH)
	if err != nil {
		return nil, nil, err
	}
	add := func(feature, program, name string, c *call) {
		i := slices.IndexFunc(parts, func(p part) bool { return p.program == program })
		if i < 0 {
			i = len(parts)
			parts = append(parts, part{feature: feature, program: program})
		}
		if !slices.Contains(parts[i].types, name) {
			parts[i].types = append(parts[i].types, name)
		}
		if c != nil {
			parts[i].calls = append(parts[i].calls, *c)
		}
	}
	for _, name := range slices.Compact(slices.Sorted(slices.Values(s.config.Types))) {
		found := false
		switch name {
		case "clone", "clone3", "fork", "vfork":
			add("fork", "process_fork", name, nil)
			found = true
		case "procexit":
			add("exit", "process_exit", name, nil)
			found = true
		case "execve", "execveat":
			add("exec", "process_exec", name, nil)
		}
		for i := range calls {
			if calls[i].kind.String() == name {
				add(strings.Replace(calls[i].program, "_", ".", 1), calls[i].program, name, &calls[i])
				found = true
			}
		}
		if !found && existsElsewhere(name) {
			found = true // a call that this architecture does not have is never made
		}
		if !found {
			unknown = append(unknown, name)
		}
	}
	return parts, unknown, nil
}

func existsElsewhere(name string) bool {
	_, ok := record.TypeOf(name)
	return ok
}

func (s *Sensor) configure(spec *ebpf.CollectionSpec) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("count CPUs: %w", err)
	}
	spec.Maps["scratch"].MaxEntries = uint32(cpus)
	if !s.denies() {
		spec.Maps["denials"].MaxEntries = 1
	}
	if !s.config.Enforce {
		spec.Maps["roots"].MaxEntries = 1
	}
	values := map[string]any{
		"partitions": uint32(s.config.Partitions), "watermark": uint32(s.config.Watermark),
		"with_environment": s.config.Environment, "with_enforcement": s.config.Enforce, "with_denials": s.denies(), "own_process": uint32(os.Getpid()),
		"node_mounts": s.config.Node.Mounts, "node_root_device": s.config.Node.RootDevice, "node_root_inode": s.config.Node.RootInode,
		"nr_fork": numberOf("fork"), "nr_vfork": numberOf("vfork"), "nr_clone": numberOf("clone"),
		"nr_clone3": numberOf("clone3"), "nr_execveat": numberOf("execveat"),
	}
	if values["process_namespace"], err = processNamespace(); err != nil {
		return err
	}
	controller, id, err := cgroupController()
	if err != nil {
		return err
	}
	var name [8]byte
	values["cgroup_controller"], values["cgroup_name_size"] = id, uint32(copy(name[:], controller))
	values["cgroup_name"] = name
	for name, value := range values {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}

// cgroupController returns the controller whose hierarchy says which container a
// process is in, with the kernel's number of it: none, and -1, where the unified
// hierarchy does.
func cgroupController() (string, int32, error) {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", 0, fmt.Errorf("find hierarchy of cgroups: %w", err)
	}
	for _, name := range []string{"memory", "pids"} {
		if !ownHierarchy(string(data), name) {
			continue
		}
		kernel, err := btf.LoadKernelSpec()
		if err != nil {
			return "", 0, fmt.Errorf("read the kernel's types: %w", err)
		}
		var ids *btf.Enum
		if err := kernel.TypeByName("cgroup_subsys_id", &ids); err != nil {
			return "", 0, fmt.Errorf("find controller %s: %w", name, err)
		}
		for _, v := range ids.Values {
			if v.Name == name+"_cgrp_id" {
				return name, int32(v.Value), nil
			}
		}
	}
	return "", -1, nil
}

// ownHierarchy reports whether a controller has a hierarchy besides the unified
// one, by the lines of /proc/self/cgroup.
func ownHierarchy(lines, controller string) bool {
	for line := range strings.Lines(lines) {
		if parts := strings.SplitN(line, ":", 3); len(parts) == 3 && slices.Contains(strings.Split(parts[1], ","), controller) {
			return true
		}
	}
	return false
}

func (s *Sensor) createMaps(spec *ebpf.CollectionSpec) error {
	only := spec.Copy()
	clear(only.Programs)
	var err error
	if s.collection, err = ebpf.NewCollection(only); err != nil {
		return fmt.Errorf("create maps: %w", err)
	}
	s.onClose = append(s.onClose, s.collection.Close)
	s.maps = s.collection.Maps
	for i := range 2 * s.config.Partitions {
		size := s.config.BufferSize
		if i >= s.config.Partitions {
			size = s.config.LifecycleSize
		}
		r, err := newRing(uint32(size))
		if err != nil {
			return err
		}
		s.onClose = append(s.onClose, r.close)
		s.rings = append(s.rings, r)
		if err := s.maps["rings"].Put(uint32(i), r.m); err != nil {
			return fmt.Errorf("register ring buffer: %w", err)
		}
	}
	return s.SetFilters(s.config.Filters)
}

// program loads one program. Each is loaded on its own, so that the refusal of
// one costs no other.
func (s *Sensor) program(spec *ebpf.CollectionSpec, cache *btf.Cache, name string) (*ebpf.Program, error) {
	one := spec.Copy()
	for other := range one.Programs {
		if other != name {
			delete(one.Programs, other)
		}
	}
	c, err := ebpf.NewCollectionWithOptions(one, ebpf.CollectionOptions{MapReplacements: s.maps, Cache: cache})
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", name, errors.Join(ErrNotSupported, err))
	}
	p := c.DetachProgram(name)
	c.Close()
	s.programs[name] = p
	s.onClose = append(s.onClose, func() { p.Close() })
	return p, nil
}

// prepare loads what a part needs.
func (s *Sensor) prepare(spec *ebpf.CollectionSpec, cache *btf.Cache, p part) error {
	if s.programs[p.program] == nil {
		if _, err := s.program(spec, cache, p.program); err != nil {
			return err
		}
	}
	for _, c := range p.calls {
		if err := s.maps["calls"].Put(c.number, c.spec); err != nil {
			return fmt.Errorf("describe call %s: %w", c.kind, err)
		}
		s.calls = append(s.calls, c)
		if err := s.setCall(c, true); err != nil {
			return err
		}
	}
	return nil
}

// attachPart starts a part. The calls wait for the dispatcher.
func (s *Sensor) attachPart(p part) error {
	if len(p.calls) > 0 {
		return nil
	}
	return s.attach(p.program)
}

// prepareCalls loads the dispatcher if a call leads anywhere, and reports whether
// one does.
func (s *Sensor) prepareCalls(spec *ebpf.CollectionSpec, cache *btf.Cache) (bool, error) {
	for name := range s.programs {
		if strings.HasPrefix(name, "call_") {
			_, err := s.program(spec, cache, dispatcher)
			return true, err
		}
	}
	return false, nil
}
