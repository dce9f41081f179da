package bus

import (
	"os"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/agent"
	"github.com/kubeguardian/kubeguardian/config"
)

// TestPage reads the configurations of the page.
func TestPage(t *testing.T) {
	data, err := os.ReadFile("../../docs/bus.md")
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	for i, block := range strings.Split(string(data), "```") {
		info, text, _ := strings.Cut(block, "\n")
		switch {
		case i%2 == 0:
			continue
		case info == "yaml config":
			_, err = config.Parse("docs/bus.md", []byte(text))
		case info == "yaml agent":
			_, err = agent.ParseConfig("docs/bus.md", []byte(text))
		default:
			t.Errorf("block of unknown kind %q", info)
		}
		read++
		if err != nil {
			t.Error(err)
		}
	}
	if read < 2 {
		t.Errorf("%d configurations", read)
	}
}
