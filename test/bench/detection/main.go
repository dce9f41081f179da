// Command detection measures the way of audit events from bytes to alerts: how
// many a core takes each second, which share parsing, enrichment, matching and
// output have,
// what is allocated, how two cores help, and what happens to a receiver that is
// sent more than it can take. Times are of the processor, so that others on the
// machine disturb less.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/enrichment"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/k8saudit"
	"github.com/kubeguardian/kubeguardian/rule"
)

func main() {
	events := flag.Int("events", 20_000, "distinct events")
	rounds := flag.Int("rounds", 10, "how often each is read")
	rules := flag.Int("rules", -1, "measure a set of this many rules in this very process; 0: the built-in ones")
	profile := flag.String("cpuprofile", "", "with -rules: write a profile to this `file`")
	overload := flag.Duration("overload", 0, "send more than a receiver can take, for this long")
	receiver := flag.Bool("receiver", false, "be the receiver of -overload")
	print := flag.Bool("print", false, "print the events")
	flag.Parse()
	var err error
	switch {
	case *print:
		_, err = os.Stdout.Write(newGenerator(1).log(*events))
	case *receiver:
		err = receive()
	case *overload > 0:
		err = overloadReceiver(*overload)
	case *rules >= 0:
		err = profiled(*profile, func() error { return measure(*events, *rounds, *rules) })
	default:
		err = all(*events, *rounds)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "detection: error:", err)
		os.Exit(1)
	}
}

