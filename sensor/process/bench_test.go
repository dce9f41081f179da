package process

import (
	"testing"

	"github.com/kubeguardian/kubeguardian/sensor/record"
)

// BenchmarkRead measures what one event costs before rules see it.
func BenchmarkRead(b *testing.B) {
	connect := extra(b, user.make(b, "connect", 12*second1, map[string]any{"fd": 5, "res": 0}), record.FD, socket(1, tuple4("10.0.0.1:40000", "192.0.2.7:443", true, 6)))
	open := extra(b, user.make(b, "openat", 12*second1, map[string]any{"fd": 5, "dirfd": -100, "name": "/etc/hosts", "flags": 0, "dev": 1, "ino": 2}), record.Path, record.BytesValue([]byte("/etc/hosts")))
	child := life{key: record.Key{TGID: 11, Start: 12 * second1}, parent: user.key, comm: "sh"}
	for _, bb := range []struct {
		name string
		r    *record.Record
	}{{"openat", open}, {"connect", connect}, {"execve", execOf(b, user, 12*second1, "sh", "-c", "id")}, {"clone", child.make(b, "clone", 12*second1, map[string]any{"exe": "sh", "args": ""})}} {
		b.Run(bb.name, func(b *testing.B) {
			reader := alone(b, Options{}).Reader()
			reader.Read(execOf(b, user, 11*second1, "app"))
			b.ReportAllocs()
			for b.Loop() {
				reader.Read(bb.r)
			}
		})
	}
}
