package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/rule"
	"github.com/kubeguardian/kubeguardian/sensor"
)

func TestOpens(t *testing.T) {
	all := sensor.OpenFilter{}
	many := rule.Paths{}
	for i := range maxWatched + 1 {
		many.Prefixes = append(many.Prefixes, fmt.Sprintf("/%d", i))
	}
	tests := []struct {
		name          string
		reads, failed rule.Paths
		want          sensor.OpenFilter
	}{
		{"none", rule.Paths{}, rule.Paths{}, sensor.OpenFilter{Reads: sensor.NoReads}},
		{"prefixes", rule.Paths{Prefixes: []string{"/etc/shadow"}}, rule.Paths{Prefixes: []string{"/root/"}}, sensor.OpenFilter{Reads: sensor.WatchedReads, Prefixes: []string{"/etc/shadow", "/root/"}}},
		{"names", rule.Paths{Suffixes: []string{"/.ssh/id_rsa", "/shadow"}}, rule.Paths{}, sensor.OpenFilter{Reads: sensor.WatchedReads, Names: []string{"id_rsa", "shadow"}}},
		{"whole names", rule.Paths{Names: []string{"shadow"}}, rule.Paths{}, sensor.OpenFilter{Reads: sensor.WatchedReads, Names: []string{"shadow"}}},
		{"any", rule.Paths{Prefixes: []string{""}}, rule.Paths{}, all},
		{"any that fails", rule.Paths{Prefixes: []string{"/etc"}}, rule.Paths{Suffixes: []string{""}}, all},
		{"part of a name", rule.Paths{Suffixes: []string{".pem"}}, rule.Paths{}, all},
		{"folder", rule.Paths{Suffixes: []string{"/a/"}}, rule.Paths{}, all},
		{"long name", rule.Paths{Suffixes: []string{"/" + strings.Repeat("x", maxName)}}, rule.Paths{}, all},
		{"relative", rule.Paths{Prefixes: []string{"etc"}}, rule.Paths{}, all},
		{"many", many, rule.Paths{}, all},
	}
	for _, tt := range tests {
		if have := opens(rule.Needs{Reads: tt.reads, FailedReads: tt.failed}); fmt.Sprint(have) != fmt.Sprint(tt.want) {
			t.Errorf("%s: have %+v, want %+v", tt.name, have, tt.want)
		}
	}
}

func TestFamilies(t *testing.T) {
	if have := families(rule.Families{IPv4: true, IPv6: true, Unix: true}); have != nil {
		t.Errorf("all: %v", have)
	}
	have := families(rule.Families{IPv4: true})
	if len(have) != 62 || !slices.Contains(have, 2) || slices.Contains(have, 10) || slices.Contains(have, 1) || !slices.Contains(have, 16) {
		t.Errorf("IPv4: %v", have)
	}
}
