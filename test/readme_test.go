package test

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	policyconfig "k8s.io/apiserver/pkg/admission/plugin/policy/config"
	"k8s.io/apiserver/pkg/apis/apiserver/install"

	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/exception"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/setting"
	"github.com/kubeguardian/kubeguardian/rule"
)

// readmeWords is the longest that README.md may be.
const readmeWords = 900

// A block is a fenced block of a Markdown file.
type block struct {
	line int
	info string // after the opening fence: console, yaml, yaml rule …
	text string
}

// blocks returns the fenced blocks of a Markdown file.
func blocks(t *testing.T, file string) []block {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []block
	open := false
	scanner := bufio.NewScanner(strings.NewReader(string(data)))
	for n := 1; scanner.Scan(); n++ {
		line := scanner.Text()
		info, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && !open:
			out = append(out, block{line: n, info: info})
			open = true
		case fence:
			open = false
		case open:
			out[len(out)-1].text += line + "\n"
		}
	}
	return out
}

// TestReadme runs what README.md shows: the transcripts, rules, policies and
// configuration.
func TestReadme(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	readme := filepath.Join(root, "README.md")
	bin := filepath.Dir(build(t))
	ran := 0
	for _, b := range blocks(t, readme) {
		var err error
		switch b.info {
		case "console":
			runTranscript(t, root, bin, b)
		case "yaml rule":
			_, err = rule.Load(rule.File{Name: "README.md", Data: []byte(b.text)})
		case "yaml policy":
			_, err = policy.Load(policy.File{Name: "README.md", Data: []byte(b.text)})
		case "yaml config":
			_, err = config.Parse("README.md", []byte(b.text))
		case "sh", "":
			continue // commands that install, or that the end-to-end test runs
		default:
			t.Errorf("README.md:%d: block of unknown kind %q", b.line, b.info)
		}
		if err != nil {
			t.Errorf("README.md:%d: %v", b.line, err)
		}
		ran++
	}
	if ran < 3 {
		t.Errorf("README.md shows %d things that can run; want 3 or more", ran)
	}
}

// build returns the path of the program, built anew.
func build(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds the program")
	}
	program := filepath.Join(t.TempDir(), "kubeguardian")
	cmd := exec.Command("go", "build", "-o", program, "./cmd/kubeguardian")
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return program
}

// runTranscript runs each "$ command" of a transcript in the repository and
// compares what it prints, standard error included. A line "..." stands for
// any lines, "..." inside a line for any text.
func runTranscript(t *testing.T, dir, bin string, b block) {
	t.Helper()
	for _, step := range strings.Split("\n"+b.text, "\n$ ")[1:] {
		command, want, _ := strings.Cut(step, "\n")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		cmd := exec.CommandContext(ctx, "sh", "-c", command)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "NO_COLOR=1", "COLUMNS=80")
		got, _ := cmd.CombinedOutput() // a finding is exit code 1; the text is compared
		cancel()
		if !matchesTranscript(string(got), want) {
			t.Errorf("line %d: $ %s\nprints\n%s\nthe page shows\n%s", b.line, command, got, want)
		}
	}
}

// matchesTranscript compares output with a pattern in which "..." stands for
// anything.
func matchesTranscript(got, want string) bool {
	pattern := regexp.QuoteMeta(strings.TrimSpace(want))
	pattern = strings.ReplaceAll(pattern, `\.\.\.`, `(?s:.*)`)
	ok, err := regexp.MatchString(`^`+pattern+`$`, strings.TrimSpace(got))
	return err == nil && ok
}

// TestConfigurationPage compares the page with the configuration: the example
// must be valid and have every key.
func TestConfigurationPage(t *testing.T) {
	for page, want := range map[string]int{"docs/audit-log.md": 1, "docs/rules.md": 1, "docs/falco.md": 1, "docs/clusters.md": 2} {
		shown := 0
		for _, b := range blocks(t, "../"+page) {
			if b.info != "yaml config" {
				continue
			}
			shown++
			if _, err := config.Parse(page, []byte(b.text)); err != nil {
				t.Errorf("%s:%d: %v", page, b.line, err)
			}
		}
		if shown != want {
			t.Errorf("%s: %d configurations, want %d", page, shown, want)
		}
	}
	for _, b := range blocks(t, "../docs/configuration.md") {
		if b.info != "yaml config" {
			continue
		}
		if _, err := config.Parse("docs/configuration.md", []byte(b.text)); err != nil {
			t.Error(err)
		}
		var shown map[string]any
		if err := yaml.Unmarshal([]byte(b.text), &shown); err != nil {
			t.Fatal(err)
		}
		everyKey(t, reflect.TypeFor[config.Config](), shown, "")
		return
	}
	t.Error("docs/configuration.md has no yaml config block")
}

