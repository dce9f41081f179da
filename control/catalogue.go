// Package control holds the catalogue of controls: it evaluates them over an
// inventory into findings, and sums findings up into levels and the score.
//
// A control is data. What it demands is written either as an admission policy,
// so that the scan and the webhook give the same verdict, or as a Go analyzer
// in package check where one object alone cannot show it.
package control

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/yamldoc"
)

// Bounds of a catalogue.
const (
	maxFile     = 1 << 20
	maxControls = 1000
	maxErrors   = 100
)

// Words with a meaning of their own in a control.
const (
	workloads     = "workload"    // as a subject: every object that makes pods
	byPolicy      = "policy"      // as an evaluator: the policies annotated with the id
	byAttestation = "attestation" // as an evaluator: nothing but a person's word
)

// A Control is one demand of the catalogue.
type Control struct {
	ID         string              `yaml:"id"` // never reused
	Title      string              `yaml:"title"`
	Level      finding.Level       `yaml:"-"` // from the file
	Severity   finding.Severity    `yaml:"severity"`
	Subjects   []string            `yaml:"subjects"` // "workload", kinds as "Role.rbac.authorization.k8s.io", or what no API serves, as "ControlPlane"
	Definition string              `yaml:"definition"`
	Why        string              `yaml:"why"`
	Fix        Remedy              `yaml:"fix"`
	Frameworks map[string][]string `yaml:"frameworks"`
	Evidence   []evidence.Kind     `yaml:"evidence"`  // the kinds of evidence that can settle it, the usual one first
	Family     string              `yaml:"family"`    // controls that state one fact at several strengths
	Evaluator  string              `yaml:"evaluator"` // "policy", the name of a Go check, or "attestation"
	// Parts are the controls that this one sums up: they score, it does not.
	Parts []string `yaml:"parts"`
	// Unless names what makes up for a failure, see excuses.
	Unless string `yaml:"unless"`
	// NotApplicable says why a policy that does not match a subject leaves it out.
	NotApplicable string `yaml:"notApplicable"`
	// Attestation says why nothing but a person's word can settle the control.
	Attestation string `yaml:"attestation"`

	shared *finding.Definition // of all its findings
}

// A Remedy is how a control is met.
type Remedy struct {
	Class string `yaml:"class"` // auto, suggest or guide
	Text  string `yaml:"text"`
}

// A Catalogue is an immutable set of controls. It is safe for concurrent use.
type Catalogue struct {
	version  string
	controls []Control
	units    []unit
	unitOf   map[string]int // by control id; none for one that sums others up
	byID     map[string]*Control
}

// A unit is what the score counts once: a control, or a family of controls.
type unit struct {
	level    finding.Level
	weight   int                         // of its heaviest member
	severity map[string]finding.Severity // by control id
}

// idForm is the shape of an id: level, area, number.
var idForm = regexp.MustCompile(`^(INF|CLU|CON|APP|COD)-[A-Z]{3,4}-[0-9]{2}$`)

// levelPrefix is how the ids of each level begin.
var levelPrefix = map[finding.Level]string{
	finding.Infrastructure: "INF-", finding.Cluster: "CLU-", finding.Container: "CON-",
	finding.Application: "APP-", finding.Code: "COD-",
}

// frameworks are the standards that a control may be mapped to.
var frameworks = []string{"cis-1.10", "cis-1.12", "mitre", "ms-matrix", "nsa-cisa", "owasp-k8s-2025", "pss"}

// LoadCatalogue reads every YAML file of fsys. One file gives the version, the
// others the controls of one level each. Unknown and duplicate keys, unknown
// evaluators and ids given twice are errors with file and line; all errors are
// returned together, at most 100.
func LoadCatalogue(fsys fs.FS) (*Catalogue, error) {
	l := loader{seen: map[string]string{}}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("read catalogue: %w", err)
		}
		if ext := path.Ext(name); !d.IsDir() && (ext == ".yaml" || ext == ".yml") {
			return l.file(fsys, name)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if l.version == "" {
		l.errorf("catalogue", 0, "no file gives the version")
	}
	if len(l.controls) == 0 {
		l.errorf("catalogue", 0, "no file gives a control")
	}
	l.families()
	l.parts()
	if len(l.errs) > 0 {
		return nil, errors.Join(l.errs[:min(len(l.errs), maxErrors)]...)
	}
	return newCatalogue(l.version, l.controls), nil
}

