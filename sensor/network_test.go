package sensor

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/kubeguardian/kubeguardian/sensor/record"
)

var networkTypes = []string{"socket", "bind", "listen", "connect", "accept", "accept4", "sendto", "sendmsg", "recvfrom", "recvmsg", "shutdown"}

func tuple(t *testing.T, r *record.Record) record.Tuple {
	t.Helper()
	got, ok := r.Named("tuple").Tuple()
	if !ok {
		t.Fatalf("%s has no tuple", r.Type)
	}
	return got
}

func TestConnection(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l := start(t, Config{Types: networkTypes}, mine)
		var plain net.ListenConfig
		plain.SetMultipathTCP(false) // the kernel keeps the queue of such a socket elsewhere
		server, err := plain.Listen(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		client, err := net.Dial("tcp", server.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		accepted, err := server.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer accepted.Close()
		here, there := netip.MustParseAddrPort(client.LocalAddr().String()), netip.MustParseAddrPort(client.RemoteAddr().String())

		l.wait("bind", func(r *record.Record) bool {
			got, _ := r.Named("addr").Address()
			return r.Type.String() == "bind" && got.AddrPort == netip.AddrPortFrom(there.Addr(), 0)
		})
		l.wait("listen", func(r *record.Record) bool {
			f, _ := r.Extra(record.FD).File()
			return r.Type.String() == "listen" && f.Socket.Local == there
		})
		r := l.wait("connect", func(r *record.Record) bool { return r.Type.String() == "connect" && tuple(t, r).Remote == there })
		if got := tuple(t, r); got.Local != here || got.Protocol != syscall.IPPROTO_TCP {
			t.Errorf("connect %+v, want from %v", got, here)
		}
		if got, _ := r.Named("addr").Address(); got.AddrPort != there {
			t.Errorf("connect to %v, want %v", got.AddrPort, there)
		}
		r = l.wait("accept", func(r *record.Record) bool { return r.Type.String() == "accept4" && r.Result >= 0 })
		if got := tuple(t, r); got.Local != there || got.Remote != here || !got.Connected {
			t.Errorf("accept %+v, want %v from %v", got, there, here)
		}
		if most, _ := r.Named("queuemax").Int(); most <= 0 {
			t.Errorf("queue of %d", most)
		}
	}
}

func TestRefused(t *testing.T) {
	l := start(t, Config{Types: networkTypes}, mine)
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := netip.MustParseAddrPort(server.Addr().String())
	server.Close()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := syscall.Connect(fd, &syscall.SockaddrInet4{Port: int(address.Port()), Addr: address.Addr().As4()}); err == nil {
		t.Fatal("a closed port took a connection")
	}
	r := l.wait("the failure", func(r *record.Record) bool { return r.Type.String() == "connect" && r.Result < 0 })
	if got := tuple(t, r); r.Result != -int64(syscall.ECONNREFUSED) || got.Remote != address || got.Connected {
		t.Errorf("result %d of %+v, want a refusal by %v", r.Result, got, address)
	}
}

func TestDatagram(t *testing.T) {
	l := start(t, Config{Types: networkTypes}, mine)
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	here, there := client.LocalAddr().(*net.UDPAddr).AddrPort(), server.LocalAddr().(*net.UDPAddr).AddrPort()
	payload := strings.Repeat("p", 100)
	if _, err := client.WriteToUDPAddrPort([]byte(payload), there); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 200)
	if _, _, err := server.ReadFromUDPAddrPort(buffer); err != nil {
		t.Fatal(err)
	}
	sent := l.wait("sendto", func(r *record.Record) bool { return strings.HasPrefix(r.Type.String(), "send") && r.Result == 100 })
	if got := tuple(t, sent); got.Remote != there || got.Local != here || got.Protocol != syscall.IPPROTO_UDP {
		t.Errorf("sent %+v, want from %v to %v", got, here, there)
	}
	if data := sent.Named("data"); text(t, data) != payload[:80] || !data.Truncated() {
		t.Errorf("data %q, want the first 80 bytes of it", text(t, data))
	}
	if size, _ := sent.Named("size").Int(); size != 100 {
		t.Errorf("size %d, want 100", size)
	}
	got := l.wait("recvfrom", func(r *record.Record) bool { return strings.HasPrefix(r.Type.String(), "recv") && r.Result == 100 })
	if got := tuple(t, got); got.Remote != here || got.Local != there {
		t.Errorf("received %+v, want at %v from %v", got, there, here)
	}
	if text(t, got.Named("data")) != payload[:80] {
		t.Errorf("data %q", text(t, got.Named("data")))
	}
}

func TestMessages(t *testing.T) {
	l := start(t, Config{Types: networkTypes}, mine)
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(pair[0])
	defer syscall.Close(pair[1])
	if _, err := syscall.SendmsgN(pair[0], []byte("message"), nil, nil, 0); err != nil {
		t.Fatal(err)
	}
	if _, _, _, _, err := syscall.Recvmsg(pair[1], make([]byte, 50), nil, 0); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sendmsg", "recvmsg"} {
		r := l.wait(name, func(r *record.Record) bool { return r.Type.String() == name && r.Result == 7 })
		if text(t, r.Named("data")) != "message" || tuple(t, r).Family != record.FamilyUnix {
			t.Errorf("%s: data %q of %+v", name, text(t, r.Named("data")), tuple(t, r))
		}
	}
}

func TestUnixNames(t *testing.T) {
	l := start(t, Config{Types: networkTypes}, mine)
	for _, name := range []string{filepath.Join(t.TempDir(), "sock"), "@" + fmt.Sprint("kubeguardian-", os.Getpid())} {
		server, err := net.Listen("unix", name)
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		client, err := net.Dial("unix", name)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		want := strings.Replace(name, "@", "\x00", 1)
		l.wait("connect to "+name, func(r *record.Record) bool {
			return r.Type.String() == "connect" && string(tuple(t, r).RemoteName) == want
		})
	}
}

// TestFamilies holds that sockets of families without addresses are told apart.
func TestFamilies(t *testing.T) {
	l := start(t, Config{Types: networkTypes}, mine)
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	r := l.wait("socket", func(r *record.Record) bool {
		domain, _ := r.Named("domain").Int()
		return r.Type.String() == "socket" && domain == syscall.AF_NETLINK && int(r.Result) == fd
	})
	if kind, _ := r.Named("type").Int(); kind != syscall.SOCK_RAW {
		t.Errorf("type %d, want %d", kind, syscall.SOCK_RAW)
	}
	if flags, _ := r.Named("flags").Int(); flags != syscall.SOCK_CLOEXEC {
		t.Errorf("flags %#x, want %#x", flags, syscall.SOCK_CLOEXEC)
	}
	if f, _ := r.Extra(record.FD).File(); f.Kind != 'n' || f.Socket.Family != syscall.AF_NETLINK {
		t.Errorf("descriptor %c %+v, want netlink", f.Kind, f.Socket)
	}
}
