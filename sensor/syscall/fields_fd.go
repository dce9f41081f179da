package syscall

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/kubeguardian/kubeguardian/event"
)

// descriptorFields are those of the descriptor that the event is about, and of
// the descriptors that it waits for.
func descriptorFields() map[string]extractor {
	m := map[string]extractor{
		"fd.num":                descriptorNumber,
		"fd.type":               openedOr("file", func(f *FD) string { return f.Type.String() }),
		"fd.typechar":           openedOr("f", func(f *FD) string { return f.Type.Char() }),
		"fd.types":              openTypes,
		"fd.name":               name((*Event).descriptorName),
		"fd.nameraw":            name((*Event).rawName),
		"fd.directory":          name((*Event).directory),
		"fd.filename":           name((*Event).fileName),
		"fd.containername":      inContainer((*Event).descriptorName),
		"fd.containerdirectory": inContainer((*Event).directory),
		"fd.uid":                descriptorID,
		"fd.dev":                ofFile(func(f *FD) event.Value { return event.Hex(uint64(f.Dev)) }),
		"fd.dev.major":          ofFile(func(f *FD) event.Value { return event.Uint(uint64(f.Dev >> 8 & 0xfff)) }),
		"fd.dev.minor":          ofFile(func(f *FD) event.Value { return event.Uint(uint64(f.Dev&0xff | f.Dev>>12&0xfff00)) }),
		"fd.ino":                ofFile(func(f *FD) event.Value { return event.Number(int64(f.Ino)) }),
		"fd.is_upper_layer":     of(func(f *FD) event.Value { return event.Bool(f.Upper) }),
		"fd.is_lower_layer":     of(func(f *FD) event.Value { return event.Bool(f.Lower) }),
		"fd.l4proto":            of(func(f *FD) event.Value { return known(f.Protocol.String()) }),
		"fd.sockfamily":         of(family),
		"fd.is_server":          of(func(f *FD) event.Value { return event.Bool(f.Serving) }),
		"fd.connected":          of(func(f *FD) event.Value { return event.Bool(f.Connected) }),
		"fd.name_changed":       of(func(f *FD) event.Value { return event.Bool(f.Changed) }),

		"fdlist.nums":   polled(func(f *FD) string { return strconv.FormatInt(f.Num, 10) }),
		"fdlist.names":  polled(func(f *FD) string { return f.Name }),
		"fdlist.cips":   polled(func(f *FD) string { return ipText(f.Client) }),
		"fdlist.sips":   polled(func(f *FD) string { return ipText(f.Server) }),
		"fdlist.cports": polled(func(f *FD) string { return portText(f.Client) }),
		"fdlist.sports": polled(func(f *FD) string { return portText(f.Server) }),
	}
	for letter, get := range map[string]func(*FD) end{
		"c": func(f *FD) end { return end{f.Client, f.clientIP, f.ClientName} },
		"s": func(f *FD) end { return end{f.Server, f.serverIP, f.ServerName} },
		"l": (*FD).local,
		"r": (*FD).remote,
	} {
		m["fd."+letter+"ip"] = of(func(f *FD) event.Value { return get(f).address() })
		m["fd."+letter+"ip.name"] = of(func(f *FD) event.Value { return known(get(f).name) })
		m["fd."+letter+"net"] = of(func(f *FD) event.Value { return get(f).network() })
		m["fd."+letter+"port"] = of(func(f *FD) event.Value { return get(f).port() })
		m["fd."+letter+"proto"] = of(func(f *FD) event.Value { return get(f).service() })
	}
	return m
}

// of returns what a descriptor says; missing if the event has none.
func of(get func(*FD) event.Value) extractor {
	return func(e *Event, _ event.Ref) event.Value {
		if e.FD == nil {
			return event.Value{}
		}
		return get(e.FD)
	}
}