func profiled(file string, f func() error) error {
	if file == "" {
		return f()
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(out); err != nil {
		return err
	}
	err = f()
	pprof.StopCPUProfile()
	return errors.Join(err, out.Close())
}

// A result is what one process measured.
type result struct {
	Rules, Events, Bytes, Alerts int
	Parse, Enrich, Match, Output time.Duration    // of the processor
	Allocations                  float64          // for each event without an alert
	Wall, CPU                    [2]time.Duration // of the same work on one core and on two
	Memory                       int              // KiB, at most; the log is in it once
}

func (r result) total() time.Duration { return r.Parse + r.Enrich + r.Match + r.Output }

// all measures each set of rules in a process of its own.
func all(events, rounds int) error {
	fmt.Printf("%6s %8s %7s %8s %9s %9s %7s %7s %7s %7s %7s %7s %7s %7s %9s\n", "rules", "events", "mean", "alerts", "µs/event", "events/s", "parse", "enrich", "match", "output", "parse", "allocs", "2 cores", "of cpu", "memory")
	for _, rules := range []int{0, 48, 480} {
		out, err := exec.Command(os.Args[0], "-rules", strconv.Itoa(rules), "-events", strconv.Itoa(events), "-rounds", strconv.Itoa(rounds)).Output()
		if err != nil {
			return fmt.Errorf("measure %d rules: %w", rules, err)
		}
		var r result
		if err := json.Unmarshal(out, &r); err != nil {
			return err
		}
		each := float64(r.total().Nanoseconds()) / float64(r.Events) / 1000
		share := func(d time.Duration) string { return fmt.Sprintf("%.0f%%", 100*float64(d)/float64(r.total())) }
		fmt.Printf("%6d %8d %5d B %8d %9.2f %9.0f %7s %7s %7s %7s %4.2f µs %7.3f %6.2fx %6.2fx %6d MB\n", r.Rules, r.Events, r.Bytes/r.Events, r.Alerts, each, 1e6/each,
			share(r.Parse), share(r.Enrich), share(r.Match), share(r.Output), float64(r.Parse.Nanoseconds())/float64(r.Events)/1000, r.Allocations, float64(r.Wall[0])/float64(r.Wall[1]), float64(r.CPU[1])/float64(r.CPU[0]), r.Memory>>10)
	}
	fmt.Println("\n2 cores: how much faster the same work is; of cpu: how much more processor time it takes then, which other programs on the machine do not change")
	return nil
}

// ownRegistry is what a user tells the built-in rules: where the images of the
// events come from.
const ownRegistry = `
- list: known_registries
  items: [registry.example.com]
  override: {items: append}
`

func loadRules(n int) (*rule.Set, error) {
	if n == 0 {
		files, err := content.Read[rule.File](content.Rules())
		if err != nil {
			return nil, err
		}
		return rule.Load(append(files, rule.File{Name: "own.yaml", Data: []byte(ownRegistry)})...)
	}
	return rule.Load(rule.File{Name: "generated.yaml", Data: ruleSet(n)})
}

// measure prints the result of one set of rules.
func measure(events, rounds, n int) error {
	rules, err := loadRules(n)
	if err != nil {
		return err
	}
	log := newGenerator(1).log(events)
	r := result{Rules: len(rules.Rules()), Bytes: len(log) * rounds}
	warm := &bytes.Buffer{}
	if _, err := run(log, 1, enrichment.New(), rules, warm); err != nil {
		return err
	}
	runtime.GC()
	began := cpu()
	if r.Events, err = run(log, rounds, nil, nil, nil); err != nil {
		return err
	}
	r.Parse = cpu() - began
	began = cpu()
	if _, err = run(log, rounds, enrichment.New(), nil, nil); err != nil {
		return err
	}
	r.Enrich = cpu() - began - r.Parse
	var alerts counter
	began = cpu()
	if _, err := run(log, rounds, enrichment.New(), rules, &alerts); err != nil {
		return err
	}
	r.Match, r.Output, r.Alerts = cpu()-began-r.Parse-r.Enrich-alerts.took, alerts.took, alerts.lines
	if r.Allocations, err = allocations(rules, rounds); err != nil {
		return err
	}
	for cores := range r.Wall {
		if r.Wall[cores], r.CPU[cores], err = parallel(log, rounds, rules, cores+1); err != nil {
			return err
		}
	}
	if r.Memory, err = peak("self"); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// A counter takes alerts and says how long writing them took.
type counter struct {
	lines int
	took  time.Duration
}

func (c *counter) Write(p []byte) (int, error) { c.lines++; return len(p), nil }

// run reads a log some times; without rules, or without what enriches, it leaves
// that out.
func run(log []byte, rounds int, enrich *enrichment.Enricher, rules *rule.Set, out io.Writer) (events int, err error) {
	var encoder *json.Encoder
	if out != nil {
		encoder = json.NewEncoder(out)
	}
	timed, _ := out.(*counter)
	stats, err := k8saudit.Decode(repeat(log, rounds), func(e *event.Event) error {
		if enrich == nil {
			return nil
		}
		defer enrich.Release(e)
		if enrich.Enrich(e); rules == nil {
			return nil
		}
		alerts := enrich.Attribute(e, rules.Match(e, rule.First))
		if len(alerts) == 0 {
			return nil
		}
		began := time.Now()
		for i := range alerts {
			if err := encoder.Encode(&alerts[i]); err != nil {
				return err
			}
		}
		if timed != nil {
			timed.took += time.Since(began)
		}
		return nil
	})
	if err != nil || stats.Malformed > 0 {
		return 0, fmt.Errorf("%+v: %w", stats, err)
	}
	return stats.Events, nil
}

// repeat reads a log some times.
func repeat(log []byte, rounds int) io.Reader {
	var readers []io.Reader
	for range rounds {
		readers = append(readers, bytes.NewReader(log))
	}
	return io.MultiReader(readers...)
}

// allocations returns how many there are for each event that raises no alert.
func allocations(rules *rule.Set, rounds int) (float64, error) {
	g, quiet, kept, enrich := newGenerator(2), &bytes.Buffer{}, 0, enrichment.New()
	for kept < 5000 {
		line := g.event()
		e, err := k8saudit.Parse(line)
		if err != nil {
			return 0, err
		}
		if enrich.Enrich(e); len(rules.Match(e, rule.All)) == 0 {
			quiet.Write(line)
			kept++
		}
	}
	count := func(rounds int) (uint64, error) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := run(quiet.Bytes(), rounds, enrichment.New(), rules, &counter{})
		runtime.ReadMemStats(&after)
		return after.Mallocs - before.Mallocs, err
	}
	one, err := count(1)
	if err != nil {
		return 0, err
	}
	many, err := count(rounds + 1)
	return float64(int64(many-one)) / float64(rounds*kept), err
}

// parallel returns how long some cores take to read the log, and how much
// processor time.
func parallel(log []byte, rounds int, rules *rule.Set, cores int) (wall, used time.Duration, err error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(cores))
	var group sync.WaitGroup
	enrich := enrichment.New() // one, as in the server
	errs := make([]error, 2)
	began, before := time.Now(), cpu()
	for worker := range 2 { // the same work, on one core or on two
		group.Go(func() { _, errs[worker] = run(log, max(rounds/2, 1), enrich, rules, &counter{}) })
	}
	group.Wait()
	return time.Since(began), cpu() - before, errors.Join(errs...)
}

// cpu returns the processor time of the process, that of the system included.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peak returns the most memory that a process has had, in KiB.
func peak(process string) (int, error) {
	status, err := os.ReadFile("/proc/" + process + "/status")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	value, _, _ := strings.Cut(rest, "kB")
	return strconv.Atoi(strings.TrimSpace(value))
}
