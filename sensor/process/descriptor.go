package process

import (
	"net/netip"
	"path"
	"strings"

	"github.com/kubeguardian/kubeguardian/sensor/record"
	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// openTypes are the event types that open a path.
var openTypes = typeSet("open", "openat", "openat2", "creat", "open_by_handle_at")

func typeSet(names ...string) [256]bool {
	var set [256]bool
	for _, name := range names {
		if t, ok := record.TypeOf(name); ok {
			set[t] = true
		}
	}
	return set
}

func isOpen(t record.Type) bool { return openTypes[t] }

// clean returns a path without what is superfluous in it.
func clean(p string) string {
	if p == "" || !strings.Contains(p, "//") && !strings.Contains(p, "/.") && (len(p) == 1 || p[len(p)-1] != '/') {
		return p
	}
	return path.Clean(p)
}

// descriptor returns the descriptor that an event is about, nil if it is about
// none.
func (r *Reader) descriptor(rec *record.Record) *syscall.FD {
	if isOpen(rec.Type) {
		return r.opened(rec)
	}
	file, ok := rec.Extra(record.FD).File()
	if !ok {
		return nil
	}
	r.fd = syscall.FD{Num: descriptorNumber(rec)}
	r.fill(&r.fd, rec, file)
	return r.fd.Ready()
}

// opened returns the descriptor of an event that opens a path, nil if it failed.
func (r *Reader) opened(rec *record.Record) *syscall.FD {
	if rec.Result < 0 {
		return nil
	}
	name := rec.Named("name")
	if name.Missing() {
		name = rec.Named("path")
	}
	given, _ := name.Text()
	r.fd = syscall.FD{Num: rec.Result, Type: syscall.FDFile, Raw: text(given)}
	if file, ok := rec.Extra(record.FD).File(); ok {
		r.fill(&r.fd, rec, file)
	}
	if kernel, ok := rec.Extra(record.Path).Text(); ok {
		r.fd.Name = text(kernel)
	} else {
		base, _ := rec.Extra(record.Base).Text()
		r.fd.Name = absolute(text(base), r.fd.Raw)
	}
	if r.fd.Name == "" {
		r.fd.Name = r.fd.Raw
	}
	if flags, _ := rec.Named("flags").Int(); flags&directoryFlag != 0 {
		r.fd.Type = syscall.FDDirectory
	}
	if dev, ok := rec.Named("dev").Uint(); ok {
		r.fd.Dev = uint32(dev)
	}
	if ino, ok := rec.Named("ino").Uint(); ok {
		r.fd.Ino = ino
	}
	state, _ := rec.Extra(record.FileState).Int()
	r.fd.Upper, r.fd.Lower = state&record.Upper != 0, state&record.Lower != 0
	return r.fd.Ready()
}

const directoryFlag = 0x10000 // O_DIRECTORY

// descriptorNumber returns the number of the descriptor that a call worked on,
// or made.
func descriptorNumber(rec *record.Record) int64 {
	if strings.HasPrefix(rec.Type.String(), "dup") {
		return rec.Result
	}
	for _, p := range rec.Type.Params() {
		if p.Type == "fd" {
			if n, ok := rec.Named(p.Name).Int(); ok {
				return n
			}
		}
	}
	return -1
}

var fileTypes = newFileTypes()

func newFileTypes() [256]syscall.FDType {
	var types [256]syscall.FDType
	for t := syscall.FDUnknown; t <= syscall.FDUnsupported; t++ {
		if char := t.Char()[0]; types[char] == 0 { // of several with one letter the first is meant
			types[char] = t
		}
	}
	types['S'] = syscall.FDUnsupported
	return types
}

// fill completes a descriptor by what the kernel says of its file.
func (r *Reader) fill(fd *syscall.FD, rec *record.Record, file record.File) {
	describe(fd, file)
	if !file.IsSocket() {
		return
	}
	tuple := file.Socket
	if named, ok := rec.Named("tuple").Tuple(); ok && named.Family == tuple.Family {
		tuple = named // with the peer that this call named
	}
	r.setEnds(fd, rec, tuple)
}

// describe notes what the kernel says of a file, but for the ends of a socket.
func describe(fd *syscall.FD, file record.File) {
	fd.Type, fd.Dev, fd.Ino = fileTypes[file.Kind], uint32(file.Device), file.Inode
	fd.Upper, fd.Lower = file.Layer&record.Upper != 0, file.Layer&record.Lower != 0
	fd.Name = text(file.Name)
}

// tupleOf returns the two ends that a parameter shows.
func (r *Reader) tupleOf(rec *record.Record, v record.Value) *syscall.FD {
	tuple, ok := v.Tuple()
	if !ok {
		return nil
	}
	r.tuple = syscall.FD{Num: -1, Type: familyType(tuple.Family)}
	if file, ok := rec.Extra(record.FD).File(); ok {
		r.tuple.Ino = file.Inode
	}
	r.setEnds(&r.tuple, rec, tuple)
	return r.tuple.Ready()
}

func familyType(family uint16) syscall.FDType {
	switch family {
	case record.FamilyIPv4:
		return syscall.FDIPv4
	case record.FamilyIPv6:
		return syscall.FDIPv6
	case record.FamilyUnix:
		return syscall.FDUnix
	}
	return syscall.FDUnsupported
}

// addressOf returns the end that a caller named.
func addressOf(rec *record.Record, v record.Value) *syscall.FD {
	a, ok := v.Address()
	if !ok {
		return nil
	}
	fd := &syscall.FD{Num: -1, Type: familyType(a.Family)}
	switch {
	case fd.Type.IsIP():
		fd.Server = plain(a.AddrPort)
		if fd.Server.Addr().Is4() {
			fd.Type = syscall.FDIPv4
		}
		fd.Serving = rec.Type.String() == "bind"
	case fd.Type == syscall.FDUnix:
		fd.Name = socketName(a.Name)
	}
	return fd.Ready()
}

// socketName writes an abstract name of a Unix socket with @, as is usual.
func socketName(name []byte) string {
	if len(name) > 0 && name[0] == 0 {
		return "@" + string(name[1:])
	}
	return text(name)
}

// plain returns an IPv4 address that is mapped into IPv6 as what it is.
func plain(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

var protocols = map[uint8]syscall.Protocol{1: syscall.ICMP, 58: syscall.ICMP, 6: syscall.TCP, 17: syscall.UDP, 255: syscall.RawIP}

// setEnds says who is the client and who the server of a socket.
func (r *Reader) setEnds(fd *syscall.FD, rec *record.Record, tuple record.Tuple) {
	fd.Connected = tuple.Connected
	if tuple.Family == record.FamilyUnix {
		fd.Name = socketName(tuple.LocalName)
		if len(tuple.RemoteName) > 0 {
			fd.Name = socketName(tuple.RemoteName)
		}
		return
	}
	if tuple.Family != record.FamilyIPv4 && tuple.Family != record.FamilyIPv6 {
		return
	}
	fd.Protocol = protocols[tuple.Protocol]
	local, remote := plain(tuple.Local), plain(tuple.Remote)
	if local.Addr().Is4() && (remote.Addr().Is4() || !remote.IsValid() || remote.Addr().IsUnspecified()) || remote.Addr().Is4() && local.Addr().IsUnspecified() {
		fd.Type = syscall.FDIPv4
	}
	if !remote.IsValid() || remote.Addr().IsUnspecified() && remote.Port() == 0 {
		fd.Serving = true
		if local.Port() != 0 || !local.Addr().IsUnspecified() {
			fd.Server = local
		}
		return
	}
	fd.Serving, fd.Changed = r.t.roleOf(fd.Ino, rec, local, remote)
	fd.Client, fd.Server = local, remote
	if fd.Serving {
		fd.Client, fd.Server = remote, local
	}
}

// A role is what is known of a socket: whether its process is the server, and
// the peer of the last event.
type role struct {
	serving bool
	remote  netip.AddrPort
}

// maxRoles is how many sockets are known. When there are more, half of them are
// forgotten, and their roles guessed again.
const maxRoles = 1 << 16

// roleOf returns whether the process is the server of a connection, and whether
// its peer is a new one.
func (t *Table) roleOf(inode uint64, rec *record.Record, local, remote netip.AddrPort) (serving, changed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	known, ok := t.roles[inode]
	next := role{known.serving, remote}
	switch name := rec.Type.String(); {
	case strings.HasPrefix(name, "accept"):
		next.serving = true
	case name == "connect":
		next.serving = false
	case !ok:
		next.serving = guessServing(strings.HasPrefix(name, "recv"), local.Port(), remote.Port())
	}
	changed = !ok || known.remote != remote
	if inode == 0 || !changed && known == next {
		return next.serving, changed
	}
	if !ok && len(t.roles) >= maxRoles {
		for old := range t.roles {
			if delete(t.roles, old); len(t.roles) <= maxRoles/2 {
				break
			}
		}
	}
	t.roles[inode] = next
	return next.serving, changed
}

// guessServing guesses by the ports, and if these do not tell by who sends.
func guessServing(receives bool, local, remote uint16) bool {
	const ephemeral = 32768
	if (local < ephemeral) != (remote < ephemeral) {
		return local < ephemeral
	}
	return receives
}