// ofFile returns what the inode of a descriptor says; missing if it has none.
func ofFile(get func(*FD) event.Value) extractor {
	return of(func(f *FD) event.Value {
		if f.Ino == 0 {
			return event.Value{}
		}
		return get(f)
	})
}

// An end is one end of a connection.
type end struct {
	netip.AddrPort
	bytes string // of the address
	name  string // of the address; empty if not known
}

// local returns the end of the process itself, remote the other one.
func (f *FD) local() end {
	if f.Serving {
		return end{f.Server, f.serverIP, f.ServerName}
	}
	return end{f.Client, f.clientIP, f.ClientName}
}

func (f *FD) remote() end {
	if f.Serving {
		return end{f.Client, f.clientIP, f.ClientName}
	}
	return end{f.Server, f.serverIP, f.ServerName}
}

func (e end) address() event.Value {
	if e.IsValid() && e.bytes == "" { // the descriptor was not made ready
		return event.Addr(e.Addr())
	}
	return event.IP(e.bytes)
}

func (e end) network() event.Value {
	v := e.address()
	if !v.Missing() {
		v.Type = event.TypeNet
	}
	return v
}

func (e end) port() event.Value {
	if !e.IsValid() {
		return event.Value{}
	}
	return event.Port(e.Port())
}

// service returns the port by the name of its service.
func (e end) service() event.Value {
	if !e.IsValid() {
		return event.Value{}
	}
	return event.Service(e.Port(), services[e.Port()])
}

// services has the names of services by their port, as fd.sproto and its like
// print them; a port without one is printed as a number.
var services = map[uint16]string{
	20: "ftp-data", 21: "ftp", 22: "ssh", 23: "telnet", 25: "smtp", 53: "domain", 67: "bootps", 68: "bootpc", 69: "tftp", 80: "http",
	88: "kerberos", 110: "pop3", 111: "sunrpc", 119: "nntp", 123: "ntp", 143: "imap2", 161: "snmp", 162: "snmp-trap", 179: "bgp",
	194: "irc", 389: "ldap", 443: "https", 445: "microsoft-ds", 465: "submissions", 514: "syslog", 587: "submission", 631: "ipp",
	636: "ldaps", 873: "rsync", 989: "ftps-data", 990: "ftps", 993: "imaps", 995: "pop3s", 1080: "socks", 1433: "ms-sql-s",
	1883: "mqtt", 2049: "nfs", 2379: "etcd-client", 2380: "etcd-server", 3128: "squid", 3306: "mysql", 3389: "ms-wbt-server",
	4369: "epmd", 5432: "postgresql", 5671: "amqps", 5672: "amqp", 5900: "vnc", 6379: "redis", 6443: "sun-sr-https", 6667: "ircd",
	8080: "http-alt", 8883: "secure-mqtt", 9418: "git", 11211: "memcached",
}

// opens reports whether the event opens a path that it has no descriptor of,
// since it failed.
func (e *Event) opens() bool { return e.FD == nil && e.Type.openLike }

func openedOr(failed string, get func(*FD) string) extractor {
	return func(e *Event, _ event.Ref) event.Value {
		switch {
		case e.FD != nil:
			return event.Text(get(e.FD))
		case e.opens():
			return event.Text(failed)
		}
		return event.Value{}
	}
}

// descriptorNumber returns the number of the descriptor, also of one of which
// nothing more is known.
func descriptorNumber(e *Event, _ event.Ref) event.Value {
	if e.FD != nil {
		return event.Number(e.FD.Num)
	}
	p, t := e.param("fd")
	if t == nil || t.kind != kindFD {
		return event.Value{}
	}
	return event.Number(p.Num)
}

// name returns a name that an event may not have.
func name(get func(*Event) (string, bool)) extractor {
	return func(e *Event, _ event.Ref) event.Value {
		s, ok := get(e)
		if !ok {
			return event.Value{}
		}
		return event.Text(s)
	}
}

