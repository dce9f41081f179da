package syscall

import (
	"path"
	"strconv"
	"strings"

	"github.com/kubeguardian/kubeguardian/event"
)

// currentDirectory is the number that stands for the current directory in place
// of a descriptor.
const currentDirectory = -100

// param returns a parameter by its name; its type is nil if the event does not
// have it.
func (e *Event) param(name string) (*Param, *paramType) { return e.paramAt(e.Type.Param(name)) }

func (e *Event) paramAt(i int) (*Param, *paramType) {
	if i < 0 || i >= len(e.Params) || i >= len(e.Type.params) || !e.Params[i].Known {
		return nil, nil
	}
	return &e.Params[i], &e.Type.params[i]
}

// text returns a parameter as evt.arg has it: what its number stands for, where
// that is known.
func (e *Event) text(p *Param, t *paramType) string {
	if s := e.resolved(p, t); s != "" {
		return s
	}
	return e.raw(p, t)
}

// raw returns a parameter as it was given.
func (e *Event) raw(p *Param, t *paramType) string {
	switch t.kind {
	case kindText, kindPath:
		return p.Text
	case kindBytes:
		return printable(p.Text)
	case kindTuple, kindAddress:
		return endsText(p)
	case kindPolled:
		return e.polledText()
	}
	var buf [24]byte
	b := buf[:0]
	if t.typ == event.TypeUint {
		if t.kind == kindMode || t.base == 8 && p.Num != 0 {
			b = append(b, '0')
		}
		b = strconv.AppendUint(b, uint64(p.Num), t.base)
	} else {
		b = strconv.AppendInt(b, p.Num, t.base)
	}
	return string(b)
}

// resolved returns what a parameter stands for; empty if that says no more than
// the parameter itself.
func (e *Event) resolved(p *Param, t *paramType) string {
	switch t.kind {
	case kindPath:
		if abs := e.absolute(p, t); abs != p.Text {
			return abs
		}
	case kindFD:
		return fdText(p)
	case kindPid:
		return p.Text
	case kindErrno:
		if p.Num < 0 {
			return errnoName(p.Num)
		}
	case kindUser, kindGroup:
		switch {
		case uint32(p.Num) == 1<<32-1:
			return "<NONE>"
		case p.Text == "":
			return event.NA
		}
		return p.Text
	case kindSignal:
		return signalNames.value(uint64(p.Num))
	case kindDuration:
		return strconv.FormatFloat(float64(p.Num)/1e9, 'g', 6, 64) + "s"
	}
	switch {
	case t.names == nil:
		return ""
	case t.kind == kindEnum:
		return t.names.value(uint64(p.Num))
	}
	return t.names.flags(uint64(p.Num))
}

// fdText names what a descriptor is.
func fdText(p *Param) string {
	switch {
	case p.FD != nil:
		letters := p.FD.Type.Char()
		if p.FD.Type.IsIP() && p.FD.Protocol != NoProtocol {
			letters += p.FD.Protocol.String()[:1]
		}
		return "<" + letters + ">" + p.FD.Name
	case p.Num == currentDirectory:
		return "AT_FDCWD"
	case p.Num < 0:
		return errnoName(p.Num)
	}
	return ""
}

// endsText writes a tuple or an address.
func endsText(p *Param) string {
	if p.Text != "" || p.FD == nil {
		return p.Text
	}
	return p.FD.Name
}

func (e *Event) polledText() string {
	b := make([]byte, 0, 64)
	for i, d := range e.Polled {
		if i > 0 {
			b = append(b, ' ')
		}
		b = strconv.AppendInt(b, d.FD.Num, 10)
		b = append(append(b, ':'), d.FD.Type.Char()...)
		b = strconv.AppendUint(b, uint64(d.Events), 16)
	}
	return string(b)
}

// absolute returns a path made absolute: as the kernel has it, or from the
// current directory or the one that the path was given with. It is the path as
// given if that is not known.
func (e *Event) absolute(p *Param, t *paramType) string {
	switch {
	case p.Path != "":
		return p.Path
	case p.Text == "":
		return ""
	case p.Text[0] == '/':
		return clean(p.Text)
	}
	base := ""
	if dir, _ := e.paramAt(t.dir); dir == nil || dir.Num == currentDirectory {
		if e.Process != nil {
			base = e.Process.Cwd
		}
	} else if dir.FD != nil {
		base = dir.FD.Name
	}
	if base == "" || base[0] != '/' {
		return p.Text
	}
	return path.Join(base, p.Text)
}

// clean returns an absolute path without empty, . and .. components.
func clean(p string) string {
	if !strings.Contains(p, "//") && !strings.Contains(p, "/.") && (len(p) == 1 || p[len(p)-1] != '/') {
		return p
	}
	return path.Clean(p)
}

// maxPrinted is how much of a buffer is printed.
const maxPrinted = 80

// printable returns the begin of a buffer, with dots for what is not printable.
func printable(s string) string {
	b := []byte(s[:min(len(s), maxPrinted)])
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '.'
		}
	}
	return string(b)
}

// args returns all parameters as evt.args has them.
func (e *Event) args() string {
	b := make([]byte, 0, 256)
	for i, p := range e.Type.Params {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(append(b, p.Name...), '=')
		v, t := e.paramAt(i)
		if t == nil {
			b = append(b, event.NA...)
			continue
		}
		b = append(b, e.raw(v, t)...)
		if s := e.resolved(v, t); s != "" {
			b = append(append(append(b, '('), s...), ')')
		}
	}
	return string(b)
}

// rawValue returns a parameter as a value of the type that a rule expects.
func (e *Event) rawValue(p *Param, t *paramType, want event.Type) event.Value {
	text := t.typ == event.TypeString || t.typ == event.TypeBytes
	switch {
	case text != (want == event.TypeString || want == event.TypeBytes):
		return event.Value{} // another event type has this name for something else
	case !text:
		return event.Value{Type: want, Number: p.Num}
	case t.kind == kindTuple || t.kind == kindAddress:
		return event.Text(endsText(p))
	case t.kind == kindPolled:
		return event.Text(e.polledText())
	}
	return event.Value{Type: want, Text: p.Text}
}
