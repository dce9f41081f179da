package node

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/google/nftables"
	"github.com/kubeguardian/kubeguardian/evidence"
)

// TestFirewall asks the kernel, in a network of its own, where no rule can do
// harm.
func TestFirewall(t *testing.T) {
	failed := make(chan error)
	record := &evidence.NodeRecord{}
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		failed <- func() error {
			if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
				return err
			}
			if err := rules(); err != nil {
				return err
			}
			(&collector{tree: tree{"/"}, live: true, record: record}).firewall(t.Context())
			return nil
		}()
	}()
	if err := <-failed; errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EPROTONOSUPPORT) {
		if os.Getenv("KUBEGUARDIAN_REQUIRE") == "all" {
			t.Fatalf("no network of its own with nftables: %v", err)
		}
		t.Skipf("no network of its own with nftables: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	want := []evidence.FilterChain{
		{Family: "inet", Table: "guard", Name: "in", Hook: "input", Policy: "drop", Rules: 2},
		{Family: "inet", Table: "guard", Name: "out", Hook: "output", Policy: "accept"},
	}
	if !reflect.DeepEqual(record.Chains, want) {
		t.Errorf("chains %+v, gaps %+v", record.Chains, record.Gaps)
	}
}

// rules makes two chains at hooks and one that is only called.
func rules() error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	drop := nftables.ChainPolicyDrop
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "guard"})
	in := conn.AddChain(&nftables.Chain{Table: table, Name: "in", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter, Policy: &drop})
	conn.AddChain(&nftables.Chain{Table: table, Name: "out", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter})
	conn.AddChain(&nftables.Chain{Table: table, Name: "helper"})
	conn.AddRule(&nftables.Rule{Table: table, Chain: in})
	conn.AddRule(&nftables.Rule{Table: table, Chain: in})
	return conn.Flush()
}

func TestFilterChain(t *testing.T) {
	drop, hook := nftables.ChainPolicyDrop, nftables.ChainHookRef(1)
	for _, tt := range []struct {
		chain nftables.Chain
		want  evidence.FilterChain
	}{
		{nftables.Chain{Table: &nftables.Table{Name: "t", Family: nftables.TableFamilyIPv4}, Name: "c", Hooknum: hook, Policy: &drop},
			evidence.FilterChain{Family: "ip", Table: "t", Name: "c", Hook: "input", Policy: "drop", Rules: 3}},
		{nftables.Chain{Table: &nftables.Table{Name: "t", Family: nftables.TableFamilyNetdev}, Name: "c", Hooknum: hook},
			evidence.FilterChain{Family: "netdev", Table: "t", Name: "c", Hook: "1", Policy: "accept", Rules: 3}},
	} {
		if got := filterChain(&tt.chain, 3); got != tt.want {
			t.Errorf("%+v, want %+v", got, tt.want)
		}
	}
}

// TestListener opens a port and looks for it, in a tree whose first process is
// the test.
func TestListener(t *testing.T) {
	runtime.LockOSThread() // another test may have left a thread in another network
	defer runtime.UnlockOSThread()
	root, thread := t.TempDir(), fmt.Sprintf("/proc/self/task/%d", syscall.Gettid())
	for name, target := range map[string]string{"1": thread, strconv.Itoa(os.Getpid()): "/proc/self"} {
		if err := os.MkdirAll(filepath.Join(root, "proc"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(root, "proc", name)); err != nil {
			t.Fatal(err)
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	name, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	record := &evidence.NodeRecord{}
	(&collector{tree: tree{root}, record: record}).listeners(t.Context())
	want := evidence.Listener{Address: ln.Addr().String(), Process: string(name[:len(name)-1])}
	if !slices.Contains(record.Listeners, want) {
		t.Errorf("listeners %+v, want %+v", record.Listeners, want)
	}
}

// asNobody runs the test that calls it again, in a process without the power of
// root.
func asNobody(t *testing.T) {
	t.Helper()
	const nobody = 65534
	dir, err := os.MkdirTemp("", "kubeguardian-node-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "test"), program, 0o755), os.Chmod(dir, 0o755), os.Chown(dir, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	folder, err := os.ReadFile("testdata/kubeadm.txtar")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "testdata"), 0o755), os.WriteFile(filepath.Join(dir, "testdata/kubeadm.txtar"), folder, 0o644)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(dir, "test"), "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "TMPDIR="+dir, "HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
}

// TestUnprivileged collects from the prepared tree without the power of root:
// what it may not read is named, and nothing is taken for absent.
func TestUnprivileged(t *testing.T) {
	if os.Getuid() == 0 {
		asNobody(t)
		return
	}
	root := kubeadm(t)
	for _, name := range []string{"etc/kubernetes/manifests", "etc/kubernetes/pki", "etc/cni/net.d"} {
		folder := filepath.Join(root, name)
		if err := os.Chmod(folder, 0); err != nil {
			t.Fatal(err)
		}
		defer os.Chmod(folder, 0o700)
	}
	r := collect(t, root)
	for _, path := range []string{"/etc/kubernetes/manifests", "/etc/kubernetes/pki", "/etc/cni/net.d"} {
		if !slices.Contains(r.Gaps, evidence.NodeGap{Part: evidence.PartFiles, Path: path, Reason: "permission denied"}) {
			t.Errorf("%s is not among the gaps %+v", path, r.Gaps)
		}
	}
}

// TestPackedList keeps what other lists say when one cannot be read.
func TestPackedList(t *testing.T) {
	root := kubeadm(t)
	packed := filepath.Join(root, "var/lib/apt/lists/x-security_Packages.gz")
	write(t, packed, []byte("this is not gzip at all"))
	r := collect(t, root)
	want := evidence.NodeGap{Part: evidence.PartUpdates, Path: "/var/lib/apt/lists", Reason: "x-security_Packages.gz: gzip: invalid header"}
	if !slices.Contains(r.Gaps, want) {
		t.Errorf("gaps %+v", r.Gaps)
	}
	if len(r.Updates.Security) != 1 {
		t.Errorf("what the other list says is lost: %+v", r.Updates)
	}
}
