package sensor

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/kubeguardian/kubeguardian/sensor/record"
)

// SetTypes says of which types calls are wanted from now on, of those that the
// sensor was loaded for; of others the kernel makes no more records, which costs
// next to nothing. Begin, programs and end of processes are always shown.
func (s *Sensor) SetTypes(types []string) error {
	s.types.Lock()
	defer s.types.Unlock()
	for _, c := range s.calls {
		if err := s.setCall(c, slices.Contains(types, c.kind.String())); err != nil {
			return err
		}
	}
	return nil
}

// SetUrgent says for which types of events the reader is woken at once, in place
// of after some that wait or [Config.Flush]. It replaces what was said before.
func (s *Sensor) SetUrgent(types []string) error {
	var words [len(s.seen) / 64]uint64
	for _, name := range types {
		t, ok := record.TypeOf(name)
		if !ok || int(t) >= len(s.seen) {
			return fmt.Errorf("set urgent types: there is no type %q", name)
		}
		words[t/64] |= 1 << (t % 64)
	}
	return s.variables(map[string]any{"urgent_types": words})
}

func (s *Sensor) setCall(c call, wanted bool) error {
	s.wanted[c.kind] = wanted
	if err := s.watch(); err != nil {
		return err
	}
	number := int32(-1)
	if wanted {
		number = int32(c.number)
		if err := s.maps["programs"].Put(c.number, s.programs[c.program]); err != nil {
			return fmt.Errorf("register call %s: %w", c.kind, err)
		}
	} else if err := s.maps["programs"].Delete(c.number); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("leave out call %s: %w", c.kind, err)
	}
	if name := c.kind.String(); name == "open" || name == "openat" {
		return s.variables(map[string]any{"judged_" + name: number})
	}
	return nil
}

// watch tells the dispatcher which calls it is to look at.
func (s *Sensor) watch() error {
	var words [maxCalls / 64]uint64
	for _, c := range s.calls {
		if !s.wanted[c.kind] {
			continue
		}
		for _, n := range append([]uint32{c.number}, c.foreign...) {
			words[n/64] |= 1 << (n % 64)
		}
	}
	return s.variables(map[string]any{"watched_calls": words})
}

// AddTypes has more types of events shown, beside those that are. What the kernel
// refuses is in [Sensor.Features]. Until it returns no event is lost that was
// shown before.
func (s *Sensor) AddTypes(types []string) error {
	s.egress.Lock()
	defer s.egress.Unlock()
	s.types.Lock()
	defer s.types.Unlock()
	more := slices.DeleteFunc(slices.Clone(types), func(t string) bool { return slices.Contains(s.config.Types, t) })
	if len(more) == 0 {
		return nil
	}
	spec, err := loadKernel()
	if err != nil {
		return fmt.Errorf("read programs: %w", err)
	}
	if err := s.configure(spec); err != nil {
		return err
	}
	parts, unknown, err := (&Sensor{config: Config{Types: more}}).parts()
	if err != nil {
		return err
	}
	cache := btf.NewCache()
	for _, p := range parts {
		f := Feature{Name: p.feature, Types: p.types, Err: s.prepare(spec, cache, p)}
		if f.Err == nil {
			f.Err = s.attachPart(p)
		}
		if f.Err == nil {
			f.Using = "tp_btf"
		}
		s.addFeature(f)
	}
	s.addUnknown(unknown)
	s.config.Types = append(s.config.Types, more...)
	if s.programs[dispatcher] != nil {
		return nil
	}
	if calls, err := s.prepareCalls(spec, cache); err != nil || !calls {
		return err
	}
	return s.attach(dispatcher)
}

// addFeature adds a feature, or to one that is there already its types. Of both the
// worse outcome counts.
func (s *Sensor) addFeature(f Feature) {
	i := slices.IndexFunc(s.features, func(have Feature) bool { return have.Name == f.Name })
	if i < 0 {
		s.features = append(s.features, f)
		return
	}
	have := &s.features[i]
	have.Types = slices.Concat(have.Types, f.Types)
	if have.Err == nil && f.Err != nil {
		have.Using, have.Err = "", f.Err
	}
}

// addUnknown adds types that the sensor has no program for to the feature that names
// them.
func (s *Sensor) addUnknown(types []string) {
	if len(types) == 0 {
		return
	}
	const name = "types"
	i := slices.IndexFunc(s.features, func(f Feature) bool { return f.Name == name })
	if i < 0 {
		i = len(s.features)
		s.features = append(s.features, Feature{Name: name})
	}
	all := slices.Sorted(slices.Values(slices.Concat(s.features[i].Types, types)))
	s.features[i] = Feature{Name: name, Types: all, Err: fmt.Errorf("no program of the sensor shows %s", strings.Join(all, ", "))}
}
