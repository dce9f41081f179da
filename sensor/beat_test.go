package sensor

import (
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/kubeguardian/kubeguardian/sensor/record"
)

// TestBeat: each call that a beat is made of arrives, and is known, whatever filters
// leave out; what else this process does is none; types that are not wanted have
// none.
func TestBeat(t *testing.T) {
	types := slices.Sorted(maps.Keys(beats))
	l := start(t, Config{Types: append(slices.Clone(types), "unlinkat"), Filters: Filters{Opens: OpenFilter{Reads: NoReads}, Families: []uint16{}}}, mine)
	made := slices.Sorted(slices.Values(l.Beat()))
	if !slices.Equal(made, types) {
		t.Errorf("beats of %v, want %v", made, types)
	}
	for _, typ := range made {
		r := l.wait("beat of "+typ, func(r *record.Record) bool { return is(typ)(r) && IsBeat(r) })
		if r.Result >= 0 {
			t.Errorf("%s has done something: %d", typ, r.Result)
		}
	}

	name := t.TempDir() + "/file"
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, _ = os.OpenFile(name+"/not", os.O_WRONLY, 0)
	for _, fails := range []bool{false, true} {
		l.wait("an openat that is no beat", func(r *record.Record) bool { return is("openat")(r) && r.Result < 0 == fails && !IsBeat(r) })
	}

	if err := l.SetTypes([]string{"openat"}); err != nil {
		t.Fatal(err)
	}
	if made := l.Beat(); !slices.Equal(made, []string{"openat"}) {
		t.Errorf("beats of %v where openat alone is wanted", made)
	}
}