// Version returns the catalogue's version, which is part of every score.
func (c *Catalogue) Version() string { return c.version }

// Controls returns the controls, ordered by level and id.
func (c *Catalogue) Controls() []Control { return slices.Clone(c.controls) }

// critical reports whether a control of this id is critical.
func (c *Catalogue) critical(id string) bool {
	ctl := c.byID[id]
	return ctl != nil && ctl.Severity == finding.Critical
}

func newCatalogue(version string, controls []Control) *Catalogue {
	levels := finding.Levels()
	slices.SortFunc(controls, func(a, b Control) int {
		return cmp.Or(
			cmp.Compare(slices.Index(levels, a.Level), slices.Index(levels, b.Level)),
			cmp.Compare(a.ID, b.ID),
		)
	})
	c := &Catalogue{version: version, controls: controls, unitOf: map[string]int{}, byID: map[string]*Control{}}
	families := map[string]int{}
	for i, ctl := range controls {
		c.byID[ctl.ID] = &controls[i]
		controls[i].shared = &finding.Definition{
			Control: ctl.ID, Title: ctl.Title, Level: ctl.Level, Severity: ctl.Severity, Frameworks: ctl.Frameworks,
		}
		if len(ctl.Parts) > 0 {
			continue
		}
		at, known := families[ctl.Family]
		if ctl.Family == "" || !known {
			at = len(c.units)
			families[ctl.Family] = at
			c.units = append(c.units, unit{level: ctl.Level, severity: map[string]finding.Severity{}})
		}
		u := &c.units[at]
		u.weight = max(u.weight, ctl.Severity.Weight())
		u.severity[ctl.ID] = ctl.Severity
		c.unitOf[ctl.ID] = at
	}
	return c
}

// A loader collects controls and what is wrong with them.
type loader struct {
	version  string
	controls []Control
	places   []string          // of controls
	seen     map[string]string // id to place
	errs     []error
}

func (l *loader) errorf(file string, line int, format string, args ...any) {
	place := file
	if line > 0 {
		place = fmt.Sprintf("%s:%d", file, line)
	}
	l.errs = append(l.errs, fmt.Errorf("%s: %s", place, fmt.Sprintf(format, args...)))
}

// A document is one catalogue file.
type document struct {
	Version  string        `yaml:"version"`
	Level    finding.Level `yaml:"level"`
	Controls []Control     `yaml:"controls"`
}

