package syscall

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"github.com/kubeguardian/kubeguardian/event"
)

// A given is a path as given with the absolute one.
type given struct {
	Given string `json:"given"`
	Path  string `json:"path"`
}

// A numbered is the number of a process, user or group with its name.
type numbered struct {
	Num  int64  `json:"num"`
	Name string `json:"name"`
}

// An encoded holds bytes that are no text.
type encoded struct {
	Base64 []byte `json:"base64"`
}

// paramForm returns what stands for a parameter in JSON: the least that says all
// of it.
func (e *Event) paramForm(p *Param, t *paramType) any {
	switch t.kind {
	case kindText, kindBytes:
		if !utf8.ValidString(p.Text) {
			return encoded{[]byte(p.Text)}
		}
		return p.Text
	case kindPath:
		if p.Path == "" {
			return p.Text
		}
		return given{p.Text, p.Path}
	case kindFD:
		if p.FD != nil {
			return p.FD
		}
		return p.Num
	case kindTuple, kindAddress:
		if p.FD != nil {
			return p.FD
		}
		return p.Text
	case kindPolled:
		return e.Polled
	case kindPid, kindUser, kindGroup:
		if p.Text != "" {
			return numbered{p.Num, p.Text}
		}
	}
	if t.typ == event.TypeUint {
		return uint64(p.Num)
	}
	return p.Num
}

// readParam reads what stands for a parameter in JSON.
func (e *Event) readParam(t *paramType, data []byte) (p Param, err error) {
	object := len(data) > 0 && data[0] == '{'
	switch t.kind {
	case kindText, kindBytes:
		if object {
			var b encoded
			err = strict(data, &b)
			return Param{Text: string(b.Base64)}, err
		}
		err = strict(data, &p.Text)
	case kindPath:
		if object {
			var g given
			err = strict(data, &g)
			return Param{Text: g.Given, Path: g.Path}, err
		}
		err = strict(data, &p.Text)
	case kindFD:
		if object {
			return readDescriptor(data)
		}
		p.Num, err = numberOf(data, descriptorNumberOf)
	case kindTuple, kindAddress:
		if object {
			return readDescriptor(data)
		}
		if err = strict(data, &p.Text); err == nil {
			p = readEnds(p.Text)
		}
	case kindPolled:
		err = e.readPolled(data)
	case kindPid, kindUser, kindGroup:
		if object {
			var n numbered
			err = strict(data, &n)
			return Param{Num: n.Num, Text: n.Name}, err
		}
		p.Num, err = numberOf(data, func(string) (uint64, bool) { return 0, false })
	default:
		p.Num, err = numberOf(data, t.number)
	}
	return p, err
}

// strict reads JSON in which nothing is unknown.
func strict(data []byte, into any) error {
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return plainError(err)
	}
	return nil
}

// number returns what the names of a parameter's values stand for.
func (t *paramType) number(s string) (uint64, bool) {
	switch {
	case t.kind == kindErrno:
		return errnoNumber(s)
	case t.kind == kindSignal:
		n, ok := signalNames.byName[s]
		return n, ok
	case t.names != nil:
		return t.names.parse(s)
	}
	return 0, false
}

// errnoNumber returns the result that the name of an error stands for.
func errnoNumber(s string) (uint64, bool) {
	n, ok := errnoNames.byName[s]
	return -n, ok
}

// descriptorNumberOf returns what a name stands for in place of a descriptor.
func descriptorNumberOf(s string) (uint64, bool) {
	if s == "AT_FDCWD" {
		return 1<<64 + currentDirectory, true
	}
	return errnoNumber(s)
}

func readDescriptor(data []byte) (Param, error) {
	f := &FD{}
	if err := strict(data, f); err != nil {
		return Param{}, err
	}
	f.Ready()
	return Param{Num: f.Num, FD: f}, nil
}

// readEnds reads a tuple or address as it is printed; what is none, as the path
// of a socket, stays a text.
func readEnds(s string) Param {
	f := &FD{Num: -1}
	client, server, two := strings.Cut(s, "->")
	if !two {
		client, server = "", s
	}
	var ok bool
	if f.Server, ok = readEnd(server); !ok {
		return Param{Text: s}
	}
	if f.Client, ok = readEnd(client); two && !ok {
		return Param{Text: s}
	}
	f.Type = familyOf(f.Server)
	return Param{Num: -1, FD: f.Ready()}
}

// readEnd reads an address and a port, with or without brackets.
func readEnd(s string) (netip.AddrPort, bool) {
	if a, err := netip.ParseAddrPort(s); err == nil {
		return a, true
	}
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return netip.AddrPort{}, false
	}
	a, err := netip.ParseAddrPort("[" + s[:i] + "]" + s[i:])
	return a, err == nil
}

func familyOf(a netip.AddrPort) FDType {
	if a.Addr().Unmap().Is4() {
		return FDIPv4
	}
	return FDIPv6
}

