package test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The alarms of the budgets. Their targets are lower, and only logged.
const (
	maxFunction      = 150 // lines
	maxFile          = 900
	maxPackage       = 4000
	maxMain          = 250
	maxMethods       = 10  // of an interface
	minTestShare     = 0.8 // lines of tests for each line of code
	maxPackageStates = 3   // package-level variables that change
)

func TestFunctions(t *testing.T) {
	all := sources(t)
	var lengths []int
	over := 0
	for _, s := range all.code() {
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			n := all.length(f)
			lengths = append(lengths, n)
			if n > 60 {
				over++
				t.Logf("%s: %s has %d lines, target 60", all.line(f), f.Name, n)
			}
			if n > maxFunction {
				t.Errorf("%s: %s has %d lines, at most %d", all.line(f), f.Name, n, maxFunction)
			}
			if f.Name.Name == "init" && f.Recv == nil {
				t.Errorf("%s: init runs where nobody sees it called", all.line(f))
			}
		}
	}
	median, p90 := quantiles(lengths)
	t.Logf("function lines: median %d (target 10), p90 %d (45), over 60: %.1f%% (5%%)", median, p90, 100*float64(over)/float64(len(lengths)))
}

func TestFilesAndPackages(t *testing.T) {
	var files []int
	packages := map[string]int{}
	for _, s := range sources(t).code() {
		files = append(files, s.lines)
		packages[s.folder()] += s.lines
		most := maxFile
		if path.Base(s.path) == "main.go" && strings.HasPrefix(s.path, "cmd/") {
			most = maxMain
			t.Logf("%s has %d lines, target 150", s.path, s.lines)
		}
		if s.lines > most {
			t.Errorf("%s has %d lines, at most %d", s.path, s.lines, most)
		}
	}
	var sizes []int
	for folder, n := range packages {
		sizes = append(sizes, n)
		if n > maxPackage {
			t.Errorf("package %s has %d lines, at most %d", folder, n, maxPackage)
		}
	}
	median, p90 := quantiles(files)
	t.Logf("file lines: median %d (target 140), p90 %d (400)", median, p90)
	median, _ = quantiles(sizes)
	t.Logf("package lines: median %d (target 200 to 500)", median)
}

// quantiles returns the median and the 90th percentile.
func quantiles(values []int) (median, p90 int) {
	slices.Sort(values)
	return values[len(values)/2], values[len(values)*9/10]
}

func TestInterfaces(t *testing.T) {
	all := sources(t)
	for _, s := range all.code() {
		ast.Inspect(s.file, func(n ast.Node) bool {
			if i, ok := n.(*ast.InterfaceType); ok && i.Methods.NumFields() > maxMethods {
				t.Errorf("%s: an interface of %d methods, at most %d", all.line(i), i.Methods.NumFields(), maxMethods)
			}
			return true
		})
	}
}

