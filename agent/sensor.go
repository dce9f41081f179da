package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	unix "syscall"

	"github.com/kubeguardian/kubeguardian/enforce"
	"github.com/kubeguardian/kubeguardian/rule"
	"github.com/kubeguardian/kubeguardian/sensor"
	"github.com/kubeguardian/kubeguardian/sensor/record"
)

// OpenSensor is the [Opener] of the sensor that runs in the kernel.
func OpenSensor(types []string, needs rule.Needs, c *Config) (Source, error) {
	node, err := sensor.Node{}, error(nil)
	if c.enforces() {
		if node, err = sensor.FindNode(c.Proc, c.Root); err != nil {
			return nil, err
		}
	}
	// With one buffer, what a parent did is read before what its child did: the
	// ancestors in an alert are as they were.
	s, err := sensor.New(sensor.Config{
		Partitions: 1, Types: types, Filters: sensor.Filters{Opens: opens(needs), Families: families(needs.Connects)}, BufferSize: c.BufferSize << 10, Environment: c.Environment,
		Enforce: c.enforces(), Deny: enforce.Denies(c.ZeroDrift), Node: node,
	})
	switch {
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
		return nil, hint{err, "run the agent as root, or with CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH; in a container these have to be added, and its seccomp profile has to let it call bpf"}
	case errors.Is(err, os.ErrNotExist) || errors.Is(err, sensor.ErrNotSupported) || errors.Is(err, unix.ENOSYS):
		return nil, hint{err, "the kernel needs BPF with BTF (CONFIG_DEBUG_INFO_BTF, /sys/kernel/btf/vmlinux) and ring buffers, so Linux 5.15 or later"}
	case err != nil:
		return nil, err
	}
	return &kernel{Sensor: s}, nil
}

// Bounds of what the kernel looks for.
const (
	maxWatched = 1024
	maxName    = 64 // bytes of a name, its end included
)

// opens returns which files that are only read the rules are about.
func opens(needs rule.Needs) sensor.OpenFilter {
	f := sensor.OpenFilter{Reads: sensor.WatchedReads}
	for _, paths := range []rule.Paths{needs.Reads, needs.FailedReads} {
		for _, prefix := range paths.Prefixes {
			if !strings.HasPrefix(prefix, "/") {
				return sensor.OpenFilter{}
			}
			f.Prefixes = append(f.Prefixes, prefix)
		}
		for _, suffix := range paths.Suffixes {
			slash := strings.LastIndexByte(suffix, '/')
			name := suffix[slash+1:]
			if slash < 0 || name == "" || len(name) >= maxName {
				return sensor.OpenFilter{} // the kernel compares whole names
			}
			f.Names = append(f.Names, name)
		}
		for _, name := range paths.Names {
			if name == "" || len(name) >= maxName {
				return sensor.OpenFilter{}
			}
			f.Names = append(f.Names, name)
		}
	}
	switch n := max(len(f.Prefixes), len(f.Names)); {
	case n == 0:
		f.Reads = sensor.NoReads
	case n > maxWatched:
		return sensor.OpenFilter{}
	}
	return f
}

// families returns the families of sockets that rules are about, nil for all.
func families(f rule.Families) []uint16 {
	const most = 64
	without := map[uint16]bool{unix.AF_INET: !f.IPv4, unix.AF_INET6: !f.IPv6, unix.AF_UNIX: !f.Unix}
	var out []uint16
	for n := range uint16(most) {
		if !without[n] {
			out = append(out, n)
		}
	}
	if len(out) == most {
		return nil
	}
	return out
}

// A hint is an error with what the user can do.
type hint struct {
	error
	text string
}

func (h hint) Hint() string  { return h.text }
func (h hint) Unwrap() error { return h.error }

// A kernel is the sensor as a [Source].
type kernel struct{ *sensor.Sensor }

// Run implements [Source].
func (k *kernel) Run(ctx context.Context, worker func() func(*record.Record)) error {
	var workers sync.Map // by partition
	return k.Sensor.Run(ctx, func(partition int, r *record.Record) {
		w, ok := workers.Load(partition)
		if !ok {
			w = worker()
			workers.Store(partition, w)
		}
		w.(func(*record.Record))(r)
	})
}

// Narrow has the kernel show the types of events that are needed, and of those
// with filters what is needed of them.
func (k *kernel) Narrow(types []string, needs rule.Needs) error {
	if err := k.SetTypes(types); err != nil {
		return err
	}
	return k.SetFilters(sensor.Filters{Opens: opens(needs), Families: families(needs.Connects)})
}

// Widen has the kernel show more types of events.
func (k *kernel) Widen(types []string) error { return k.AddTypes(types) }

// Status implements [Source].
func (k *kernel) Status() SourceStatus {
	s := SourceStatus{Missing: k.Missing(), Counters: map[string]uint64{}, Dropped: map[string]uint64{}}
	for _, f := range k.Features() {
		feature := Feature{Name: f.Name, Used: f.Using}
		if f.Err != nil {
			feature.Reason = f.Err.Error()
		}
		s.Features = append(s.Features, feature)
	}
	c, err := k.Counters()
	if err != nil {
		s.Features = append(s.Features, Feature{Name: "counters", Reason: fmt.Sprint(err)})
	}
	for name, n := range c.Types {
		if n.Dropped > 0 {
			s.Dropped[name] = n.Dropped
		}
		s.Counters["made"] += n.Made
		s.Counters["dropped"] += n.Dropped
		s.Counters["seen"] += n.Seen
		s.Counters["truncated"] += n.Truncated
	}
	s.Counters["filtered"] = c.FilteredOpens + c.FilteredConnects
	s.Counters["killed"], s.Counters["would_kill"] = c.Killed, c.WouldKill
	s.Counters["denied"], s.Counters["denied_unmarked"], s.Counters["outside"] = c.Denied, c.DeniedUnmarked, c.Outside
	s.Counters["foreign"], s.Counters["missed"], s.Counters["malformed"] = c.ForeignCalls, c.Missed, c.Malformed
	return s
}

// Close implements [Source].
func (k *kernel) Close() error {
	k.Sensor.Close()
	return nil
}
