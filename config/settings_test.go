package config

import (
	"fmt"
	"strings"
	"testing"
)

func TestSettings(t *testing.T) {
	c, err := Parse("config.yaml", []byte("cluster: shop\nnotify:\n  tags: [a, b]\n  destinations:\n  - {name: chat, type: webhook, config: {url: https://hooks.example.com/topsecret}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(c.Settings())
	for _, want := range []string{"{cluster shop}", "{notify.tags a b}", "{notify.destinations[0].name chat}", "{notify.destinations[0].type webhook}", "{notify.destinations[0].config (not shown)}", "{retention.alerts 720h0m0s}"} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is missing in %s", want, text)
		}
	}
	if strings.Contains(text, "topsecret") {
		t.Errorf("a secret is shown: %s", text)
	}
}
