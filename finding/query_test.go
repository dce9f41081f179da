package finding

import (
	"strings"
	"testing"
	"time"
)

func TestCursor(t *testing.T) {
	for name, c := range map[string]Cursor{
		"start":  {},
		"usual":  {Time: time.Unix(0, 1772366400123456789).UTC(), Seq: 42},
		"before": {Time: time.Unix(-5, 0).UTC(), Seq: 1},
	} {
		have, err := ParseCursor(c.String())
		if err != nil || have != c {
			t.Errorf("%s: %q becomes %v, %v", name, c.String(), have, err)
		}
	}
	for _, bad := range []string{"x", "1", "1.", ".1", "1.2.3", "1,2", " 1.2", "99999999999999999999.1"} {
		if c, err := ParseCursor(bad); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%q becomes %v, %v", bad, c, err)
		}
	}
}

func FuzzCursor(f *testing.F) {
	f.Add("1772366400123456789.42")
	f.Add("-1.-1")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCursor(s)
		if err != nil {
			return
		}
		if again, err := ParseCursor(c.String()); err != nil || again != c {
			t.Errorf("%q becomes %v, and then %v, %v", s, c, again, err)
		}
	})
}

func TestOutcome(t *testing.T) {
	warn, deny, audit := Violation{Enforcement: "warn"}, Violation{Enforcement: "deny"}, Violation{Enforcement: "audit"}
	tests := []struct {
		name     string
		decision Decision
		want     Outcome
	}{
		{"nothing wrong", Decision{Allowed: true}, Allowed},
		{"only recorded", Decision{Allowed: true, Violations: []Violation{audit}}, Allowed},
		{"warned", Decision{Allowed: true, Violations: []Violation{audit, warn}}, Warned},
		{"denied and warned", Decision{Violations: []Violation{warn, deny}}, Denied},
	}
	for _, tt := range tests {
		if have := tt.decision.Outcome(); have != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, have, tt.want)
		}
		if parsed, err := ParseOutcome(string(tt.want)); err != nil || parsed != tt.want {
			t.Errorf("ParseOutcome(%q) = %v, %v", tt.want, parsed, err)
		}
	}
}
