package syscall

import (
	_ "embed"
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

//go:embed names.txt
var nameList string

// A nameTable has the names of the values or bits of a number.
type nameTable struct {
	names   []named
	widest  []int // positions, those of most bits first
	byValue map[uint64]string
	byName  map[string]uint64
}

type named struct {
	name  string
	value uint64
}

var (
	errnoNames      = newNameTables()["errno"]
	signalNames     = newNameTables()["signal"]
	capabilityNames = newNameTables()["capability"]
)

// newNameTables reads names.txt, which is part of the program.
func newNameTables() map[string]*nameTable {
	all := map[string]*nameTable{}
	for line := range strings.Lines(nameList) {
		words := strings.Fields(line)
		if words[0] == "#" {
			continue
		}
		t := newNameTable(words[1:])
		for key := range strings.SplitSeq(words[0], ",") {
			all[key] = t
		}
	}
	return all
}

func newNameTable(words []string) *nameTable {
	t := &nameTable{byValue: map[uint64]string{}, byName: map[string]uint64{}}
	for i, word := range words {
		name, digits, _ := strings.Cut(word, "=")
		value, err := strconv.ParseUint(digits, 0, 64)
		if err != nil {
			panic("syscall: names.txt: " + word + ": " + err.Error())
		}
		t.names, t.widest = append(t.names, named{name, value}), append(t.widest, i)
		t.byValue[value] = name
		for part := range strings.SplitSeq(name, "|") {
			t.byName[part] = value
		}
	}
	slices.SortStableFunc(t.widest, func(a, b int) int {
		return bits.OnesCount64(t.names[b].value) - bits.OnesCount64(t.names[a].value)
	})
	return t
}

// value returns the name of exactly this value; empty if it has none.
func (t *nameTable) value(n uint64) string { return t.byValue[n] }

// flags returns the names of the bits of a number, joined by |; empty if none
// has one.
func (t *nameTable) flags(n uint64) string {
	if name, ok := t.byValue[n]; ok {
		return name
	}
	found := make([]bool, len(t.names))
	for _, i := range t.widest {
		if v := t.names[i].value; v != 0 && n&v == v {
			found[i] = true
			n &^= v
		}
	}
	var b strings.Builder
	for i, is := range found {
		if !is {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('|')
		}
		b.WriteString(t.names[i].name)
	}
	return b.String()
}

// parse returns the number that names joined by | stand for.
func (t *nameTable) parse(s string) (n uint64, ok bool) {
	for name := range strings.SplitSeq(s, "|") {
		v, known := t.byName[strings.TrimSpace(name)]
		if !known {
			return 0, false
		}
		n |= v
	}
	return n, true
}

// errnoName returns the name of a negative result; its number where it has none.
func errnoName(result int64) string {
	if name, ok := errnoNames.byValue[uint64(-result)]; ok {
		return name
	}
	return strconv.FormatInt(-result, 10)
}

// names returns the names of the capabilities in the set, separated by
// blanks.
func (set CapabilitySet) names() string {
	if set == 0 {
		return ""
	}
	b := make([]byte, 0, 64)
	for _, c := range capabilityNames.names {
		if set&(1<<c.value) == 0 {
			continue
		}
		if len(b) > 0 {
			b = append(b, ' ')
		}
		b = append(b, c.name...)
	}
	return string(b)
}

// The flags of the open family as Falco has them.
const (
	openRead    = 1
	openWrite   = 2
	openCreate  = 4
	openTmpfile = 0x2000
	openCreated = 0x4000
	openUpper   = 0x8000
	openLower   = 0x10000
)

// openBits has the bits of the kernel (of amd64; those of arm64 that differ are
// handed over as these) and the ones that stand for them.
var openBits = [...]struct{ kernel, falco uint64 }{
	{0x40, openCreate}, {0x80, 0x20}, {0x200, 0x100}, {0x400, 8}, {0x800, 0x40}, {0x4000, 0x200}, {0x8000, 0x800}, {0x80000, 0x1000},
}

// OpenFlags returns the flags of open as parameters of events have them: from
// those of the kernel, and from what became of the file.
func OpenFlags(kernel uint64, created, upper, lower bool) uint64 {
	out := [...]uint64{openRead, openWrite, openRead | openWrite, openRead | openWrite}[kernel&3]
	for _, b := range openBits {
		if kernel&b.kernel != 0 {
			out |= b.falco
		}
	}
	const sync, dsync, tmpfile, directory = 0x101000, 0x1000, 0x410000, 0x10000
	switch {
	case kernel&sync == sync:
		out |= 0x80
	case kernel&dsync != 0:
		out |= 0x10
	}
	switch {
	case kernel&tmpfile == tmpfile:
		out |= openTmpfile
	case kernel&directory != 0:
		out |= 0x400
	}
	for _, b := range []struct {
		is  bool
		bit uint64
	}{{created, openCreated}, {upper, openUpper}, {lower, openLower}} {
		if b.is {
			out |= b.bit
		}
	}
	return out
}
