package evidence

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestParseFlags(t *testing.T) {
	for line, want := range map[string]Flags{
		"--anonymous-auth=false":                              {"anonymous-auth": {"false"}},
		"--profiling --secure-port 0":                         {"profiling": {"true"}, "secure-port": {"0"}},
		"--profiling false":                                   {"profiling": {"true"}}, // the next word is no value of a switch
		"-data-dir /d --auto_tls=1":                           {"data-dir": {"/d"}, "auto-tls": {"1"}},
		"--authorization-mode=Node --authorization-mode=RBAC": {"authorization-mode": {"Node", "RBAC"}},
		"--some-secret=x --other y --config=/c":               {"config": {"/c"}},
		"--config":                                            {"config": {""}},
		"-- --config=/c":                                      {},
		"config=/c - ---config=/c":                            {},
		"--etcd-servers=https://me:word@a:1?t=o,unix://s":     {"etcd-servers": {"https://a:1,unix://s"}},
		"--etcd-servers=https://me:wo%zz@a":                   {"etcd-servers": {"unreadable"}},
		"--config=" + strings.Repeat("x", maxValue+1):         {},
	} {
		if got := ParseFlags(strings.Fields(line)); !reflect.DeepEqual(got, want) {
			t.Errorf("%.60s: %v, want %v", line, got, want)
		}
	}
}

func TestFlags(t *testing.T) {
	f := ParseFlags(strings.Fields("--profiling=no --profiling=false --client-cert-auth=what --feature-gates=A=true,B=false --feature-gates=A=false --enable-admission-plugins=X,,Y"))
	if f.Bool("profiling", true) || !f.Bool("client-cert-auth", true) || f.Bool("client-cert-auth", false) || !f.Bool("auto-tls", true) {
		t.Error("switches: the last value counts, and what is none is the default")
	}
	if f.Gate("A", true) || f.Gate("B", true) || !f.Gate("C", true) {
		t.Errorf("gates %v", f)
	}
	if got := f.List("enable-admission-plugins"); !reflect.DeepEqual(got, []string{"X", "Y"}) {
		t.Errorf("list %q", got)
	}
	f.AddVariable("ETCD_CERT_FILE", "/c")
	f.AddVariable("ETCD_PROFILING", "true")
	f.AddVariable("ETCD_INITIAL_CLUSTER_TOKEN", "t")
	f.AddVariable("CERT_DIR", "/d")
	if f.Value("cert-file") != "/c" || f.Value("profiling") != "false" || f.Has("initial-cluster-token") || f.Has("cert-dir") {
		t.Errorf("variables %v", f)
	}
}

func TestProgramOf(t *testing.T) {
	uid := int64(998)
	pod := &corev1.PodSpec{SecurityContext: &corev1.PodSecurityContext{RunAsUser: &uid}}
	etcd := &corev1.Container{Image: "etcd:3.6", Command: []string{"/usr/local/bin/etcd"}, Args: []string{"--auto-tls"}, Env: []corev1.EnvVar{{Name: "ETCD_DATA_DIR", Value: "/d"}}}
	p := ProgramOf(pod, etcd)
	if p == nil || p.Name != "etcd" || !p.Flags.Bool("auto-tls", false) || p.Flags.Value("data-dir") != "/d" || *p.UID != 998 {
		t.Errorf("etcd: %+v", p)
	}
	if p := ProgramOf(&corev1.PodSpec{}, &corev1.Container{Command: []string{"sh", "-c", "kube-apiserver"}}); p != nil {
		t.Errorf("a shell: %+v", p)
	}
	if p := ProgramOf(&corev1.PodSpec{}, &corev1.Container{}); p != nil {
		t.Errorf("nothing: %+v", p)
	}
}

func FuzzParseFlags(f *testing.F) {
	f.Add("--anonymous-auth=false --etcd-servers https://u:p@h -x --")
	f.Fuzz(func(t *testing.T, line string) {
		flags := ParseFlags(strings.Split(line, " "))
		for name, values := range flags {
			if len(values) > maxValues || len(fmt.Sprint(values)) > maxValues*(maxValue+32) {
				t.Errorf("%s has %d values", name, len(values))
			}
			flags.List(name)
			flags.Bool(name, true)
		}
		flags.Gate("A", true)
	})
}
