package syscall

import (
	"net/netip"
	"strconv"
)

// An FDType is what a descriptor refers to.
type FDType uint8

// The types of descriptors.
const (
	FDUnknown FDType = iota
	FDFile
	FDDirectory
	FDIPv4
	FDIPv6
	FDUnix
	FDPipe
	FDEvent
	FDSignal
	FDEventPoll
	FDInotify
	FDTimer
	FDNetlink
	FDBPF
	FDIOUring
	FDUserfault
	FDMemory
	FDPid
	FDUnsupported
)

// fdTypes has the name and the letter of each type, as fd.type and fd.typechar
// have them.
var fdTypes = [...]struct{ name, char string }{
	FDUnknown: {"unknown", "o"}, FDFile: {"file", "f"}, FDDirectory: {"directory", "d"},
	FDIPv4: {"ipv4", "4"}, FDIPv6: {"ipv6", "6"},
	FDUnix: {"unix", "u"}, FDPipe: {"pipe", "p"}, FDEvent: {"event", "e"}, FDSignal: {"signalfd", "s"},
	FDEventPoll: {"eventpoll", "l"}, FDInotify: {"inotify", "i"}, FDTimer: {"timerfd", "t"}, FDNetlink: {"netlink", "n"},
	FDBPF: {"bpf", "b"}, FDIOUring: {"io_uring", "r"}, FDUserfault: {"userfaultfd", "u"}, FDMemory: {"memfd", "m"},
	FDPid: {"pidfd", "P"}, FDUnsupported: {"unsupported", "X"},
}

// FDTypeOf returns the type that a letter stands for: of u, a socket; of one that
// is not known, [FDUnknown].
func FDTypeOf(char byte) FDType {
	for t, known := range fdTypes {
		if known.char[0] == char {
			return FDType(t)
		}
	}
	return FDUnknown
}

// String returns the name of the type.
func (t FDType) String() string { return fdTypes[t].name }

// Char returns the letter of the type.
func (t FDType) Char() string { return fdTypes[t].char }

// IsIP reports whether the type is a socket of IPv4 or IPv6.
func (t FDType) IsIP() bool { return t == FDIPv4 || t == FDIPv6 }

// A Protocol is what a socket speaks above IP.
type Protocol uint8

// The protocols; the zero value is for one that is not known.
const (
	NoProtocol Protocol = iota
	TCP
	UDP
	ICMP
	RawIP
)

var protocolNames = [...]string{"", "tcp", "udp", "icmp", "raw"}

// String returns the name of the protocol, as fd.l4proto has it; empty for none.
func (p Protocol) String() string { return protocolNames[p] }

// An FD is a descriptor as it is after an event. It is immutable once it is
// published by an event or a table. Before that, [FD.Ready] is called.
type FD struct {
	Num  int64  `json:"num"` // -1 if there is none
	Type FDType `json:"type,omitzero"`
	Name string `json:"name,omitzero"` // absolute path of a file, name of anything else; of an IP socket [FD.Ready] makes it
	Raw  string `json:"raw,omitzero"`  // path as given; empty if no path was
	Dev  uint32 `json:"dev,omitzero"`
	Ino  uint64 `json:"ino,omitzero"` // 0 if not known

	Protocol   Protocol       `json:"protocol,omitzero"`
	Client     netip.AddrPort `json:"client,omitzero"` // the ends of an IP socket; the address of one that listens is Server
	Server     netip.AddrPort `json:"server,omitzero"`
	ClientName string         `json:"client_name,omitzero"` // DNS names of the ends; empty if not known
	ServerName string         `json:"server_name,omitzero"`
	Serving    bool           `json:"serving,omitzero"`   // the process is the server: its own end is Server
	Connected  bool           `json:"connected,omitzero"` // the socket has a peer
	Changed    bool           `json:"changed,omitzero"`   // this event has given it another peer or name
	Upper      bool           `json:"upper,omitzero"`     // the file is in the upper layer of an overlay
	Lower      bool           `json:"lower,omitzero"`     // the file is in the lower layer of an overlay

	clientIP, serverIP string // the bytes of the addresses
}

// Ready prepares the texts that rules ask for with every event.
func (f *FD) Ready() *FD {
	f.clientIP, f.serverIP = addressBytes(f.Client.Addr()), addressBytes(f.Server.Addr())
	if f.Name == "" && f.Type.IsIP() {
		f.Name = f.tuple()
	}
	return f
}

func addressBytes(a netip.Addr) string { return string(a.Unmap().AsSlice()) }

// tuple returns both ends as client->server, or the one that is known.
func (f *FD) tuple() string {
	switch {
	case !f.Client.IsValid():
		return endText(f.Server)
	case !f.Server.IsValid():
		return endText(f.Client)
	}
	return endText(f.Client) + "->" + endText(f.Server)
}

// endText writes an address and a port as Falco does, without brackets.
func endText(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.Addr().Unmap().String() + ":" + strconv.Itoa(int(a.Port()))
}
