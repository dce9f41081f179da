package evidence

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/kubeguardian/kubeguardian/evidence/repository"
	"github.com/kubeguardian/kubeguardian/evidence/terraform"
	"github.com/kubeguardian/kubeguardian/yamldoc"
)

// Bounds of what is read.
const (
	maxFile  = 64 << 20 // of one document; the SBOM of a large image has 20 MiB
	maxFiles = 10_000
	maxDepth = 200 // nesting
)

// A format is a kind of document that can be read.
type format struct {
	name string // as its users call it
	// is reports by the keys of the outermost mapping whether a document is of
	// this format.
	is   func(head head) bool
	read func(d document) (*Set, error)
}

// formats are tried in this order.
var formats = []format{
	{"branch protection of GitHub", isGitHubProtection, gitHubProtection},
	{"branch protection of GitLab", isGitLabProtection, gitLabProtection},
	{"cosign verify --output json", isCosign, cosign},
	{"CycloneDX", isCycloneDX, cycloneDX},
	{"DSSE envelope", isEnvelope, dsse},
	{"gh attestation verify --format json", isVerification, verification},
	{"Grype", isGrype, grype},
	{"in-toto statement", isStatement, inToto},
	{"KEV catalogue", isKEV, kev},
	{"KubeGuardian attestation", func(h head) bool { return h.text("apiVersion") == StatementsVersion }, statements},
	{"KubeGuardian allow list of registries", func(h head) bool { return h.text("apiVersion") == RegistriesVersion }, registries},
	{"kube-bench --json", isKubeBench, kubeBench},
	{"kubeguardian scan --node", isNode, nodeRecord},
	{"KubeGuardian bundle", func(h head) bool { return h.text("apiVersion") == BundleVersion }, bundles},
	{"KubeGuardian runtime", func(h head) bool { return h.text("apiVersion") == RuntimeVersion }, runtimeRecords},
	{"Kubernetes audit log", func(h head) bool {
		return h.text("kind") == "EventList" && strings.HasPrefix(h.text("apiVersion"), auditGroup)
	}, auditList},
	{"OpenSSF Scorecard", isScorecard, scorecard},
	{"report object of Kubernetes", isReports, reports},
	{"SARIF", isSARIF, readSARIF},
	{"sigstore bundle", isBundle, bundle},
	{"SPDX", isSPDX, spdx},
	{"Terraform plan or state", func(h head) bool { return terraform.Is(h.has) }, terraformPlan},
	{"Trivy", isTrivy, trivy},
	{"ZAP", isZAP, zap},
}

// Load reads evidence from files and folders; in a folder, from every *.json,
// *.sarif, *.yaml and *.yml at any depth. A folder that is a source folder, see
// [repository.Is], is read as one: what is in it is no evidence, but seen. The
// format of a document is known by its content. A document of no known format
// is an error if the file was named, and if it stands in a folder. All errors are returned together.
func Load(ctx context.Context, paths ...string) (*Set, error) {
	l := loader{set: &Set{}}
	for _, p := range paths {
		l.path(ctx, p)
	}
	if err := errors.Join(append(l.errs, ctx.Err())...); err != nil {
		return nil, err
	}
	return l.set, nil
}

// Read reads the documents of one file: one, a JSON list of them, or JSON lines;
// name is for errors and origins.
func Read(name string, data []byte) (*Set, error) {
	data = bytes.TrimPrefix(data, []byte("\uFEFF")) // a byte order mark
	if set, is, err := auditLog(document{name, data}); is {
		return set, err
	}
	items, err := sequence(name, data)
	if err != nil {
		return nil, err
	}
	if len(items) > 0 {
		return readAll(name, items)
	}
	return readOne(name, data)
}

func readOne(name string, data []byte) (*Set, error) {
	d, h, err := parse(name, data)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, f := range formats {
		if f.is(h) {
			set, err := f.read(d)
			if err != nil {
				return nil, err
			}
			return set, nil
		}
		names = append(names, f.name)
	}
	return nil, fmt.Errorf("%s: not evidence of a known format: want %s", name, strings.Join(names, ", "))
}

type loader struct {
	set   *Set
	files int
	errs  []error
}

func (l *loader) fail(err error) { l.errs = append(l.errs, err) }

