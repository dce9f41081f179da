package test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/kubeguardian/kubeguardian"

// A source is one Go file of the module.
type source struct {
	path  string // from the root of the repository
	test  bool
	text  []byte
	lines int
	file  *ast.File
}

func (s source) folder() string { return path.Dir(s.path) }

// A tree is all Go files of the module, read once for all rules.
type tree struct {
	fset    *token.FileSet
	sources []source
}

// line returns "file:line" of a node.
func (t tree) line(n ast.Node) string {
	return strings.TrimPrefix(t.fset.Position(n.Pos()).String(), "../")
}

// length returns the lines of a node.
func (t tree) length(n ast.Node) int {
	return t.fset.Position(n.End()).Line - t.fset.Position(n.Pos()).Line + 1
}

// code returns the files that are no tests.
func (t tree) code() []source {
	return slices.DeleteFunc(slices.Clone(t.sources), func(s source) bool { return s.test })
}

var readTree = sync.OnceValues(func() (tree, error) {
	t := tree{fset: token.NewFileSet()}
	err := filepath.WalkDir("..", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			if name != ".." && leftOut(name) {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(name) != ".go" {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(t.fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		t.sources = append(t.sources, source{
			path: strings.TrimPrefix(filepath.ToSlash(name), "../"), test: strings.HasSuffix(name, "_test.go"),
			text: text, lines: bytes.Count(text, []byte("\n")), file: file,
		})
		return nil
	})
	return t, err
})

// leftOut reports whether a folder is no part of the module: hidden, data, or a
// module of its own.
func leftOut(name string) bool {
	base := filepath.Base(name)
	_, err := os.Stat(filepath.Join(name, "go.mod"))
	return strings.HasPrefix(base, ".") || base == "testdata" || err == nil
}

func sources(t *testing.T) tree {
	t.Helper()
	all, err := readTree()
	if err != nil {
		t.Fatal(err)
	}
	if len(all.sources) < 10 {
		t.Fatalf("only %d Go files found", len(all.sources))
	}
	return all
}

func TestOnePackageComment(t *testing.T) {
	comments := map[string][]string{}
	for _, s := range sources(t).code() {
		comments[s.folder()] = append(comments[s.folder()], "")
		if s.file.Doc != nil {
			comments[s.folder()] = append(comments[s.folder()], s.path)
		}
	}
	for folder, files := range comments {
		files = slices.DeleteFunc(files, func(f string) bool { return f == "" })
		if len(files) != 1 {
			t.Errorf("%s has %d package comments, want one: %v", folder, len(files), files)
		}
	}
}

func TestExportedNamesAreDocumented(t *testing.T) {
	all := sources(t)
	for _, s := range all.code() {
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) {
					t.Errorf("%s: %s has no comment", all.line(d), d.Name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if name := undocumented(d, spec); name != nil {
						t.Errorf("%s: %s has no comment", all.line(name), name)
					}
				}
			}
		}
	}
}

// exportedReceiver reports whether a function is one, or a method of an
// exported type.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if generic, ok := typ.(*ast.IndexExpr); ok {
		typ = generic.X
	}
	name, ok := typ.(*ast.Ident)
	return !ok || name.IsExported()
}

// undocumented returns an exported name without a comment of its own or of its
// group, or nil.
func undocumented(d *ast.GenDecl, spec ast.Spec) *ast.Ident {
	switch spec := spec.(type) {
	case *ast.TypeSpec:
		if spec.Name.IsExported() && d.Doc == nil && spec.Doc == nil && spec.Comment == nil {
			return spec.Name
		}
	case *ast.ValueSpec:
		for _, name := range spec.Names {
			if name.IsExported() && d.Doc == nil && spec.Doc == nil && spec.Comment == nil {
				return name
			}
		}
	}
	return nil
}

func TestFileNames(t *testing.T) {
	form := regexp.MustCompile(`^[a-z0-9]+(_[a-z0-9]+)*\.go$`)
	for _, s := range sources(t).sources {
		if !form.MatchString(path.Base(s.path)) {
			t.Errorf("%s: want lower case without hyphens", s.path)
		}
		for part := range strings.SplitSeq(strings.TrimSuffix(s.path, ".go"), "/") {
			if slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "misc", "pkg", "internal"}, part) {
				t.Errorf("%s: %q names nothing that it provides", s.path, part)
			}
		}
	}
}

func TestNoMachinePaths(t *testing.T) {
	local := regexp.MustCompile(`/(?:work|Users)/\w|/root/(?:go|\.)|/home/\w+/`)
	for _, s := range sources(t).sources {
		if found := local.Find(s.text); found != nil {
			t.Errorf("%s mentions a path of one machine: %s", s.path, found)
		}
	}
}

// TestSkipsCanFail wants a test that skips to fail instead where everything it
// needs must be there, unless only short tests are asked for.
func TestSkipsCanFail(t *testing.T) {
	for _, s := range sources(t).sources {
		skips := bytes.Contains(s.text, []byte(".Skip"+"("))
		if s.test && skips && !bytes.Contains(s.text, []byte("KUBEGUARDIAN_REQUIRE")) && !bytes.Contains(s.text, []byte("testing.Short()")) {
			t.Errorf("%s skips a test without regard to KUBEGUARDIAN_REQUIRE=all", s.path)
		}
	}
}
