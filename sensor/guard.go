package sensor

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kubeguardian/kubeguardian/sensor/record"
)

// An Action is what becomes of a process that does what a guard is about.
type Action uint32

const (
	DryRun Action = record.WouldKill // the record says that it would have been killed
	Kill   Action = record.Killed    // it is killed before it runs any further
	Deny   Action = record.Denied    // of an exec: the call fails with EPERM, and the process goes on; where [Sensor.CanDeny] says why not, as Kill
)

// A Guard kills processes from within the kernel. The call that it is about has
// happened by then, and its record says what was done ([record.Enforced]); of an
// exec, no instruction of the new program has run. A guard that denies has the call
// fail; the record of that has the parameters flags and trusted_exepath, too.
type Guard struct {
	Cgroup      uint64 // as in the header of records; not those below it
	Type        string // of events, one of those that the sensor was loaded for; only calls that succeed count
	Executables uint32 // of execve and execveat: bits such as record.ExeUpper, any of which is enough; 0 for every program
	Action      Action
}

// maxGuards is how many guards there can be.
const maxGuards = 65536

type guardOrder struct{ Executables, Action uint32 }

// SetGuards replaces the guards, of which there are none at first. It needs
// [Config.Enforce]. The first process of the node and the sensor's own are never
// killed, and no guard can be about a root cgroup. After an error there are no
// guards.
func (s *Sensor) SetGuards(guards []Guard) error {
	want, covered := map[kernelGuard]guardOrder{}, s.covered()
	for _, g := range guards {
		key, err := s.guard(g, covered)
		if err != nil {
			return errors.Join(fmt.Errorf("set guards: %w", err), s.setGuards(nil))
		}
		want[key] = guardOrder{g.Executables, uint32(g.Action)}
	}
	if err := s.setGuards(want); err != nil {
		return errors.Join(fmt.Errorf("set guards: %w", err), s.setGuards(nil))
	}
	return nil
}

// covered returns the types of events that are shown.
func (s *Sensor) covered() map[string]bool {
	s.types.Lock()
	types := slices.Clone(s.config.Types)
	s.types.Unlock()
	missing, covered := s.Missing(), map[string]bool{}
	for _, name := range types {
		covered[name] = missing[name] == nil
	}
	return covered
}

func (s *Sensor) guard(g Guard, covered map[string]bool) (kernelGuard, error) {
	t, ok := record.TypeOf(g.Type)
	switch {
	case !s.config.Enforce:
		return kernelGuard{}, errors.New("the sensor was loaded without enforcement")
	case !ok || !covered[g.Type]:
		return kernelGuard{}, fmt.Errorf("events of type %q are not covered", g.Type)
	case slices.Contains([]string{"clone", "clone3", "fork", "vfork", "procexit"}, g.Type):
		return kernelGuard{}, fmt.Errorf("no guard can be about %s", g.Type)
	case g.Cgroup <= 1:
		return kernelGuard{}, fmt.Errorf("cgroup %d is a root, which holds the node's own processes", g.Cgroup)
	case g.Action == Deny && g.Type != "execve" && g.Type != "execveat":
		return kernelGuard{}, fmt.Errorf("%s cannot be denied", g.Type)
	case g.Action != DryRun && g.Action != Kill && g.Action != Deny:
		return kernelGuard{}, fmt.Errorf("action %d does not exist", g.Action)
	}
	return kernelGuard{Cgroup: g.Cgroup, Type: uint32(t)}, nil
}

// SetRoot tells of the root of a container, by the container's cgroup and a path to
// it, such as /proc/PID/root: that of the first program that the sensor saw there
// counts more. Programs are of the image, or were added ([record.ExeAdded]), by the
// file system of that root.
func (s *Sensor) SetRoot(cgroup uint64, path string) error {
	var st unix.Stat_t
	var fs unix.Statfs_t
	if err := errors.Join(unix.Stat(path+"/", &st), unix.Statfs(path+"/", &fs)); err != nil {
		return fmt.Errorf("look at the root of cgroup %d: %w", cgroup, err)
	}
	r := kernelRoot{Device: unix.Major(st.Dev)<<20 | unix.Minor(st.Dev), IsOverlay: number(fs.Type == unix.OVERLAYFS_SUPER_MAGIC)}
	if err := s.maps["roots"].Update(cgroup, r, ebpf.UpdateNoExist); err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return fmt.Errorf("keep the root of cgroup %d: %w", cgroup, err)
	}
	return nil
}

func (s *Sensor) setGuards(want map[kernelGuard]guardOrder) error {
	s.guards.Lock()
	defer s.guards.Unlock()
	if len(want) > maxGuards {
		return fmt.Errorf("%d guards, at most %d", len(want), maxGuards)
	}
	m := s.maps["guards"]
	var key kernelGuard
	var value guardOrder
	var old []kernelGuard
	it := m.Iterate()
	for it.Next(&key, &value) {
		if _, ok := want[key]; !ok {
			old = append(old, key)
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("list guards: %w", err)
	}
	for _, key := range old {
		if err := m.Delete(key); err != nil {
			return fmt.Errorf("remove a guard: %w", err)
		}
	}
	for key, order := range want {
		if err := m.Put(key, order); err != nil {
			return fmt.Errorf("add a guard: %w", err)
		}
	}
	return nil
}
