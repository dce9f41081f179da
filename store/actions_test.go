package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/action"
)

func act(t *testing.T, s *Store, user string) action.Entry {
	t.Helper()
	return must[action.Entry](t)(s.AppendAction(t.Context(), action.Entry{
		Time: time.Now(), User: user, Source: "192.0.2.1", Action: "update incidents", Object: "/incidents/one", Change: `{"state":"closed"}`, Result: action.Allowed,
	}))
}

// TestActions: what is written is read as it was, in pages, and after the
// database was opened again the chain goes on.
func TestActions(t *testing.T) {
	path := address(t)
	s := must[*Store](t)(Open(t.Context(), path))
	if head, err := s.VerifyActions(t.Context()); err != nil || head != (action.Head{}) {
		t.Errorf("an empty log: %v, %v", head, err)
	}
	first := act(t, s, "ada")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = must[*Store](t)(Open(t.Context(), path))
	defer s.Close()
	for i := range 6 {
		act(t, s, fmt.Sprint("user ", i))
	}
	var seen []action.Entry
	for before := int64(0); ; {
		page, next, err := s.Actions(t.Context(), before, 3)
		if err != nil {
			t.Fatal(err)
		}
		if seen = append(seen, page...); next == 0 {
			break
		}
		before = next
	}
	if len(seen) != 7 || seen[6] != first || seen[0].Seq != 7 || seen[0].User != "user 5" {
		t.Errorf("the pages have %+v", seen)
	}
	if head, err := s.VerifyActions(t.Context(), action.Head{Seq: 1, Hash: first.Hash}, action.Head{}); err != nil || head != (action.Head{Seq: 7, Hash: seen[0].Hash}) {
		t.Errorf("verified up to %v: %v", head, err)
	}
}

// TestActionsTampered does to the table what somebody with a database client can.
func TestActionsTampered(t *testing.T) {
	for name, c := range map[string]struct {
		sql  string
		at   int64
		want string
	}{
		"edited":        {"UPDATE actions SET who = 'eve' WHERE seq = 3", 3, "it was changed"},
		"text moved":    {"UPDATE actions SET action = 'updat', object = 'e/incidents' WHERE seq = 3", 3, "it was changed"},
		"hash":          {"UPDATE actions SET hash = previous WHERE seq = 3", 3, "it was changed"},
		"removed":       {"DELETE FROM actions WHERE seq = 3", 3, "entry 4 follows entry 2"},
		"first removed": {"DELETE FROM actions WHERE seq = 1", 1, "entry 2 follows entry 0"},
		"reordered":     {"UPDATE actions SET seq = 99 WHERE seq = 2; UPDATE actions SET seq = 2 WHERE seq = 3; UPDATE actions SET seq = 3 WHERE seq = 99", 2, "does not follow"},
		"end removed":   {"DELETE FROM actions WHERE seq > 4", 5, "the end of the log was removed"},
		"all removed":   {"DELETE FROM actions", 5, "the end of the log was removed"},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			var anchor action.Entry
			for range 5 {
				anchor = act(t, s, "ada")
			}
			if _, err := s.writer.ExecContext(t.Context(), c.sql); err != nil {
				t.Fatal(err)
			}
			_, err := s.VerifyActions(t.Context(), action.Head{Seq: 5, Hash: anchor.Hash})
			var broken *action.BrokenError
			if !errors.As(err, &broken) || broken.Seq != c.at || !strings.Contains(err.Error(), c.want) {
				t.Errorf("have %v, want entry %d: %s", err, c.at, c.want)
			}
		})
	}
}

// TestActionsWrittenAnew: a chain that somebody made from scratch is whole, and
// only an anchor shows it.
func TestActionsWrittenAnew(t *testing.T) {
	s := open(t)
	act(t, s, "eve")
	anchor := act(t, s, "eve")
	if _, err := s.writer.ExecContext(t.Context(), "DELETE FROM actions"); err != nil {
		t.Fatal(err)
	}
	act(t, s, "ada")
	act(t, s, "ada")
	if _, err := s.VerifyActions(t.Context()); err != nil {
		t.Errorf("without an anchor: %v", err)
	}
	if _, err := s.VerifyActions(t.Context(), action.Head{Seq: 2, Hash: anchor.Hash}); err == nil || !strings.Contains(err.Error(), "written anew") {
		t.Errorf("with an anchor: %v", err)
	}
}

// TestActionsAtOnce expects one chain of what many write at once, longer than
// what is checked at once.
func TestActionsAtOnce(t *testing.T) {
	s := open(t)
	const writers, each = 8, 130
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for range each {
				if _, err := s.AppendAction(context.Background(), action.Entry{User: fmt.Sprint(w), Time: time.Now()}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if head, err := s.VerifyActions(t.Context()); err != nil || head.Seq != writers*each {
		t.Errorf("have %v, %v", head, err)
	}
}
