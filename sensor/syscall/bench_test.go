package syscall_test

import (
	"testing"

	"github.com/kubeguardian/kubeguardian/event"
)

// plainFields are those that rules ask for most, with an event that has them.
var plainFields = map[string][]string{
	"exec": {
		"evt.type", "evt.res", "evt.rawres", "evt.is_open_write", "evt.category", "proc.name", "proc.cmdline", "proc.args", "proc.args[1]", "proc.exe",
		"proc.exeline", "proc.exepath", "proc.cwd", "proc.tty", "proc.pid", "proc.vpid", "proc.pname", "proc.pcmdline", "proc.pexe", "proc.aname[2]",
		"proc.aname", "proc.env[A]", "proc.is_exe_upper_layer", "proc.duration", "proc.sname", "user.name", "user.uid", "user.loginuid", "group.gid",
		"container.id", "container.name", "container.image.repository", "container.privileged", "container.mount.dest[/proc*]", "k8s.ns.name", "k8s.pod.name",
		"thread.tid",
	},
	"open":    {"fd.name", "fd.typechar", "fd.num", "fd.directory", "fd.filename", "evt.is_open_read", "evt.rawarg.flags"},
	"connect": {"fd.name", "fd.sip", "fd.cip", "fd.rip", "fd.snet", "fd.sport", "fd.l4proto", "fd.connected", "fd.name_changed"},
}

// What is at hand is returned without a copy.
func TestPlainValuesDoNotAllocate(t *testing.T) {
	events := recorded(t, "testdata/events.jsonl")
	for id, fields := range plainFields {
		for _, field := range fields {
			r, e := ref(t, field), events[id]
			if e.Value(r).Missing() {
				t.Errorf("%s of %s is missing", field, id)
			}
			if n := testing.AllocsPerRun(20, func() { e.Value(r) }); n > 0 {
				t.Errorf("%s of %s takes %v allocations", field, id, n)
			}
		}
	}
}

// BenchmarkValue is the cost of one value, on average of those that rules ask for
// most.
func BenchmarkValue(b *testing.B) {
	events := recorded(b, "testdata/events.jsonl")
	type value struct {
		e *event.Event
		r event.Ref
	}
	var values []value
	for id, fields := range plainFields {
		for _, field := range fields {
			values = append(values, value{events[id], ref(b, field)})
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		v := values[i%len(values)]
		if v.e.Value(v.r).Missing() {
			b.Fatal(v.r.Text)
		}
	}
}
