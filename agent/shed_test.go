package agent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/enforce"
)

// TestBudget plays what an agent uses, one interval after the other.
func TestBudget(t *testing.T) {
	p := pace{interval: time.Second, over: 2, under: 3, most: 12, calm: 0.7}
	for _, c := range []struct {
		name   string
		usage  string // of each interval: much, between, little; B and F are a clock that goes back or stands still
		levels string
	}{
		{"little", "lllll", "00000"},
		{"a peak", "lmlml", "00000"},
		{"too much", "mmmmmmmm", "01122222"},
		{"between says nothing", "mmbbbbbb", "01111111"},
		{"taken back", "mmlllmmlll", "01110" + "01" + "111"},
		{"again and again", "mmlllmmllllllmmllllllllllll", "01110" + "01" + "111110" + "01" + "111111111110"},
		{"a long rest makes up for it", "mmlll" + "llllllllllll" + "mmlll", "01110" + "000000000000" + "01110"},
		{"the clock goes back", "mBmmllFlll", "0011111000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBudget(0.2, 2, p)
			now, cpu := time.Unix(1000, 0), time.Duration(0)
			b.step(now, cpu)
			var levels strings.Builder
			for _, u := range c.usage {
				switch u {
				case 'B':
					now = now.Add(-time.Hour)
				case 'F': // stands still
				default:
					now = now.Add(time.Second)
					cpu += map[rune]time.Duration{'m': 500, 'b': 170, 'l': 10}[u] * time.Millisecond
				}
				b.step(now, cpu)
				fmt.Fprint(&levels, b.level)
			}
			if levels.String() != c.levels {
				t.Errorf("usage %s\nhave  %s\nwant  %s", c.usage, levels.String(), c.levels)
			}
		})
	}
}

const shedRules = `
- rule: Any open
  desc: Every file that is opened below a folder
  condition: evt.type in (open, openat) and fd.name startswith /tmp/kubeguardian-load and not fd.name endswith e
  output: "open %fd.name"
  priority: DEBUG
- rule: Folder
  desc: Every folder that is removed
  condition: evt.type in (rmdir, unlinkat) and evt.arg.name contains kubeguardian-load
  output: "rmdir"
  priority: WARNING
- rule: Kept by an order
  desc: Something is ordered about it
  condition: evt.type = chroot and proc.name = kubeguardian-nobody
  output: "x"
  priority: DEBUG
- rule: Critical
  desc: It stays
  condition: evt.type in (execve, execveat) and proc.args contains kubeguardian-end
  output: "%proc.args"
  priority: CRITICAL
`

