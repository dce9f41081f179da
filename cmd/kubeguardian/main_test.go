package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kubeguardian/kubeguardian/policy/externaldata/providertest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"kubeguardian": main,
		"unprivileged": unprivileged,
	})
}

// unprivileged is the program without root's power to read everything.
func unprivileged() {
	if os.Getuid() == 0 {
		if err := syscall.Setuid(65534); err != nil {
			panic(err)
		}
	}
	main()
}

func TestScripts(t *testing.T) {
	// A provider of external data that knows no key that begins with "bad".
	provider := providertest.New(t, providertest.Answers(func(key string) (any, string) {
		if strings.HasPrefix(key, "bad") {
			return nil, "not known"
		}
		return key + "@sha256:abc", ""
	}))
	testscript.Run(t, testscript.Params{
		Dir: "testdata", RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("TODAY", time.Now().Format(time.DateOnly))
			env.Setenv("SOON", time.Now().AddDate(0, 2, 0).Format(time.DateOnly))
			serveRegistry(env)
			env.Setenv("PROVIDER_CERT", provider.CertFile)
			env.Setenv("PROVIDER_KEY", provider.KeyFile)
			if err := os.WriteFile(filepath.Join(env.WorkDir, "provider.yaml"), []byte(provider.Document("images")), 0o600); err != nil {
				return err
			}
			return occupyPort(env)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"expand": expand, "setenv": setenv},
	})
}

// expand puts the variables of the script in place of $NAME in files.
func expand(ts *testscript.TestScript, _ bool, files []string) {
	for _, name := range files {
		text := os.Expand(ts.ReadFile(name), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o600))
	}
}

// setenv sets a variable of the script to the text of a file.
func setenv(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
}

// serveRegistry starts an OCI registry for the time of a script, at $REGISTRY.
func serveRegistry(env *testscript.Env) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	env.Defer(server.Close)
	env.Setenv("REGISTRY", strings.TrimPrefix(server.URL, "http://"))
}

// occupyPort listens on a port for the time of a script and writes busy.yaml,
// which wants the same port.
func occupyPort(env *testscript.Env) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	env.Defer(func() { ln.Close() })
	config := fmt.Sprintf(`{dataDir: data, kubeconfig: kubeconfig, web: {listen: %q}, webhook: {listen: "127.0.0.1:0", url: "https://127.0.0.1:9443"}}`, ln.Addr())
	return os.WriteFile(filepath.Join(env.WorkDir, "busy.yaml"), []byte(config), 0o600)
}

// TestUsageNamesEveryFlag keeps usage text and flags together.
func TestUsageNamesEveryFlag(t *testing.T) {
	var out bytes.Buffer
	if _, err := scanFlags([]string{"--help"}, &out); !errors.Is(err, flag.ErrHelp) {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^  --([a-z-]+)( [A-Za-z|]+)?  `).FindAllStringSubmatch(out.String(), -1) {
		args := []string{"--" + m[1], "a.yaml"}
		if value := strings.TrimSpace(m[2]); value != "" {
			sample := map[string]string{"LEVEL": "code", "SEVERITY": "low", "N": "50", "FILE": "f", "PATH": "p", "FORMAT": "html"}[value]
			if sample == "" {
				sample, _, _ = strings.Cut(value, "|")
			}
			args = []string{"--" + m[1], sample, "a.yaml"}
		}
		var usage hinted
		if _, err := scanFlags(args, io.Discard); errors.As(err, &usage) && strings.Contains(err.Error(), "not defined") {
			t.Errorf("%v: %v", args, err)
		}
	}
	for _, name := range []string{"cluster", "kubeconfig", "values", "set", "level", "fail-on", "min-score", "show", "format", "output", "evidence", "exceptions", "allow-annotations", "baseline", "history", "node"} {
		if !strings.Contains(out.String(), "\n  --"+name+" ") {
			t.Errorf("--%s is not in the usage text", name)
		}
	}
}

// TestFixUsage keeps the usage text of fix and its flags together.
func TestFixUsage(t *testing.T) {
	for _, m := range regexp.MustCompile(`(?m)^  --([a-z-]+)( [A-Za-z]+)?  `).FindAllStringSubmatch(fixUsage, -1) {
		args := []string{"fix.yaml", "--" + m[1]}
		if value := strings.TrimSpace(m[2]); value != "" {
			args = append(args, value)
		}
		if _, err := fixFlags(args, io.Discard); err != nil && strings.Contains(err.Error(), "not defined") {
			t.Errorf("%v: %v", args, err)
		}
	}
	for _, name := range []string{"write", "undo", "control", "evidence", "exceptions", "dry-run", "kubeconfig"} {
		if !strings.Contains(fixUsage, "\n  --"+name+" ") {
			t.Errorf("--%s is not in the usage text", name)
		}
	}
}

// TestReviewUsage keeps the usage text of review and its flags together.
func TestReviewUsage(t *testing.T) {
	sample := map[string]string{"NAME": "UPDATE", "FORMAT": "text"}
	for _, m := range regexp.MustCompile(`(?m)^  --([a-z-]+) ([A-Z=]+) `).FindAllStringSubmatch(reviewUsage, -1) {
		value := sample[m[2]]
		if value == "" {
			value = "x"
		}
		if _, err := reviewFlags([]string{"a.yaml", "--" + m[1], value}, io.Discard); err != nil && !strings.Contains(err.Error(), "needs --") {
			t.Errorf("--%s: %v", m[1], err)
		}
	}
	for _, name := range []string{"policies", "context", "enforcement-point", "ask-providers", "provider-cert", "provider-key", "operation", "old", "user", "group", "values", "set", "format", "output"} {
		if !strings.Contains(reviewUsage, "\n  --"+name+" ") {
			t.Errorf("--%s is not in the usage text", name)
		}
	}
}

func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	stdin, hold := io.Pipe() // never written to
	defer hold.Close()
	reading := readerFunc(func(p []byte) (int, error) {
		cancel()
		return stdin.Read(p)
	})
	var out, errs bytes.Buffer
	if code := run(ctx, []string{"scan", "-"}, streams{reading, &out, &errs}); code != 2 {
		t.Errorf("exit code %d", code)
	}
	if errs.String() != "kubeguardian: error: interrupted\n" || out.Len() > 0 {
		t.Errorf("stderr %q, stdout %q", errs.String(), out.String())
	}
}

func TestExplain(t *testing.T) {
	a, b := hinted{errors.New("a"), "do this"}, hinted{errors.New("b"), "do this"}
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"one", errors.New("x"), "error: x\n"},
		{"several share a hint", errors.Join(a, b), "error: a\nhint: do this\nerror: b\n"},
		{"wrapped", fmt.Errorf("load: %w", a), "error: load: a\nhint: do this\n"},
		{"a join within a sentence", fmt.Errorf("load: %w", errors.Join(a, b)), "error: load: a\nerror: b\nhint: do this\n"},
		{"two causes of one error", fmt.Errorf("%w, then %w", a, b), "error: a, then b\nhint: do this\n"},
		{"escape sequences", errors.New("\x1b[2Jx"), "error: \ufffd[2Jx\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var b bytes.Buffer
			explain(&b, test.err, map[string]bool{})
			if got := strings.ReplaceAll(b.String(), "kubeguardian: ", ""); got != test.want {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}
