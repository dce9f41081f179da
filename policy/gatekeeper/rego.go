package gatekeeper

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/plan"
	"github.com/kubeguardian/kubeguardian/policy/referential"
)

// A regoSource is the code of a template in Rego, and where it stands.
type regoSource struct {
	path string

	Rego    string   `json:"rego"`
	Version string   `json:"version"`
	Libs    []string `json:"libs"`
}

// A regoEngine is the compiled Rego of a template.
type regoEngine struct {
	plain     *program
	split     *program   // gives the same with less work, or fails; may be nil
	plan      *plan.Plan // gives the same with least work, or fails; may be nil
	namespace bool       // the code may read input.review.namespaceObject
	inventory bool       // the code reads data.inventory
	external  bool       // the code calls external_data
}

// A program is compiled Rego with the query for violations.
type program struct {
	compiler *ast.Compiler
	query    ast.Body
	shared   *ruleTree
	places   int // in it
	memo     memo
}

// The modules of a template. Their names are part of the messages of errors at
// run time, where suites may look for them.
const (
	entryModule = "template"
	libPackage  = "lib" // below data; libraries of a template are kept in data.libs.lib
	libsPackage = "libs"
)

// newRegoEngine parses, checks, links and compiles the code of a template.
func newRegoEngine(d *policy.Document, source regoSource) (engine, error) {
	version := ast.RegoV0
	if source.Version == "v1" {
		version = ast.RegoV1
	}
	m := modules{document: d, paths: map[string]string{}, byName: map[string]*ast.Module{}}
	entry := m.parse(entryModule, source.path+".rego", source.Rego, version)
	var libs []*ast.Module
	for i, text := range source.Libs {
		libs = append(libs, m.parse(fmt.Sprintf(`%s["lib_%d"]`, libsPackage, i), fmt.Sprintf("%s.libs[%d]", source.path, i), text, version))
	}
	if len(m.errs) > 0 {
		return nil, errors.Join(m.errs...)
	}
	m.checkEntry(entry)
	m.link(entry, libs)
	if len(m.errs) > 0 {
		return nil, errors.Join(m.errs...)
	}
	plain, err := newProgram(m.byName)
	if err != nil {
		var list ast.Errors
		if !errors.As(err, &list) {
			return nil, d.At(source.path, "%v", err)
		}
		m.fail(list)
		return nil, errors.Join(m.errs...)
	}
	e := &regoEngine{plain: plain, split: plain.split(m.byName), namespace: readsNamespace(plain.compiler), inventory: m.inventory, external: asksProviders(plain.compiler)}
	e.plan = cmp.Or(e.split, plain).plan()
	return e, nil
}

// plan returns the plan of a program, or nil when there can be none.
func (p *program) plan() *plan.Plan {
	d := dependence{compiler: p.compiler, memo: map[*ast.Rule]reach{}}
	share := func(r *ast.Rule) plan.Share {
		switch d.of(r) {
		case own:
			return plan.Everybody
		case request:
			return plan.Session
		}
		return plan.Nobody
	}
	planned, err := plan.New(p.compiler, dataRef(entryModule, "violation"), share, &memo{})
	if err != nil { // it says what has no plan; the program does without
		return nil
	}
	return planned
}

// newProgram compiles linked modules, which stay as they are.
func newProgram(modules map[string]*ast.Module) (*program, error) {
	compiler := ast.NewCompiler().WithCapabilities(capabilities())
	if compiler.Compile(modules); compiler.Failed() {
		return nil, compiler.Errors
	}
	query, err := compiler.QueryCompiler().Compile(ast.MustParseBody("data.template.violation[r]"))
	if err != nil {
		return nil, fmt.Errorf("compile query: %w", err)
	}
	d := dependence{compiler: compiler, memo: map[*ast.Rule]reach{}}
	shared, places := d.sharedRules()
	return &program{compiler: compiler, query: query, shared: shared, places: places}, nil
}

// capabilities are external_data and the built-ins of Rego but those that reach
// out of the request: to the network, the file system (a schema may refer to a
// file) or the environment.
func capabilities() *ast.Capabilities {
	forbidden := []string{"http.send", "net.lookup_ip_addr", "opa.runtime", "json.match_schema", "json.verify_schema"}
	c := ast.CapabilitiesForThisVersion()
	c.Builtins = slices.DeleteFunc(c.Builtins, func(b *ast.Builtin) bool { return slices.Contains(forbidden, b.Name) })
	c.Builtins = append(c.Builtins, externalDataBuiltin())
	c.AllowNet = []string{}
	return c
}