// TestShares counts among the tests the scripts of the commands, the labelled
// objects that controls and policies are held to, and what is in this folder:
// the story that the end-to-end test and the demo share.
func TestShares(t *testing.T) {
	code, tests, comments := 0, 0, 0
	all := sources(t)
	scripts, err := filepath.Glob("../cmd/*/testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"../content/*/testdata/*/*.yaml", "../content/*/testdata/*/*/*.yaml"} {
		examples, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		scripts = append(scripts, examples...)
	}
	for _, script := range scripts {
		text, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		tests += bytes.Count(text, []byte("\n"))
	}
	for _, s := range all.sources {
		if s.test || strings.HasPrefix(s.path, "test/") {
			tests += s.lines
			continue
		}
		code += s.lines
		for _, c := range s.file.Comments {
			comments += all.length(c)
		}
	}
	share := float64(tests) / float64(code)
	t.Logf("%d lines of code, %d of tests (%.2f, target 1.0 to 1.5), comments %.0f%% (13 to 20)",
		code, tests, share, 100*float64(comments)/float64(code))
	if share < minTestShare {
		t.Errorf("%.2f lines of tests for each line of code, at least %.1f", share, minTestShare)
	}
}

// TestPackageState looks for package-level variables that change: those that
// start empty (unless the compiler embeds a file), and those that a function
// writes to.
func TestPackageState(t *testing.T) {
	all := sources(t)
	empty, written := 0, map[string]map[string]bool{}
	for _, s := range all.code() {
		for _, f := range s.file.Decls {
			if f, ok := f.(*ast.FuncDecl); ok && f.Body != nil {
				note(written, s.folder(), assigned(f))
			}
		}
	}
	for _, s := range all.code() {
		for spec := range packageVars(s) {
			for _, name := range spec.Names {
				if name.Name == "_" {
					continue
				}
				if len(spec.Values) == 0 || written[s.folder()][name.Name] {
					empty++
					t.Logf("%s: %s is state of the package", all.line(name), name.Name)
				}
			}
		}
	}
	if empty > maxPackageStates {
		t.Errorf("%d package-level variables change, at most %d (target 0)", empty, maxPackageStates)
	}
}

// packageVars yields the variables of a file, but for embedded files.
func packageVars(s source) func(yield func(*ast.ValueSpec) bool) {
	return func(yield func(*ast.ValueSpec) bool) {
		for _, d := range s.file.Decls {
			d, ok := d.(*ast.GenDecl)
			if !ok || d.Tok != token.VAR {
				continue
			}
			for _, spec := range d.Specs {
				spec := spec.(*ast.ValueSpec)
				if !embeds(d.Doc) && !embeds(spec.Doc) && !yield(spec) {
					return
				}
			}
		}
	}
}

func embeds(doc *ast.CommentGroup) bool {
	return doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed ") })
}

func note(written map[string]map[string]bool, folder string, names []string) {
	if written[folder] == nil {
		written[folder] = map[string]bool{}
	}
	for _, name := range names {
		written[folder][name] = true
	}
}

// assigned returns the names that a function writes to and does not declare.
func assigned(f *ast.FuncDecl) []string {
	local := map[string]bool{}
	var names []string
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Field:
			for _, name := range n.Names {
				local[name.Name] = true
			}
		case *ast.ValueSpec:
			for _, name := range n.Names {
				local[name.Name] = true
			}
		case *ast.RangeStmt:
			for _, e := range []ast.Expr{n.Key, n.Value} {
				if n.Tok == token.DEFINE {
					local[root(e)] = true
				} else {
					names = append(names, root(e))
				}
			}
		case *ast.AssignStmt:
			for _, e := range n.Lhs {
				if n.Tok == token.DEFINE {
					local[root(e)] = true
				} else {
					names = append(names, root(e))
				}
			}
		case *ast.IncDecStmt:
			names = append(names, root(n.X))
		}
		return true
	})
	return slices.DeleteFunc(names, func(name string) bool { return local[name] || name == "" })
}

// root returns the variable that an expression such as a.b[c] belongs to.
func root(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return root(e.X)
	case *ast.IndexExpr:
		return root(e.X)
	case *ast.StarExpr:
		return root(e.X)
	case *ast.ParenExpr:
		return root(e.X)
	}
	return ""
}

// TestPackageStateIsSeen runs the finder on a function that writes to state.
func TestPackageStateIsSeen(t *testing.T) {
	const text = "package p\nfunc f(b int) { a++; b = 3; c[\"x\"].y = 4; var d int; d = 5; for e := range 3 { e += 1 }; for g = range 3 {} }\n"
	file, err := parser.ParseFile(token.NewFileSet(), "p.go", text, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	if got := assigned(file.Decls[0].(*ast.FuncDecl)); !slices.Equal(got, []string{"a", "c", "g"}) {
		t.Errorf("assigned = %v, want a, c and g", got)
	}
}