func (l *loader) path(ctx context.Context, root string) {
	before, looked := l.files, false
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && repository.Is(name):
			looked = true
			return l.repository(ctx, name)
		case ctx.Err() != nil:
			return fs.SkipAll
		case d.IsDir() || name != root && !slices.Contains([]string{".json", ".sarif", ".yaml", ".yml"}, filepath.Ext(name)):
			return nil
		}
		if l.files++; l.files > maxFiles {
			return fmt.Errorf("more than %d files", maxFiles)
		}
		l.file(name)
		return nil
	})
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		err = path.Err
	}
	if err != nil {
		l.fail(fmt.Errorf("%s: %w", root, err))
	} else if l.files == before && !looked && ctx.Err() == nil {
		l.set.Skipped = append(l.set.Skipped, Skip{Origin{Source: root}, 0, "no *.json, *.sarif, *.yaml or *.yml is in it"})
	}
}

// repository reads a source folder, and ends the walk through it.
func (l *loader) repository(ctx context.Context, name string) error {
	set, err := sourceFolder(ctx, name)
	if err != nil {
		return err
	}
	l.set.add(set)
	return fs.SkipDir
}

func (l *loader) file(name string) {
	data, err := readFile(name)
	if err != nil {
		l.fail(err)
		return
	}
	set, err := Read(name, data)
	if err != nil {
		l.fail(err)
		return
	}
	l.set.add(set)
}

// readFile takes at most the limit and one byte: a file can grow.
func readFile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		if path := (*fs.PathError)(nil); errors.As(err, &path) {
			err = path.Err
		}
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s: over the limit of %d MiB for one document", name, maxFile>>20)
	}
	return data, nil
}

// A document is one file of evidence.
type document struct {
	name string
	data []byte
}

// at returns "file:line"; without a line, the file.
func (d document) at(line int) string {
	if line == 0 {
		return d.name
	}
	return fmt.Sprintf("%s:%d", d.name, line)
}

func (d document) errorf(line int, format string, args ...any) error {
	return fmt.Errorf("%s: %s", d.at(line), fmt.Sprintf(format, args...))
}

// json decodes a foreign document; keys that are not asked for are left out.
func (d document) json(into any) error {
	err := json.Unmarshal(d.data, into)
	var syntax *json.SyntaxError
	var typed *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return d.errorf(d.lineOf(syntax.Offset), "%v", err)
	case errors.As(err, &typed):
		return d.errorf(d.lineOf(typed.Offset), "%s is a %s: want a %s", typed.Field, typed.Value, typed.Type.Kind())
	case err != nil:
		return d.errorf(0, "%v", err)
	}
	return nil
}

func (d document) lineOf(offset int64) int {
	return 1 + bytes.Count(d.data[:min(int(offset), len(d.data))], []byte("\n"))
}

// strict decodes a document of our own, YAML or JSON, and refuses unknown keys.
func (d document) strict(into any) error { return yamldoc.One(d.name, d.data, into) }

// A head is the outermost mapping of a document, by which its format is known.
type head map[string]yaml.Node

func (h head) text(key string) string {
	n := h[key]
	return n.Value
}

// has reports whether all the keys are there.
func (h head) has(keys ...string) bool {
	return !slices.ContainsFunc(keys, func(k string) bool { _, ok := h[k]; return !ok })
}

// parse checks that data is one YAML or JSON mapping within the bounds.
func parse(name string, data []byte) (document, head, error) {
	d := document{name, data}
	if depth(data) > maxDepth {
		return d, nil, d.errorf(0, "nested more than %d levels deep", maxDepth)
	}
	var h head
	if json.Valid(data) {
		var keys map[string]json.RawMessage
		if err := json.Unmarshal(data, &keys); err != nil {
			return d, nil, d.errorf(1, "want a mapping")
		}
		return d, headOf(keys), nil
	}
	if trimmed := bytes.TrimSpace(data); len(trimmed) > 0 && trimmed[0] == '{' {
		return d, nil, d.json(&h) // JSON with a mistake: say where
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	switch err := dec.Decode(&h); {
	case errors.Is(err, io.EOF):
		return d, nil, d.errorf(0, "empty")
	case err != nil:
		return d, nil, d.strict(new(map[string]any))
	case h == nil:
		return d, nil, d.errorf(1, "want a mapping")
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return d, nil, d.errorf(0, "want one document")
	}
	return d, h, nil
}

// headOf keeps what is text; of other values only the key counts.
func headOf(keys map[string]json.RawMessage) head {
	h := head{}
	for key, raw := range keys {
		n := yaml.Node{}
		if len(raw) < 1000 && json.Unmarshal(raw, &n.Value) == nil {
			n.Kind = yaml.ScalarNode
		}
		h[key] = n
	}
	return h
}

// depth returns how deep brackets nest in data, whatever is in strings: at
// least as deep as its values.
func depth(data []byte) int {
	deepest, now := 0, 0
	for _, b := range data {
		switch b {
		case '{', '[':
			now++
			deepest = max(deepest, now)
		case '}', ']':
			now = max(0, now-1)
		}
	}
	return deepest
}

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}
