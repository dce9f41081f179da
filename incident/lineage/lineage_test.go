package lineage_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/incident/lineage"
)

func draw(p *lineage.Process, depth int, b *strings.Builder) {
	for _, c := range p.Children {
		fmt.Fprintf(b, "%s%s %s %d %v\n", strings.Repeat(" ", depth), c.Name, c.PID, len(c.Alerts), c.Foreign)
		draw(c, depth+1, b)
	}
}

func TestAdd(t *testing.T) {
	root := &lineage.Process{}
	for i, fields := range []map[string]any{
		{"container.id": "c1", "container.name": "web", "k8s.ns.name": "shop", "k8s.pod.name": "web-0", "proc.name": "nc", "proc.pid": json.Number("7"), "proc.pname": "sh", "proc.aname[2]": "node"},
		{"container.id": "c1", "container.name": "web", "k8s.ns.name": "shop", "k8s.pod.name": "web-0", "proc.name": "nc", "proc.pid": json.Number("7"), "proc.aname[1]": "sh", "proc.aname[2]": "node", "proc.is_exe_upper_layer": true},
		{"container.id": "c1", "container.name": "web", "k8s.ns.name": "shop", "k8s.pod.name": "web-0", "proc.name": "nc", "proc.pid": json.Number("8"), "proc.pname": "sh", "proc.aname[2]": "node", "proc.aname[3]": "<NA>"},
		{"container.id": "host", "proc.cmdline": "cat x"},
		{},
	} {
		root.Add(&alert.Alert{ID: fmt.Sprint(i), Hostname: "node-a", OutputFields: fields})
	}
	var b strings.Builder
	draw(root, 0, &b)
	const want = `pod shop/web-0, container web  0 false
 node  0 false
  sh  0 false
   nc 7 2 true
   nc 8 1 false
node node-a  0 false
 cat x  1 false
 unknown process  1 false
`
	if b.String() != want {
		t.Errorf("have\n%swant\n%s", b.String(), want)
	}
}