// TestEvidencePage reads the documents that the page shows.
func TestEvidencePage(t *testing.T) {
	read := map[string]func(data []byte) error{
		"yaml statement": func(data []byte) error { _, err := evidence.Read("docs/evidence.md", data); return err },
		"yaml runtime":   func(data []byte) error { _, err := evidence.Read("docs/evidence.md", data); return err },
		"yaml exception": func(data []byte) error {
			found, err := exception.Read("docs/evidence.md", data)
			if err == nil {
				err = found[0].Check(found[0].Spec.Created.Time, false)
			}
			return err
		},
	}
	seen := map[string]bool{}
	for _, b := range blocks(t, "../docs/evidence.md") {
		if read[b.info] == nil {
			t.Fatalf("docs/evidence.md:%d: nothing reads a block of %q", b.line, b.info)
		}
		if err := read[b.info]([]byte(b.text)); err != nil {
			t.Errorf("docs/evidence.md:%d: %v", b.line, err)
		}
		seen[b.info] = true
	}
	for kind := range read {
		if !seen[kind] {
			t.Errorf("docs/evidence.md has no block of %s", kind)
		}
	}
}

// TestPoliciesPage loads the policies that the page shows.
func TestPoliciesPage(t *testing.T) {
	shown := 0
	for _, b := range blocks(t, "../docs/policies.md") {
		if b.info == "yaml settings" {
			checkSettings(t, b.text)
		}
		if b.info != "yaml policy" {
			continue
		}
		shown++
		if _, err := policy.Load(policy.File{Name: "docs/policies.md", Data: []byte(b.text)}); err != nil {
			t.Errorf("block at line %d: %v", b.line, err)
		}
	}
	if shown < 2 {
		t.Errorf("docs/policies.md shows %d policies, want one of each kind", shown)
	}
}

// checkSettings applies the settings that a page shows to the built-in policies.
func checkSettings(t *testing.T, text string) {
	t.Helper()
	files, err := content.Read[policy.File](content.Policies())
	if err != nil {
		t.Fatal(err)
	}
	settings, err := setting.Parse("docs/policies.md", []byte(text))
	if err == nil {
		files, err = settings.Apply(files)
	}
	if err == nil {
		_, err = policy.Load(files...)
	}
	if err != nil {
		t.Error(err)
	}
}

// everyKey fails for each key of a configuration struct that shown lacks.
func everyKey(t *testing.T, typ reflect.Type, shown map[string]any, path string) {
	t.Helper()
	for field := range typ.Fields() {
		key := field.Tag.Get("yaml")
		value, ok := shown[key]
		if !ok {
			t.Errorf("docs/configuration.md does not show %s%s", path, key)
		}
		if field.Type.Kind() == reflect.Struct {
			inner, _ := value.(map[string]any)
			everyKey(t, field.Type, inner, path+key+".")
		}
	}
}

// TestReviewPage runs the transcripts of the page, and reads its
// configuration of an API server as that does.
func TestReviewPage(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	bin, configured := filepath.Dir(build(t)), false
	for _, b := range blocks(t, "../docs/review.md") {
		switch b.info {
		case "console":
			runTranscript(t, root, bin, b)
		case "yaml apiserver":
			configured = true
			checkAPIServerConfig(t, b.text)
		default:
			t.Errorf("docs/review.md:%d: block of unknown kind %q", b.line, b.info)
		}
	}
	if !configured {
		t.Error("docs/review.md does not show how an API server reads static manifests")
	}
}

// checkAPIServerConfig reads the file of --admission-control-config-file. That
// the folder is missing is the one mistake that it may have.
func checkAPIServerConfig(t *testing.T, text string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "admission.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	install.Install(scheme)
	provider, err := admission.ReadAdmissionConfiguration([]string{"ValidatingAdmissionPolicy"}, path, scheme)
	if err != nil {
		t.Fatal(err)
	}
	section, err := provider.ConfigFor("ValidatingAdmissionPolicy")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := policyconfig.LoadValidatingConfig(section); err == nil || !strings.Contains(err.Error(), "unable to read") {
		t.Errorf("configuration of the API server: %v", err)
	}
}

func TestReadmeLength(t *testing.T) {
	data, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(strings.Fields(string(data))); n > readmeWords {
		t.Errorf("README.md has %d words, want at most %d", n, readmeWords)
	}
}
