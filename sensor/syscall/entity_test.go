package syscall_test

import (
	"fmt"
	"testing"

	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

func TestEntities(t *testing.T) {
	const container = `"container":{"id":"c1","repository":"docker.io/library/web","tag":"1","pod":{"name":"web-0","namespace":"shop"}}`
	for _, test := range []struct{ name, event, want string }{
		{"a pod", `"type":"execve",` + container,
			"[container:c1 pod:shop/web-0 image:docker.io/library/web:1 node:n1]"},
		{"a container that nothing is known of yet", `"type":"execve","container":{"id":"c1","known":false}`,
			"[container:c1 node:n1]"},
		{"a connection", `"type":"connect","result":0,"fd":{"num":3,"type":"ipv4","client":"10.0.0.7:4000","server":"203.0.113.9:443"},"container":{"id":"c1","known":false}`,
			"[container:c1 node:n1 address:203.0.113.9]"},
		{"a connection from outside", `"type":"accept4","result":3,"fd":{"num":3,"type":"ipv4","client":"203.0.113.9:4000","server":"10.0.0.7:443","serving":true},"container":{"id":"c1","known":false}`,
			"[container:c1 node:n1 address:203.0.113.9]"},
		{"a connection inside", `"type":"connect","result":0,"fd":{"num":3,"type":"ipv4","client":"127.0.0.1:4000","server":"127.0.0.1:443"},"container":{"id":"c1","known":false}`,
			"[container:c1 node:n1]"},
		{"a login", `"type":"execve","container":{"id":"host"},"process":{"pid":70,"sid":60,"name":"id"},"ancestors":[{"pid":60,"start":5,"sid":60,"name":"bash"},{"pid":50,"sid":50,"name":"sshd"}]`,
			"[session:n1/60@5 node:n1]"},
		{"a login whose shell is gone", `"type":"execve","container":{"id":"host"},"process":{"pid":70,"sid":60,"name":"id"},"ancestors":[{"pid":1,"sid":1,"name":"systemd"}]`,
			"[node:n1]"},
		{"a service in the session of init", `"type":"execve","container":{"id":"host"},"process":{"pid":70,"sid":1,"name":"id"},"ancestors":[{"pid":1,"sid":1,"name":"init"}]`,
			"[node:n1]"},
	} {
		e, err := syscall.Decode([]byte(`{"id":"1","time":"2026-01-01T00:00:00Z",` + test.event + `}`))
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if got := fmt.Sprint(e.Record.(*syscall.Event).Entities("n1")); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}
