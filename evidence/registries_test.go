package evidence

import (
	"fmt"
	"strings"
	"testing"
)

const allowList = `apiVersion: kubeguardian.dev/registries/v1
allow:
- registry.example.org/
- ghcr.io/example
- "*.example.com/team"
- localhost:5000
`

func TestRegistries(t *testing.T) {
	set, err := Read("images.yaml", []byte(allowList))
	if err != nil {
		t.Fatal(err)
	}
	list := set.Registries[0]
	if got := fmt.Sprint(list.Allow); got != "[registry.example.org ghcr.io/example *.example.com/team localhost:5000]" || list.Source != "images.yaml" {
		t.Errorf("list %+v", list)
	}
	if !set.Empty() {
		t.Error("a rule counts as evidence")
	}
	other := &Set{}
	other.add(set)
	if len(other.Registries) != 1 {
		t.Error("a list is lost when files add up")
	}
}

func TestBadRegistries(t *testing.T) {
	for entry, want := range map[string]string{
		"https://ghcr.io":   `f:3: "https://ghcr.io" is no registry`,
		"GHCR.io":           "is no registry",
		`"*"`:               "is no registry",
		"ghcr.io/*/app":     "is no registry",
		"ghcr.io/app:1":     "is no registry",
		`""`:                "is no registry",
		"[a]":               "f:3: an entry is no registry",
		"a\nother: 1":       "unknown key other",
		"registry..example": "",
	} {
		_, err := Read("f", []byte("apiVersion: kubeguardian.dev/registries/v1\nallow:\n- "+entry))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", entry, err, want)
		}
	}
	many := "apiVersion: kubeguardian.dev/registries/v1\nallow: [" + strings.Repeat("a,", 1001) + "]"
	if _, err := Read("f", []byte(many)); err == nil || !strings.Contains(err.Error(), "more than 1000") {
		t.Errorf("a long list: %v", err)
	}
}
