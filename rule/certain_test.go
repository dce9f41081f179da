package rule_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
	sensor "github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// TestCertain asks about a program that was added to a container of a pod, of
// which nothing else is known.
func TestCertain(t *testing.T) {
	details := sensor.Details{Name: "web", Repository: "registry.test/shop", Pod: &sensor.Pod{Name: "cart-1", Namespace: "shop", Labels: map[string]string{"app": "cart"}}}
	e := &event.Event{Source: event.Syscall, Record: &sensor.Event{
		Type: sensor.TypeOf("execve"), Called: true, Process: (&sensor.Process{Exe: &sensor.Executable{Upper: true}}).Ready(),
		Container: &sensor.Container{ID: strings.Repeat("a", 64), Known: true, Details: details},
	}}
	known := func(field string) bool {
		return slices.Contains([]string{"evt.type", "proc.is_exe_upper_layer", "proc.is_exe_lower_layer"}, field) ||
			strings.HasPrefix(field, "k8s.") || strings.HasPrefix(field, "container.")
	}
	for _, c := range []struct {
		condition string
		want      bool
	}{
		{"evt.type in (execve, execveat) and proc.is_exe_upper_layer = true and container.id != host", true},
		{"evt.type = execve and not k8s.ns.name in (kube-system, monitoring)", true},
		{"evt.type = execve and k8s.ns.name = kube-system", false},
		{"evt.type = execve and k8s.pod.label[app] = cart and not (evt.num = 0)", true},
		{"evt.type = execve and not proc.is_exe_lower_layer = true", true},
		{"evt.type = execve and proc.name = miner", false},
		{"evt.type = execve and not proc.name = miner", false},
		{"evt.type = execve and (proc.name = miner or proc.is_exe_upper_layer = true)", true},
		{"evt.type = execve and (proc.is_exe_upper_layer = true and not (k8s.ns.name = a or proc.pname = sh))", false},
		{"evt.type = open", false},
		{"not evt.type != execve", true},
		{"evt.type = execve and tolower(k8s.ns.name) = shop", false},
	} {
		set, err := rule.Load(rule.File{Name: "f.yaml", Data: []byte(ruleOf("R", c.condition))})
		if err != nil {
			t.Fatal(err)
		}
		if have := set.Certain("R", e, known); have != c.want {
			t.Errorf("%s: certain is %v", c.condition, have)
		}
	}
	set, err := rule.Load(rule.File{Name: "f.yaml", Data: []byte(ruleOf("R", "evt.type = execve") + "  enabled: false\n")})
	if err != nil || set.Certain("R", e, known) || set.Certain("S", e, known) {
		t.Errorf("a rule that is not enabled, or that does not exist, is certain (%v)", err)
	}
}

// TestCertainIsSound: what is certain by the type alone holds for every event of
// that type.
func TestCertainIsSound(t *testing.T) {
	sure := 0
	for seed := range uint64(3000) {
		g := generator{rand.New(rand.NewPCG(seed, 9))}
		set, err := rule.Load(rule.File{Name: "f.yaml", Data: []byte(ruleOf("R", g.openCondition(2)))})
		if err != nil {
			t.Fatal(err)
		}
		e, _, _ := g.open()
		if !set.Certain("R", e, func(field string) bool { return field == "evt.type" }) {
			continue
		}
		sure++
		for range 60 {
			other, _, _ := g.open()
			if other.Record.(*sensor.Event).Type == e.Record.(*sensor.Event).Type && set.Match(other, rule.First) == nil {
				t.Fatalf("seed %d: certain, and no match", seed)
			}
		}
	}
	if sure < 50 {
		t.Errorf("%d certain conditions prove nothing", sure)
	}
}

func TestUrgent(t *testing.T) {
	file := ""
	for name, priority := range map[string]string{"A": "critical", "B": "notice", "C": "debug", "D": "debug"} {
		file += strings.ReplaceAll(ruleOf(name, "evt.type = open"), "info", priority)
	}
	set, err := rule.Load(rule.File{Name: "f.yaml", Data: []byte(file)})
	if err != nil {
		t.Fatal(err)
	}
	e := &event.Event{Source: event.Syscall, Record: &sensor.Event{Type: sensor.TypeOf("open"), Process: (&sensor.Process{}).Ready()}}
	names := func(s *rule.Set) string {
		var all []string
		for _, a := range s.Match(e, rule.All) {
			all = append(all, a.Rule)
		}
		var live []string
		for _, r := range s.Live() {
			live = append(live, r.Name)
		}
		slices.Sort(all)
		if slices.Sort(live); !slices.Equal(all, live) {
			t.Errorf("%v match, %v are live", all, live)
		}
		return strings.Join(all, " ")
	}
	less := set.Urgent(alert.Notice, func(r rule.Rule) bool { return r.Name == "D" })
	if have := names(less); have != "A B D" {
		t.Errorf("urgent are %s", have)
	}
	if have := names(set); have != "A B C D" {
		t.Errorf("the set itself has become %s", have)
	}
}
