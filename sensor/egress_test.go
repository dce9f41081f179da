package sensor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestBlockEgress moves the test's own process into a cgroup that may reach the
// loopback alone, and back.
func TestBlockEgress(t *testing.T) {
	l := start(t, Config{Enforce: true}, mine)
	for _, f := range l.Features() {
		if f.Name == "enforce.egress" && f.Err != nil {
			if os.Getenv("KUBEGUARDIAN_REQUIRE") == "all" {
				t.Fatal(f.Err)
			}
			t.Skip(f.Err)
		}
	}
	home := filepath.Join(hierarchy(t, ""), own(t, ""))
	dir := filepath.Join(home, "kubeguardian-egress")
	for _, err := range []error{os.Mkdir(dir, 0o755), move(dir)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := errors.Join(move(home), os.Remove(dir)); err != nil {
			t.Error(err)
		}
	})
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	lift, err := l.BlockEgress(dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", server.Addr().String())
	if err != nil {
		t.Errorf("the loopback is blocked: %v", err)
	} else {
		c.Close()
	}
	// These addresses are for documentation, and lead nowhere.
	for _, c := range []struct {
		network, address string
		send             bool
	}{
		{"tcp4", "192.0.2.1:9", false}, {"tcp6", "[2001:db8::1]:9", false}, {"udp4", "192.0.2.1:9", false},
		{"udp4", "192.0.2.1:9", true}, {"udp6", "[2001:db8::1]:9", true}, {"udp", "192.0.2.1:9", true},
	} {
		if err := reach(c.network, c.address, c.send); !errors.Is(err, syscall.EPERM) {
			t.Errorf("%s %s: error %v, want that it is not permitted", c.network, c.address, err)
		}
	}
	if err := lift(); err != nil {
		t.Fatal(err)
	}
	if err := reach("udp4", "192.0.2.1:9", false); errors.Is(err, syscall.EPERM) {
		t.Errorf("still blocked: %v", err)
	}
}

func move(dir string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, os.Getpid()), 0)
}

// reach connects, or sends from a socket that is not connected.
func reach(network, address string, send bool) error {
	if !send {
		c, err := net.Dial(network, address)
		if err == nil {
			c.Close()
		}
		return err
	}
	to, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return err
	}
	c, err := net.ListenUDP(network, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.WriteTo([]byte("x"), to)
	return err
}

func TestBlockEgressIsChecked(t *testing.T) {
	off := start(t, Config{}, mine)
	if _, err := off.BlockEgress(t.TempDir()); err == nil {
		t.Error("egress was blocked without enforcement")
	}
	l := start(t, Config{Enforce: true}, mine)
	if _, err := l.BlockEgress(t.TempDir()); err == nil {
		t.Error("a folder that is no cgroup was taken")
	}
}
