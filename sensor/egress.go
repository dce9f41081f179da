package sensor

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
)

// egressPrograms are those that a cgroup without egress has.
var egressPrograms = []struct {
	name   string
	attach ebpf.AttachType
}{
	{"egress_connect4", ebpf.AttachCGroupInet4Connect},
	{"egress_connect6", ebpf.AttachCGroupInet6Connect},
	{"egress_sendmsg4", ebpf.AttachCGroupUDP4Sendmsg},
	{"egress_sendmsg6", ebpf.AttachCGroupUDP6Sendmsg},
}

// loadEgress loads the programs, so that the features say whether they can be
// had.
func (s *Sensor) loadEgress(spec *ebpf.CollectionSpec, cache *btf.Cache) {
	f := Feature{Name: "enforce.egress", Using: "cgroup"}
	for _, p := range egressPrograms {
		if _, err := s.program(spec, cache, p.name); err != nil {
			f.Using, f.Err = "", err
		}
	}
	s.features = append(s.features, f)
}

// BlockEgress refuses what the processes of a cgroup, and of those below it, try
// to reach from now on, but for the loopback: connections over IP, and datagrams
// to a named address. What is connected stays so. dir is the cgroup's folder in
// the unified hierarchy. It lasts until lift is called or the sensor is closed;
// lift must not be called after that. It needs [Config.Enforce].
func (s *Sensor) BlockEgress(dir string) (lift func() error, err error) {
	if !s.config.Enforce {
		return nil, errors.New("block egress: the sensor was loaded without enforcement")
	}
	var links []link.Link
	lift = func() error {
		var errs []error
		for _, l := range links {
			errs = append(errs, l.Close())
		}
		links = nil
		return errors.Join(errs...)
	}
	for _, p := range egressPrograms {
		s.types.Lock()
		program := s.programs[p.name]
		s.types.Unlock()
		if program == nil {
			return nil, errors.Join(fmt.Errorf("block egress of %s: %s: %w", dir, p.name, ErrNotSupported), lift())
		}
		l, err := link.AttachCgroup(link.CgroupOptions{Path: dir, Attach: p.attach, Program: program})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("block egress of %s: attach %s: %w", dir, p.name, err), lift())
		}
		links = append(links, l)
	}
	s.egress.Lock()
	defer s.egress.Unlock()
	s.onClose = append(s.onClose, func() { _ = lift() })
	return lift, nil
}
