package enrichment

import "testing"

func TestMemoryForgetsWhatNobodyAsksFor(t *testing.T) {
	m := newMemory[int, int](10)
	for i := range 1000 {
		m.set(i, i)
		if _, ok := m.get(0); !ok {
			t.Fatalf("the first one is forgotten after %d, though it was asked for", i)
		}
		if m.len() > 20 {
			t.Fatalf("%d are remembered", m.len())
		}
	}
	if v, ok := m.get(999); !ok || v != 999 {
		t.Errorf("get(999) = %d, %v", v, ok)
	}
	if _, ok := m.get(500); ok {
		t.Error("500 is remembered")
	}
	if m.set(999, 1); m.young[999].value != 1 {
		t.Error("a value is not replaced")
	}
}
