package deed

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/action"
	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/store"
)

func alertWith(id string, fields map[string]any) alert.Alert {
	return alert.Alert{
		ID: id, Time: time.Now(), Rule: "Miner", Hostname: "n1", OutputFields: fields,
		Subject: finding.Subject{Kind: "Pod", Namespace: "shop", Name: "cart-1"},
	}
}

func TestEntries(t *testing.T) {
	for _, c := range []struct {
		fields map[string]any
		want   []string // action and result
	}{
		{nil, nil},
		{map[string]any{"enforce.kill": "killed", "enforce.kill.by": "kernel"}, []string{"kill done"}},
		{map[string]any{"enforce.deny": "denied"}, []string{"deny done"}},
		{map[string]any{"enforce.deny": "denied", "enforce.deny.times": json.Number("1234567")}, []string{"deny done: 1234567 times"}},
		{map[string]any{"enforce.deny": "killed", "enforce.deny.reason": "this kernel denies no program"}, []string{"deny done: this kernel denies no program"}},
		{map[string]any{"enforce.kill": "would-kill"}, nil},
		{map[string]any{"enforce.kill": "waiting"}, nil},
		{map[string]any{"enforce.kill": 7}, nil},
		{map[string]any{"enforce.kill": "gone"}, []string{"kill failed"}},
		{map[string]any{"enforce.kill": "refused", "enforce.kill.reason": "namespace kube-system is protected"}, []string{"kill denied: namespace kube-system is protected"}},
		{map[string]any{"enforce.block-egress": "blocked", "enforce.kill": "failed", "enforce.kill.reason": "no right"}, []string{"block-egress done", "kill failed: no right"}},
	} {
		a := alertWith("a1", c.fields)
		var have []string
		for _, e := range Entries(&a) {
			have = append(have, e.Action+" "+e.Result)
			if e.User != Agents || e.Source != "n1" || e.Object != "/alerts/a1" || !strings.Contains(e.Change, `rule="Miner"`) || !strings.Contains(e.Change, `namespace="shop" pod="cart-1"`) {
				t.Errorf("entry %+v", e)
			}
		}
		if strings.Join(have, "|") != strings.Join(c.want, "|") {
			t.Errorf("%v: have %q, want %q", c.fields, have, c.want)
		}
	}
}

// TestRate: whoever starts again and again what is killed does not fill the log,
// and it says how much it left out.
func TestRate(t *testing.T) {
	s, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := NewRecorder(s, slog.New(slog.DiscardHandler))
	r.limit.SetLimit(0) // as if no time passed
	var alerts []alert.Alert
	for i := range kept + 5 {
		alerts = append(alerts, alertWith(fmt.Sprint("a", i), map[string]any{"enforce.kill": "killed"}))
	}
	r.Note(t.Context(), alerts)
	r.limit.SetBurst(2 * kept)
	r.limit.SetLimit(1e6)
	time.Sleep(time.Millisecond)
	r.Note(t.Context(), []alert.Alert{alertWith("last", map[string]any{"enforce.kill": "killed"})})
	entries, _, err := s.Actions(t.Context(), 0, 2*kept)
	if err != nil || len(entries) != kept+1 {
		t.Fatalf("%d entries, want %d (%v)", len(entries), kept+1, err)
	}
	if e := entries[0]; e.Object != "/alerts/last" || e.Result != action.Done+" (and 5 deeds before it that are not kept)" {
		t.Errorf("entry %+v", e)
	}
	if _, err := s.VerifyActions(t.Context()); err != nil {
		t.Error(err)
	}
}