// Modules are parsed pieces of code that know where in the file they stand.
type modules struct {
	document *policy.Document
	paths    map[string]string // to the text, by module name
	byName   map[string]*ast.Module
	errs     []error

	inventory bool // one of them reads data.inventory
}

func (m *modules) parse(name, path, text string, version ast.RegoVersion) *ast.Module {
	m.paths[name] = path
	module, err := ast.ParseModuleWithOpts(name, text, ast.ParserOptions{RegoVersion: version})
	switch {
	case err != nil:
		var list ast.Errors
		if errors.As(err, &list) {
			m.fail(list)
		} else {
			m.errs = append(m.errs, m.document.At(path, "rego: %v", err))
		}
	case module == nil:
		m.errs = append(m.errs, m.document.At(path, "%s: the module is empty", path))
	}
	m.byName[name] = module
	return module
}

// fail keeps errors of the compiler, each at its line of the file.
func (m *modules) fail(list ast.Errors) {
	for _, err := range list {
		message := err.Message
		if name, ok := strings.CutPrefix(message, "undefined function "); ok && !strings.Contains(name, "data.") {
			message += ": it does not exist, or it reaches out of the request and is not allowed"
		}
		m.bad(err.Location, "%s", message)
		last := len(m.errs) - 1
		m.errs[last] = policy.Coded(err.Code, m.errs[last])
	}
}

func (m *modules) bad(at *ast.Location, format string, args ...any) {
	err := fmt.Errorf("rego: "+format, args...)
	if at == nil || m.paths[at.File] == "" {
		m.errs = append(m.errs, m.document.At(targetPath, "%v", err))
		return
	}
	m.errs = append(m.errs, m.document.AtRow(m.paths[at.File], at.Row, "%v", err))
}

// checkEntry wants the rule that is asked.
func (m *modules) checkEntry(entry *ast.Module) {
	if !slices.ContainsFunc(entry.Rules, func(r *ast.Rule) bool { return string(r.Head.Name) == "violation" }) {
		m.bad(entry.Package.Location, "the rule violation is missing")
	}
}

// link gives the modules their places in data: the entry at data.template,
// libraries, which must be in data.lib, below data.libs. Nothing else but
// data.inventory may be read.
func (m *modules) link(entry *ast.Module, libs []*ast.Module) {
	entry.Package.Path = dataRef(entryModule)
	for _, lib := range libs {
		path := lib.Package.Path
		if !hasPrefix(path, libPackage) || len(path) < 3 {
			m.bad(lib.Package.Location, "package %s of a library is not below data.lib", path)
			continue
		}
		lib.Package.Path = relocated(path)
	}
	for _, module := range append(libs, entry) {
		for _, i := range module.Imports {
			m.linkImport(i)
		}
		for _, rule := range module.Rules {
			m.linkRule(rule)
		}
	}
}

func (m *modules) linkImport(i *ast.Import) {
	path, ok := i.Path.Value.(ast.Ref)
	switch {
	case ok && hasPrefix(path, libPackage):
		i.Path.Value = relocated(path)
	case ok && path[0].Equal(ast.VarTerm("future")):
	default:
		m.bad(i.Location, "import of %s is not allowed: want one below data.lib or future.keywords", i.Path)
	}
}

func (m *modules) linkRule(rule *ast.Rule) {
	ast.WalkTerms(rule, func(term *ast.Term) bool {
		ref, ok := term.Value.(ast.Ref)
		if !ok || !ref[0].Equal(ast.DefaultRootDocument) {
			return false
		}
		switch {
		case hasPrefix(ref, "inventory"):
			m.inventory = true
		case hasPrefix(ref, libPackage):
			term.Value = relocated(ref)
		default:
			m.bad(term.Location, "%s may not be read: want data.inventory or something below data.lib", ref)
		}
		return false
	})
}

func dataRef(names ...string) ast.Ref {
	ref := ast.Ref{ast.DefaultRootDocument}
	for _, name := range names {
		ref = append(ref, ast.StringTerm(name))
	}
	return ref
}