func (e *Event) readPolled(data []byte) error {
	if err := strict(data, &e.Polled); err != nil {
		return err
	}
	for i, d := range e.Polled {
		if d.FD == nil {
			return fmt.Errorf("[%d] has no fd", i)
		}
		d.FD.Ready()
	}
	return nil
}

// UnmarshalJSON reads a descriptor. Its type follows from its addresses or its
// path if it is not said.
func (f *FD) UnmarshalJSON(data []byte) error {
	type plain FD
	in := plain{Num: -1}
	if err := strict(data, &in); err != nil {
		return fmt.Errorf("fd: %w", err)
	}
	*f = FD(in)
	switch {
	case f.Type != FDUnknown:
	case f.Server.IsValid():
		f.Type = familyOf(f.Server)
	case f.Client.IsValid():
		f.Type = familyOf(f.Client)
	case strings.HasPrefix(f.Name, "/"):
		f.Type = FDFile
	}
	return nil
}

// UnmarshalText reads the name of a type.
func (t *FDType) UnmarshalText(b []byte) error {
	for i, known := range fdTypes {
		if known.name == string(b) {
			*t = FDType(i)
			return nil
		}
	}
	return fmt.Errorf("unknown type of descriptor %.40q", b)
}

// MarshalText writes the name of the type.
func (t FDType) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads the name of a protocol.
func (p *Protocol) UnmarshalText(b []byte) error {
	for i, name := range protocolNames {
		if name == string(b) {
			*p = Protocol(i)
			return nil
		}
	}
	return fmt.Errorf("unknown protocol %.40q", b)
}

// MarshalText writes the name of the protocol.
func (p Protocol) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// MarshalText writes the set in hexadecimal digits.
func (s CapabilitySet) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%#x", uint64(s)), nil }

// UnmarshalText reads a set: hexadecimal digits, or names separated by blanks.
func (s *CapabilitySet) UnmarshalText(b []byte) error {
	if digits, ok := strings.CutPrefix(string(b), "0x"); ok {
		if _, err := fmt.Sscanf(digits, "%x", (*uint64)(s)); err != nil {
			return fmt.Errorf("%.40q is no set of capabilities", b)
		}
		return nil
	}
	*s = 0
	for _, name := range strings.Fields(string(b)) {
		bit, ok := capabilityNames.byName[name]
		if !ok {
			return fmt.Errorf("unknown capability %.40q", name)
		}
		*s |= 1 << bit
	}
	return nil
}

// A processForm is a process in JSON. Its relatives stand in the event.
type processForm struct {
	plainProcess
	Stdin  *FD       `json:"stdin,omitzero"`
	Stdout *FD       `json:"stdout,omitzero"`
	Stderr *FD       `json:"stderr,omitzero"`
	Files  openFiles `json:"files,omitzero"`
}

type plainProcess Process

// MarshalJSON writes a process without its relatives, and with such descriptors
// only as were recorded before.
func (p *Process) MarshalJSON() ([]byte, error) {
	out := processForm{plainProcess: plainProcess(*p), Stdin: p.Streams[0], Stdout: p.Streams[1], Stderr: p.Streams[2]}
	out.Files, _ = p.Files.(openFiles) // those that must be asked for are not recorded
	return json.Marshal(out)
}

// UnmarshalJSON reads a process. Groups and sessions that it does not name are
// not known.
func (p *Process) UnmarshalJSON(data []byte) error {
	in := processForm{plainProcess: plainProcess{PGID: -1, VPGID: -1, SID: -1}}
	if err := strict(data, &in); err != nil {
		return fmt.Errorf("process: %w", err)
	}
	*p = Process(in.plainProcess)
	p.Streams = [3]*FD{in.Stdin, in.Stdout, in.Stderr}
	for _, f := range p.Streams {
		if f != nil {
			f.Ready()
		}
	}
	if in.Files == nil {
		return nil
	}
	if len(in.Files) > maxFiles {
		return fmt.Errorf("more than %d files", maxFiles)
	}
	for _, f := range in.Files {
		if f == nil {
			return errors.New("one of files is null")
		}
		f.Ready()
	}
	p.Files = in.Files
	return nil
}

// maxFiles is how many open descriptors of a process are recorded.
const maxFiles = 1024

// openFiles are descriptors that do not change.
type openFiles []*FD

// Get implements [Descriptors].
func (o openFiles) Get(num int64) *FD {
	for _, f := range o {
		if f.Num == num {
			return f
		}
	}
	return nil
}

// Each implements [Descriptors].
func (o openFiles) Each(see func(*FD) bool) {
	for _, f := range o {
		if !see(f) {
			return
		}
	}
}

// UnmarshalJSON reads a container, of which all is known unless it says that it
// is not.
func (c *Container) UnmarshalJSON(data []byte) error {
	type plain Container
	in := plain{Known: true}
	if err := strict(data, &in); err != nil {
		return fmt.Errorf("container: %w", err)
	}
	if in.ID == "" {
		return errors.New("container has no id; it is host outside containers")
	}
	*c = Container(in)
	return nil
}
