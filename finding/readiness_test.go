package finding

import (
	"fmt"
	"slices"
	"testing"
)

func TestInForce(t *testing.T) {
	held := []Readiness{
		{Enforced: Enforced{"a", "one", "dryrun"}, Requests: 3}, {Enforced: Enforced{"a", "two", "warn"}, Requests: 9},
		{Enforced: Enforced{"gone", "", "warn"}, Requests: 5}, {Enforced: Enforced{"c", "", "audit"}, Requests: 7},
	}
	enforced := []Enforced{{"a", "one", "warn"}, {"a", "one", "audit"}, {"a", "two", "deny"}, {"a", "two", "audit"}, {"b", "", "dryrun"}, {"c", "", "audit"}}
	var got []string
	for _, r := range InForce(held, enforced) {
		got = append(got, fmt.Sprintf("%s/%s %s %d", r.Policy, r.Binding, r.Enforcement, r.Requests))
	}
	if want := []string{"c/ audit 7", "a/one warn 3", "b/ dryrun 0"}; !slices.Equal(got, want) {
		t.Errorf("in force %q, want %q", got, want)
	}
}
