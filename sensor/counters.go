package sensor

import (
	"fmt"

	"github.com/kubeguardian/kubeguardian/sensor/record"
)

// A Count is about the records of one type. Made is Dropped and what is seen or
// still waits.
type Count struct {
	Made      uint64 // by the kernel side
	Dropped   uint64 // because the buffer was full
	Seen      uint64 // handed over
	Truncated uint64 // had a value that was cut, or left out for want of room
}

// Counters are what happened since the sensor was loaded.
type Counters struct {
	Types            map[string]Count // those that were made
	FilteredOpens    uint64           // left out by [Filters]
	FilteredConnects uint64
	ForeignCalls     uint64 // of 32-bit programs, of wanted types at least: not covered
	Outside          uint64 // of processes that are not in the sensor's process namespace
	Missed           uint64 // the kernel did not run a program, because it interrupted itself
	Malformed        uint64 // records that could not be read: a defect
	Killed           uint64 // processes, by guards; also those whose record was dropped
	WouldKill        uint64 // the same, of guards that are dry runs
	Denied           uint64 // programs that were not started, by guards
	DeniedUnmarked   uint64 // of these, those whose records do not say so, for want of room
}

// Counters reads the counters. Each is exact; together they are exact when
// nothing happens in between.
func (s *Sensor) Counters() (Counters, error) {
	c := Counters{Types: map[string]Count{}, Malformed: s.malformed.Load()}
	var seen [len(s.seen)]uint64
	for i := range seen {
		seen[i] = s.seen[i].Load()
	}
	var cpus []kernelCounters
	err := s.maps["counters"].Lookup(uint32(0), &cpus)
	if err != nil {
		return c, fmt.Errorf("read counters: %w", err)
	}
	for i := range cpus {
		c.add(&cpus[i])
	}
	for name, n := range c.Types {
		t, _ := record.TypeOf(name)
		n.Seen = seen[t]
		c.Types[name] = n
	}
	c.Missed, err = s.misses()
	return c, err
}

// misses counts the times that the kernel did not run a program.
func (s *Sensor) misses() (n uint64, err error) {
	s.types.Lock()
	defer s.types.Unlock()
	for name, p := range s.programs {
		stats, err := p.Stats()
		if err != nil {
			return n, fmt.Errorf("read misses of %s: %w", name, err)
		}
		n += stats.RecursionMisses
	}
	return n, nil
}

func (c *Counters) add(cpu *kernelCounters) {
	c.FilteredOpens += cpu.FilteredOpens
	c.FilteredConnects += cpu.FilteredConnects
	c.ForeignCalls += cpu.ForeignCalls
	c.Outside += cpu.Outside
	c.Killed += cpu.Killed
	c.WouldKill += cpu.WouldKill
	c.Denied += cpu.Denied
	c.DeniedUnmarked += cpu.DeniedUnmarked
	for _, t := range record.Types() {
		if cpu.Made[t] == 0 {
			continue
		}
		n := c.Types[t.String()]
		n.Made += cpu.Made[t]
		n.Dropped += cpu.Dropped[t]
		n.Truncated += cpu.Truncated[t]
		c.Types[t.String()] = n
	}
}