// TestShedding plays an agent that uses too much and looks at what it then asks
// for.
func TestShedding(t *testing.T) {
	c := configOf(t, shedRules)
	c.CPUBudget, c.Status = 0.1, "127.0.0.1:0"
	c.Enforce = []enforce.Order{{Rules: []string{"Kept*"}, Action: enforce.Kill}}
	source := &narrowed{recording: recording{played: make(chan struct{})}}
	var out, log strings.Builder
	a, err := New(Options{Config: c, Out: &out, Log: slog.New(slog.NewTextHandler(&log, nil)), Open: source.open})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- a.Run(ctx) }()
	<-source.played
	now, cpu := time.Unix(1000, 0), time.Duration(0)
	a.shedder.mu.Lock()
	a.shedder.now, a.shedder.cpu = func() time.Time { return now }, func() time.Duration { return cpu }
	a.shedder.mu.Unlock()
	use := func(intervals int, share float64) {
		for range intervals {
			now, cpu = now.Add(5*time.Second), cpu+time.Duration(share*float64(5*time.Second))
			a.shedder.look()
		}
	}
	use(1, 0)
	use(3, 0.5)
	if source.has("openat") || !source.has("unlinkat") || !source.has("chroot") || !source.has("execve") || !source.has("procexit") {
		t.Errorf("after one step the sensor shows %v", source.types)
	}
	use(3, 0.5)
	if source.has("unlinkat") || !source.has("chroot") || !source.has("execve") {
		t.Errorf("after two steps the sensor shows %v", source.types)
	}
	use(30, 0.5)
	if left, times, _ := a.shedder.state(); len(left) != 2 || times != 2 {
		t.Errorf("left out %v, %d times", left, times)
	}
	res, err := http.Get("http://" + a.StatusAddr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	metrics, _ := io.ReadAll(res.Body)
	if !strings.Contains(string(metrics), "kubeguardian_agent_rules_left_out 2\n") || !strings.Contains(string(metrics), "kubeguardian_agent_budget_exceeded_total 2\n") {
		t.Errorf("metrics:\n%s", metrics)
	}
	for line := range strings.Lines(string(metrics)) {
		if name, ok := strings.CutPrefix(line, "# TYPE kubeguardian_agent_"); ok && !strings.Contains(readText(t, "../docs/agent.md"), "`"+strings.Fields(name)[0]) {
			t.Errorf("docs/agent.md does not list %s", name)
		}
	}
	if h := a.status.state(); h.Rules != 2 || !slices.ContainsFunc(h.Problems, func(p string) bool {
		return strings.Contains(p, "2 rules are left out") && strings.Contains(p, "Any open")
	}) {
		t.Errorf("health %+v", h)
	}
	use(12, 0.01)
	use(12, 0.01)
	if !source.has("openat") || !source.has("unlinkat") || a.ruling.Load().count != 4 {
		t.Errorf("rules are not taken back: the sensor shows %v", source.types)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), ShedRule); n != 4 || !strings.Contains(out.String(), `"source":"syscall"`) || !strings.Contains(out.String(), "2 of 4 rules are left out") {
		t.Errorf("%d alerts:\n%s", n, out.String())
	}
	if !strings.Contains(log.String(), "rules are left out") {
		t.Errorf("log:\n%s", log.String())
	}
}

// TestLiveShedding has the kernel make more records than the budget allows for.
func TestLiveShedding(t *testing.T) {
	dir := "/tmp/kubeguardian-load"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := configOf(t, shedRules+endRule)
	c.CPUBudget = 0.05
	fast := pace{interval: 200 * time.Millisecond, over: 2, under: 15, most: 40, calm: 0.7}
	l, a := watchMachineAt(t, c, &fast)
	made := func() uint64 {
		counters, err := a.source.(*kernel).Counters()
		if err != nil {
			t.Fatal(err)
		}
		return counters.Types["open"].Made + counters.Types["openat"].Made
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var loads []*exec.Cmd
	stop := func() {
		for _, load := range loads {
			_ = load.Process.Kill()
			_ = load.Wait()
		}
		loads = nil
	}
	t.Cleanup(stop)
	for range 4 { // enough to be heard on a machine that has other things to do
		load := exec.Command("bash", "-c", `while :; do : < "$0"; done`, filepath.Join(dir, "file"))
		load.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := load.Start(); err != nil {
			t.Fatal(err)
		}
		loads = append(loads, load)
	}
	shed := l.wait(ShedRule, "are left out")
	if shed.Priority != alert.Error || !strings.Contains(shed.OutputFields["agent.rules_left_out"].(string), "Any open") {
		t.Errorf("alert %+v", shed)
	}
	time.Sleep(100 * time.Millisecond)
	before := made()
	time.Sleep(500 * time.Millisecond)
	if n := made() - before; n > 0 {
		t.Errorf("%d records were made that no rule is about", n)
	}
	stop()
	l.wait(ShedRule, "0 of 5 rules are left out")
	before = made()
	if err := exec.Command("cat", filepath.Join(dir, "file")).Run(); err != nil {
		t.Fatal(err)
	}
	if made() == before {
		t.Error("the rule is back, and its events are not")
	}
}
