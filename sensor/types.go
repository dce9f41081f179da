package sensor

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

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
	if wanted {
		if err := s.maps["programs"].Put(c.number, s.programs[c.program]); err != nil {
			return fmt.Errorf("register call %s: %w", c.kind, err)
		}
		return nil
	}
	if err := s.maps["programs"].Delete(c.number); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("leave out call %s: %w", c.kind, err)
	}
	return nil
}
