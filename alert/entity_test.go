package alert_test

import (
	"fmt"
	"testing"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
)

func TestInvolves(t *testing.T) {
	audit := alert.Alert{
		Source: "k8s_audit", Hostname: "server-0", Subject: finding.Subject{Kind: "Pod", Namespace: "shop", Name: "web-0"},
		Entities: []alert.Entity{{Kind: alert.User, Name: "ada"}, {Kind: alert.Pod, Name: "shop/web-0"}, {Kind: alert.User, Name: "ada"}, {Kind: alert.Image}},
	}
	call := alert.Alert{
		Source: "syscall", Hostname: "node-a", Subject: finding.Subject{Kind: "Pod", Namespace: "shop"},
		OutputFields: map[string]any{
			"k8s.ns.name": "shop", "k8s.pod.name": "web-0", "container.id": "0123456789ab", "fd.rip": "<NA>",
			"container.image.repository": "registry.example.com/web", "container.image.tag": "1.2", "proc.pid": 7,
		},
	}
	host := alert.Alert{Source: "syscall", Hostname: "node-a", OutputFields: map[string]any{"container.id": "host", "fd.rip": "192.0.2.7"}}
	for _, tt := range []struct {
		alert alert.Alert
		want  string
	}{
		{audit, "[user:ada pod:shop/web-0]"},
		{call, "[node:node-a pod:shop/web-0 container:0123456789ab image:registry.example.com/web:1.2]"},
		{host, "[node:node-a address:192.0.2.7]"},
	} {
		if have := fmt.Sprint(tt.alert.Involves()); have != tt.want {
			t.Errorf("have %s, want %s", have, tt.want)
		}
	}
}

func TestParseEntity(t *testing.T) {
	for s, want := range map[string]alert.Entity{
		"pod:shop/web-0":                         {Kind: alert.Pod, Name: "shop/web-0"},
		"user:system:serviceaccount:shop:web":    {Kind: alert.User, Name: "system:serviceaccount:shop:web"},
		"address:2001:db8::1":                    {Kind: alert.Address, Name: "2001:db8::1"},
		"image:registry.example.com/a@sha256:00": {Kind: alert.Image, Name: "registry.example.com/a@sha256:00"},
	} {
		have, err := alert.ParseEntity(s)
		if err != nil || have != want || have.String() != s {
			t.Errorf("%s: %v %v", s, have, err)
		}
	}
	for _, bad := range []string{"", "pod", "pod:", "ghost:x", ":x"} {
		if e, err := alert.ParseEntity(bad); err == nil {
			t.Errorf("%q is %v", bad, e)
		}
	}
}
