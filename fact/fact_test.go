package fact_test

import (
	"testing"

	"github.com/kubeguardian/kubeguardian/fact"
)

// What is not known must never become a yes, nor hide a no.
func TestFacts(t *testing.T) {
	all := []fact.Fact{fact.Unknown, fact.No, fact.Yes}
	for _, a := range all {
		if a.Not().Not() != a {
			t.Errorf("not not %d = %d", a, a.Not().Not())
		}
		for _, b := range all {
			and := a.And(b)
			if and != b.And(a) || (and == fact.Yes) != (a == fact.Yes && b == fact.Yes) || (and == fact.No) != (a == fact.No || b == fact.No) {
				t.Errorf("%d and %d = %d", a, b, and)
			}
		}
	}
	if fact.Of(true) != fact.Yes || fact.Of(false) != fact.No {
		t.Error("of")
	}
}
