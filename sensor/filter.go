package sensor

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/cilium/ebpf"
)

// Filters say which events are of no use to anybody, so that the kernel need not
// hand them over. The zero value drops nothing.
//
// Nothing that is wanted is ever dropped: where a program cannot be sure, the
// event passes.
type Filters struct {
	Opens OpenFilter
	// Families of connect that are wanted (AF_INET is 2); nil for all.
	Families []uint16
}

// An OpenFilter is about files that are opened for reading only, and neither
// created nor emptied. A file has two paths: the one that the caller gave, made
// absolute, and the kernel's, without symbolic links. It is wanted if either
// begins with one of Prefixes or ends with one of Names.
type OpenFilter struct {
	Reads    Reads
	Prefixes []string // absolute, compared as bytes: "/etc" is the begin of /etc/passwd and of /etcetera; of long ones the first 128 bytes count
	Names    []string // last components, without a slash
}

// Reads says which opens for reading are wanted.
type Reads uint32

const (
	AllReads     Reads = iota // every one
	WatchedReads              // those of Prefixes and Names
	NoReads                   // none
)

const (
	firstMax   = 16 // as in bpf/filter.h
	nameMax    = 64
	prefixMax  = 128
	maxEntries = 1024
)

func (f *Filters) check() error {
	if len(f.Opens.Prefixes) > maxEntries || len(f.Opens.Names) > maxEntries {
		return fmt.Errorf("filters: %d prefixes and %d names, at most %d each", len(f.Opens.Prefixes), len(f.Opens.Names), maxEntries)
	}
	for _, p := range f.Opens.Prefixes {
		if !strings.HasPrefix(p, "/") {
			return fmt.Errorf("filters: prefix %q is not absolute", p)
		}
	}
	for _, n := range f.Opens.Names {
		if n == "" || len(n) >= nameMax || strings.Contains(n, "/") {
			return fmt.Errorf("filters: %q is no name of 1 to %d bytes", n, nameMax-1)
		}
	}
	for _, family := range f.Families {
		if family >= 64 {
			return fmt.Errorf("filters: there is no family %d", family)
		}
	}
	if f.Opens.Reads > NoReads {
		return errors.New("filters: reads are all, watched or none")
	}
	return nil
}

// SetFilters replaces the filters while programs run. Between the old and the new
// ones everything passes. After an error no filter is in force.
func (s *Sensor) SetFilters(f Filters) error {
	if err := f.check(); err != nil {
		return err
	}
	s.filters.Lock()
	defer s.filters.Unlock()
	if err := s.variables(map[string]any{"open_reads": uint32(AllReads), "connect_families": uint64(math.MaxUint64)}); err != nil {
		return err
	}
	anyFirst, err := s.watchPrefixes(f.Opens.Prefixes)
	if err != nil {
		return err
	}
	if err := replace(s.maps["watched_names"], f.Opens.Names, nameKey); err != nil {
		return fmt.Errorf("set names: %w", err)
	}
	families := uint64(math.MaxUint64)
	if f.Families != nil {
		families = 0
		for _, n := range f.Families {
			families |= 1 << n
		}
	}
	return s.variables(map[string]any{
		"name_lengths": lengths(f.Opens.Names), "name_letters": letters(f.Opens.Names, 0), "name_ends": ends(f.Opens.Names, 1), "name_ends_before": ends(f.Opens.Names, 2),
		"first_letters": letters(f.Opens.Prefixes, 1), "watch_any_first": number(anyFirst),
		"connect_families": families, "open_reads": uint32(f.Opens.Reads),
	})
}

func number(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// lengths, letters and ends are what the kernel side looks at before it looks into a
// map.
func lengths(names []string) (bits uint64) {
	for _, n := range names {
		bits |= 1 << len(n)
	}
	return bits
}

func letters(texts []string, at int) (bits uint64) {
	for _, text := range texts {
		if len(text) > at {
			bits |= 1 << (text[at] & 63)
		}
	}
	return bits
}

// ends is about the bytes at a distance from the end of each name; where a name is
// shorter, any byte may be there.
func ends(names []string, distance int) (bits uint64) {
	for _, name := range names {
		if len(name) < distance {
			return math.MaxUint64
		}
		bits |= 1 << (name[len(name)-distance] & 63)
	}
	return bits
}

// watchPrefixes reports whether a prefix does not say the first component in
// full, so that the quick look at it decides nothing.
func (s *Sensor) watchPrefixes(prefixes []string) (anyFirst bool, err error) {
	var firsts []string
	for _, p := range prefixes {
		first, _, whole := strings.Cut(p[1:], "/")
		if !whole || first == "" || len(first) > firstMax {
			anyFirst = true
			continue
		}
		firsts = append(firsts, first)
	}
	if err := replace(s.maps["watched_firsts"], firsts, firstKey); err != nil {
		return false, fmt.Errorf("set first components: %w", err)
	}
	if err := replace(s.maps["watched_prefixes"], prefixes, prefixKey); err != nil {
		return false, fmt.Errorf("set prefixes: %w", err)
	}
	return anyFirst, nil
}

func firstKey(text string) (key [firstMax]byte) {
	copy(key[:], text)
	return key
}

func nameKey(text string) (key [nameMax]byte) {
	copy(key[:], text)
	return key
}

type prefixBytes struct {
	Bits uint32
	Path [prefixMax]byte
}

func prefixKey(text string) (key prefixBytes) {
	key.Bits = 8 * uint32(copy(key.Path[:], text))
	return key
}

// replace makes the keys of a map those of the texts.
func replace[K comparable](m *ebpf.Map, texts []string, key func(string) K) error {
	want := map[K]bool{}
	for _, text := range texts {
		k := key(text)
		want[k] = true
		if err := m.Put(k, uint8(1)); err != nil {
			return fmt.Errorf("add %q: %w", text, err)
		}
	}
	var old []K
	var k K
	var v uint8
	it := m.Iterate()
	for it.Next(&k, &v) {
		if !want[k] {
			old = append(old, k)
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("list entries: %w", err)
	}
	for _, k := range old {
		if err := m.Delete(k); err != nil {
			return fmt.Errorf("remove an entry: %w", err)
		}
	}
	return nil
}

func (s *Sensor) variables(values map[string]any) error {
	for name, value := range values {
		if err := s.collection.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}