// hasPrefix reports whether a reference starts with data and a name.
func hasPrefix(ref ast.Ref, name string) bool { return ref.HasPrefix(dataRef(name)) }

// relocated returns data.libs.x for data.x.
func relocated(ref ast.Ref) ast.Ref { return append(dataRef(libsPackage), ref[1:]...) }

// judge asks the rule violation for one constraint. What the plan or the split
// program fail for, the plain one may not have come across: it decides.
func (e *regoEngine) judge(r *review, c *constraint) ([]verdict, error) {
	if e.plan != nil {
		if out, err := e.planned(r, c); err == nil || r.stop.Cancelled() {
			return out, err
		}
	}
	input := ast.NewTerm(ast.NewObject(
		[2]*ast.Term{ast.InternedTerm("review"), r.value(e.namespace)},
		[2]*ast.Term{ast.InternedTerm("parameters"), c.parameters.value},
	))
	if e.split != nil {
		if out, err := e.split.run(r, input); err == nil || r.stop.Cancelled() {
			return out, err
		}
	}
	return e.plain.run(r, input)
}

// planned runs the plan.
func (e *regoEngine) planned(r *review, c *constraint) ([]verdict, error) {
	session := r.sessions[e]
	if session == nil {
		session = e.plan.Session(r, r.value(e.namespace), r.time, &r.stop)
		if r.sessions == nil {
			r.sessions = map[*regoEngine]*plan.Run{}
		}
		r.sessions[e] = session
	}
	found, err := session.Values(c.parameters.value)
	if err != nil {
		return nil, err
	}
	var out []verdict
	found.Foreach(func(term *ast.Term) {
		if v, ok := newVerdict(term); ok && !v.in(out) {
			out = append(out, v)
		}
	})
	return out, nil
}

func (p *program) run(r *review, input *ast.Term) ([]verdict, error) {
	cache := r.cache(p)
	query := topdown.NewQuery(p.query).
		WithCompiler(p.compiler).
		WithStore(r.store).
		WithTransaction(referential.Reading{}).
		WithInput(input).
		WithCancel(&r.stop).
		WithTime(r.time).
		WithMetrics(metrics.NoOp()).
		WithBuiltins(r.builtins()).
		WithVirtualCache(cache)
	var out []verdict
	err := query.Iter(r, func(result topdown.QueryResult) error {
		if v, ok := newVerdict(result["r"]); ok && !v.in(out) {
			out = append(out, v)
		}
		return nil
	})
	if err != nil {
		delete(r.caches, p)
		return nil, err
	}
	cache.commit()
	return out, nil
}

// in reports whether a list has the same verdict: constraints have sets of them.
func (v verdict) in(list []verdict) bool {
	return slices.ContainsFunc(list, func(other verdict) bool {
		return v.message == other.message && maps.Equal(v.details, other.details)
	})
}

// newVerdict reads one member of violation: an object with msg and, if it
// likes, details.
func newVerdict(term *ast.Term) (verdict, bool) {
	object, ok := term.Value.(ast.Object)
	if !ok {
		return verdict{}, false
	}
	msg := object.Get(ast.InternedTerm("msg"))
	if msg == nil {
		return verdict{}, false
	}
	v := verdict{details: details(object.Get(ast.InternedTerm("details")))}
	if text, ok := msg.Value.(ast.String); ok {
		v.message = string(text)
	} else {
		v.message = "the template gave a message that is not text: " + msg.String()
	}
	return v, true
}

// details returns the details of a violation by name; what is no text is
// written as JSON.
func details(term *ast.Term) map[string]string {
	if term == nil {
		return nil
	}
	object, ok := term.Value.(ast.Object)
	if !ok {
		return map[string]string{"details": plain(term)}
	}
	if object.Len() == 0 {
		return nil
	}
	out := make(map[string]string, object.Len())
	object.Foreach(func(k, v *ast.Term) { out[plain(k)] = plain(v) })
	return out
}

func plain(term *ast.Term) string {
	if text, ok := term.Value.(ast.String); ok {
		return string(text)
	}
	value, err := ast.JSON(term.Value) // a set becomes a list
	if err != nil {
		return term.String()
	}
	data, err := json.Marshal(value)
	if err != nil {
		return term.String()
	}
	return string(data)
}