// descriptorName returns the name of the descriptor. That of an open that failed
// is the path.
func (e *Event) descriptorName() (string, bool) {
	switch {
	case e.FD != nil:
		return e.FD.Name, true
	case !e.opens():
		return "", false
	}
	p, t := e.paramAt(e.Type.paths[onlySide])
	if t == nil {
		return "", false
	}
	return e.absolute(p, t), true
}

// rawName returns the path as given, without empty components.
func (e *Event) rawName() (string, bool) {
	raw := ""
	if e.FD != nil {
		raw = e.FD.Raw
	} else if e.opens() {
		if p, _ := e.paramAt(e.Type.paths[onlySide]); p != nil {
			raw = p.Text
		}
	}
	for strings.Contains(raw, "//") {
		raw = strings.ReplaceAll(raw, "//", "/")
	}
	return raw, raw != ""
}

// filePath returns the name of a descriptor that is a file or directory.
func (e *Event) filePath() (string, bool) {
	if e.FD != nil && e.FD.Type != FDFile && e.FD.Type != FDDirectory {
		return "", false
	}
	return e.descriptorName()
}

// directory returns the path without its last component; a directory is its own.
func (e *Event) directory() (string, bool) {
	path, ok := e.filePath()
	if !ok || e.FD != nil && e.FD.Type == FDDirectory {
		return path, ok
	}
	switch i := strings.LastIndexByte(path, '/'); {
	case i < 0:
		return "/", true
	case i == 0:
		return "/", true
	default:
		return path[:i], true
	}
}

// fileName returns the last component of the path of a file.
func (e *Event) fileName() (string, bool) {
	path, ok := e.filePath()
	if !ok || e.FD != nil && e.FD.Type != FDFile {
		return "", false
	}
	return path[strings.LastIndexByte(path, '/')+1:], true
}

// inContainer puts the container before a name.
func inContainer(get func(*Event) (string, bool)) extractor {
	return func(e *Event, _ event.Ref) event.Value {
		s, ok := get(e)
		if !ok || e.Container == nil {
			return event.Value{}
		}
		return event.Text(shortID(e.Container.ID) + ":" + s)
	}
}

func descriptorID(e *Event, ref event.Ref) event.Value {
	num := descriptorNumber(e, ref)
	if num.Missing() || e.TID == 0 {
		return event.Value{}
	}
	return event.Text(strconv.Itoa(int(e.TID)) + num.String())
}

func family(f *FD) event.Value {
	switch {
	case f.Type.IsIP():
		return event.Text("ip")
	case f.Type == FDUnix:
		return event.Text("unix")
	}
	return event.Value{}
}

// openTypes returns the types of all open descriptors, each once, or of the one
// with a number.
func openTypes(e *Event, ref event.Ref) event.Value {
	if e.Process == nil || e.Process.Files == nil {
		return event.Value{}
	}
	if ref.Index >= 0 {
		f := e.Process.Files.Get(int64(ref.Index))
		if f == nil {
			return event.Value{}
		}
		return event.List([]string{f.Type.String()})
	}
	var list []string
	e.Process.Files.Each(func(f *FD) bool {
		if s := f.Type.String(); !slices.Contains(list, s) {
			list = append(list, s)
		}
		return true
	})
	if list == nil {
		return event.Value{} // the process has ended
	}
	return event.List(list)
}

// polled joins what the descriptors say that an event waits for.
func polled(get func(*FD) string) extractor {
	return func(e *Event, _ event.Ref) event.Value {
		if p, t := e.param("fds"); t == nil || t.kind != kindPolled || p == nil {
			return event.Value{}
		}
		var words []string
		for _, d := range e.Polled {
			if s := get(d.FD); s != "" {
				words = append(words, s)
			}
		}
		return event.Text(strings.Join(words, ","))
	}
}

func ipText(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.Addr().Unmap().String()
}

func portText(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return strconv.Itoa(int(a.Port()))
}
