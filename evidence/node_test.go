package evidence

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

const nodeDocument = `{"apiVersion": "kubeguardian.dev/evidence/v1", "kind": "Node", "tool": "kubeguardian 1.0",
 "seenAt": "2026-11-26T06:00:00Z", "name": "cp-1", "os": {"id": "debian"},
 "programs": [{"name": "kube-apiserver", "source": "process 7", "flags": {"anonymous-auth": ["true", "false"]}}],
 "files": [{"path": "/a", "role": "cni", "mode": "0600", "uid": 0, "gid": 0}, {"path": "/b", "role": "manifest", "mode": "0600", "uid": 0, "gid": 0}],
 "gaps": [{"part": "files", "path": "/c", "reason": "permission denied"}, {"part": "files", "reason": "time ran out"}]}`

func TestNodeRecord(t *testing.T) {
	set, err := Read("n.json", []byte(nodeDocument))
	if err != nil || len(set.Nodes) != 1 {
		t.Fatalf("%+v, %v", set, err)
	}
	n := set.Nodes[0]
	if n.Origin != (Origin{Node, "kubeguardian 1.0", "n.json", time.Date(2026, 11, 26, 6, 0, 0, 0, time.UTC)}) {
		t.Errorf("origin %+v", n.Origin)
	}
	if n.Program("etcd") != nil || n.Program("kube-apiserver").Flags.Bool("anonymous-auth", true) {
		t.Errorf("programs %+v", n.Programs)
	}
	if files := n.FilesOf(FileCNI); len(files) != 1 || files[0].Path != "/a" || len(n.Files) != 2 {
		t.Errorf("files %+v", files)
	}
	if gap := n.Gap(PartFiles); gap != "/c: permission denied; time ran out" || n.Gap(PartSSH) != "" {
		t.Errorf("gap %q", gap)
	}
	if set.Empty() {
		t.Error("a set with a node is empty")
	}
	again, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Read("n.json", again)
	if err != nil || !reflect.DeepEqual(set, second) {
		t.Errorf("written and read again: %+v, %v", second, err)
	}
}

func TestNodeRecordIsRefused(t *testing.T) {
	for name, tt := range map[string]struct{ old, new, want string }{
		"nameless": {`"name": "cp-1"`, `"name": " "`, "n.json: a node without name"},
		"timeless": {`"seenAt": "2026-11-26T06:00:00Z", `, ``, "n.json: node cp-1: seenAt is missing"},
		"bad type": {`"os": {"id": "debian"}`, `"os": 3`, "n.json:2: os is a number"},
		"kind":     {`"kind": "Node"`, `"kind": "Cloud"`, "n.json: not evidence of a known format"},
	} {
		_, err := Read("n.json", []byte(strings.Replace(nodeDocument, tt.old, tt.new, 1)))
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
}

func FuzzNodeRecord(f *testing.F) {
	f.Add([]byte(nodeDocument))
	f.Add([]byte("apiVersion: kubeguardian.dev/evidence/v1\nkind: Node\nname: a\nseenAt: 2026-11-26T06:00:00Z\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := nodeRecord(document{"f", data})
		if err != nil {
			return
		}
		n := &set.Nodes[0]
		if n.Name == "" || n.SeenAt.IsZero() {
			t.Errorf("accepted %q at %v", n.Name, n.SeenAt)
		}
		n.Gap(PartFiles)
		n.FilesOf(FileCNI)
	})
}

const bench = `{"node": "worker-1", "seenAt": "2026-11-26T06:00:00Z", "Controls": [
 {"id": "4", "version": "cis-1.10", "node_type": "node", "tests": [{"section": "4.2", "results": [
  {"test_number": "4.2.1", "test_desc": "Ensure that  anonymous is off (Automated)", "status": "FAIL", "actual_value": "SECRET"},
  {"test_number": "4.2.2", "test_desc": "b", "status": "PASS"},
  {"test_number": "4.2.3", "test_desc": "c (Manual)", "status": "WARN"},
  {"test_number": "4.2.4", "test_desc": "d", "status": "INFO"},
  {"test_number": "four", "test_desc": "e", "status": "PASS"}]}]},
 {"id": "3", "version": "eks-1.5.0", "tests": [{"results": [{"test_number": "3.1.1", "status": "FAIL"}]}]}],
 "Totals": {"total_pass": 1, "total_fail": 1, "total_warn": 1, "total_info": 1}}`

func TestKubeBench(t *testing.T) {
	set, err := Read("bench.json", []byte(bench))
	if err != nil {
		t.Fatal(err)
	}
	origin := Origin{Node, "kube-bench", "bench.json", time.Date(2026, 11, 26, 6, 0, 0, 0, time.UTC)}
	want := []Verdict{
		{Origin: origin, Framework: "cis-1.10", Item: "4.2.1", Subject: "worker-1", Message: "Ensure that anonymous is off"},
		{Origin: origin, Framework: "cis-1.10", Item: "4.2.2", Subject: "worker-1", Pass: true, Message: "b"},
	}
	if !reflect.DeepEqual(set.Verdicts, want) {
		t.Errorf("verdicts %+v", set.Verdicts)
	}
	if _, err := Read("bench.json", []byte(strings.ReplaceAll(bench, "cis-1.10", "rke-cis-1.7"))); err == nil ||
		err.Error() != "bench.json: no verdict of kube-bench on the CIS Kubernetes benchmark (cis-1.x)" {
		t.Errorf("another benchmark: %v", err)
	}
}

func FuzzKubeBench(f *testing.F) {
	f.Add([]byte(bench))
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := kubeBench(document{"f", data})
		if err == nil && len(set.Verdicts) == 0 {
			t.Error("neither verdicts nor an error")
		}
	})
}
