package store

import "testing"

func TestCheckpoint(t *testing.T) {
	path := address(t)
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if _, found, err := s.Checkpoint(t.Context(), "a"); found || err != nil {
		t.Errorf("Checkpoint = %v, %v before any was saved", found, err)
	}
	for _, body := range []string{"1", "2"} {
		if err := s.SaveCheckpoint(t.Context(), "a", []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.SaveCheckpoint(t.Context(), "b", []byte("3")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for name, want := range map[string]string{"a": "2", "b": "3"} {
		if body, found, err := s.Checkpoint(t.Context(), name); string(body) != want || !found || err != nil {
			t.Errorf("Checkpoint(%s) = %q, %v, %v; want %q", name, body, found, err, want)
		}
	}
}
