package main

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kubeguardian-agent": main, "unprivileged": unprivileged})
}

// unprivileged is the program without root's power.
func unprivileged() {
	if os.Getuid() == 0 {
		if err := syscall.Setuid(65534); err != nil {
			panic(err)
		}
	}
	main()
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata", RequireExplicitExec: true, RequireUniqueNames: true})
}

// TestUsageNamesEveryFlag keeps usage text and flags together.
func TestUsageNamesEveryFlag(t *testing.T) {
	found := regexp.MustCompile(`(?m)^  --([a-z]+)( [A-Za-z|]+)?  ?`).FindAllStringSubmatch(usage, -1)
	if len(found) < 7 {
		t.Fatalf("flags %v", found)
	}
	samples := map[string]string{"PATH": "p", "first|all": "all", "LEVEL": "error", "ADDR": "127.0.0.1:0", "FILE": os.DevNull}
	for _, m := range found {
		args := []string{"--" + m[1]}
		if value := strings.TrimSpace(m[2]); value != "" {
			args = append(args, samples[value])
		}
		if _, err := parse(args, &bytes.Buffer{}); err != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
}