func (l *loader) file(fsys fs.FS, name string) error {
	f, err := fsys.Open(name)
	if err != nil {
		return fmt.Errorf("read catalogue: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return fmt.Errorf("read catalogue: %w", err)
	}
	if len(data) > maxFile {
		l.errorf(name, 0, "file is larger than %d bytes", maxFile)
		return nil
	}
	doc, lines, ok := l.decode(name, data)
	if !ok {
		return nil
	}
	if doc.Version != "" && l.version != "" {
		l.errorf(name, 1, "another file gives the version too")
	}
	l.version = cmp.Or(l.version, doc.Version)
	if _, err := finding.ParseLevel(string(doc.Level)); err != nil && len(doc.Controls) > 0 {
		l.errorf(name, 1, "%v", err)
		return nil
	}
	for i, ctl := range doc.Controls {
		ctl.Level = doc.Level
		l.add(name, lines[i], ctl)
	}
	return nil
}

// decode reads the only document of a file, and the line of each control.
func (l *loader) decode(name string, data []byte) (doc document, lines []int, ok bool) {
	err := yamldoc.One(name, data, &doc)
	var at struct{ Controls []yaml.Node }
	if err == nil {
		err = yaml.Unmarshal(data, &at)
	}
	if err != nil {
		l.errs = append(l.errs, err)
		return doc, nil, false
	}
	for _, n := range at.Controls {
		lines = append(lines, n.Line)
	}
	return doc, lines, true
}

func (l *loader) add(file string, line int, ctl Control) {
	report := func(format string, args ...any) {
		l.errorf(file, line, "control %s: %s", cmp.Or(ctl.ID, "without id"), fmt.Sprintf(format, args...))
	}
	place := fmt.Sprintf("%s:%d", file, line)
	if first, again := l.seen[ctl.ID]; again {
		report("id is already used at %s", first)
	}
	if !idForm.MatchString(ctl.ID) || !strings.HasPrefix(ctl.ID, levelPrefix[ctl.Level]) {
		report("id must be %sAAA-NN", levelPrefix[ctl.Level])
	}
	validate(ctl, report)
	l.seen[ctl.ID] = place
	if len(l.controls) == maxControls {
		report("more than %d controls", maxControls)
	}
	if len(l.controls) < maxControls {
		l.controls, l.places = append(l.controls, ctl), append(l.places, place)
	}
}

func validate(ctl Control, report func(string, ...any)) {
	if _, err := finding.ParseSeverity(string(ctl.Severity)); err != nil {
		report("%v", err)
	}
	for _, text := range []struct{ key, value string }{
		{"title", ctl.Title}, {"definition", ctl.Definition}, {"why", ctl.Why}, {"fix.text", ctl.Fix.Text},
	} {
		if strings.TrimSpace(text.value) == "" || strings.Contains(strings.TrimSpace(text.value), "\n") {
			report("%s must be one line of text", text.key)
		}
	}
	if !slices.Contains([]string{"auto", "suggest", "guide"}, ctl.Fix.Class) {
		report("unknown fix.class %q: want auto, suggest or guide", ctl.Fix.Class)
	}
	if _, known := checks[ctl.Evaluator]; !known && ctl.Evaluator != byPolicy && ctl.Evaluator != byAttestation {
		report("unknown evaluator %q: want policy, attestation or a check", ctl.Evaluator)
	}
	if (ctl.Attestation != "") != (ctl.Evaluator == byAttestation) {
		report("attestation must say why only a person's word settles the control, and only for that evaluator")
	}
	if _, known := excuses[ctl.Unless]; !known && ctl.Unless != "" {
		report("unknown unless %q", ctl.Unless)
	}
	validateSubjects(ctl.Subjects, report)
	validateEvidence(ctl.Evidence, report)
	for _, name := range slices.Sorted(maps.Keys(ctl.Frameworks)) {
		if !slices.Contains(frameworks, name) || len(ctl.Frameworks[name]) == 0 {
			report("framework %q has no ids or is none of %s", name, strings.Join(frameworks, ", "))
		}
	}
}

func validateSubjects(subjects []string, report func(string, ...any)) {
	if len(subjects) == 0 {
		report("subjects must name at least one kind")
	}
	for _, s := range subjects {
		if gk := schema.ParseGroupKind(s); s != workloads && (gk.Kind == "" || gk.Kind[0] < 'A' || gk.Kind[0] > 'Z') {
			report("subject %q is neither workload nor a kind", s)
		}
	}
}

func validateEvidence(kinds []evidence.Kind, report func(string, ...any)) {
	if len(kinds) == 0 {
		report("evidence must name at least one kind")
	}
	for _, kind := range kinds {
		if kind.Lifetime() == 0 {
			report("unknown evidence %q", kind)
		}
	}
}

// families checks that the members of a family belong to one level.
func (l *loader) families() {
	first := map[string]int{}
	for i, ctl := range l.controls {
		at, known := first[ctl.Family]
		if !known {
			first[ctl.Family] = i
		} else if ctl.Family != "" && l.controls[at].Level != ctl.Level {
			l.errorf(l.places[i], 0, "control %s: family %s has members in two levels", ctl.ID, ctl.Family)
		}
	}
}

// parts checks that what a control sums up scores, at the same level.
func (l *loader) parts() {
	scoring := map[string]finding.Level{}
	for _, ctl := range l.controls {
		if len(ctl.Parts) == 0 {
			scoring[ctl.ID] = ctl.Level
		}
	}
	for i, ctl := range l.controls {
		for _, id := range ctl.Parts {
			if level, known := scoring[id]; !known || level != ctl.Level {
				l.errorf(l.places[i], 0, "control %s: part %q is no control of the level that scores", ctl.ID, id)
			}
		}
		if len(ctl.Parts) > 0 && ctl.Family != "" {
			l.errorf(l.places[i], 0, "control %s: a control with parts does not score and is in no family", ctl.ID)
		}
	}
}
