// Package repository reads a source folder: who owns what, what its pipelines
// run and with which rights, and which secrets lie in it.
//
// It reads files, and the history if git is there. It runs nothing of the
// folder, and never keeps or returns a secret: only where one is, and of what
// kind.
package repository

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Bounds of what is read of a folder.
const (
	maxFiles  = 50_000
	maxFile   = 4 << 20  // a larger one is no source
	maxTotal  = 64 << 20 // of all files together
	maxPlaces = 1000     // of one kind
)

// marks are what a source folder has at its root, and a folder of evidence has
// not.
var marks = []string{".git", ".github", ".gitlab-ci.yml", ".gitlab-ci.yaml", ".tekton", "Jenkinsfile"}

// Is reports whether a folder is a source folder.
func Is(folder string) bool {
	return slices.ContainsFunc(marks, func(name string) bool {
		_, err := os.Lstat(filepath.Join(folder, name))
		return err == nil
	})
}

// A Tree is what was seen in a source folder. Places are "file:line", with the
// file as seen from where the scan runs.
type Tree struct {
	Name        string // of the folder
	Remote      string // address of its remote, without credentials; "" for none
	Files       int
	Left        []string // what was not looked at, and why
	CodeOwners  string   // file; "" for none
	Sensitive   []Path
	Workflows   []Workflow
	Updates     []string // files that set up updates of dependencies
	Terraform   []string // files of infrastructure as code
	Leaks       []Leak
	History     string   // why the history was not searched; "" if it was
	SecretFiles []string // places of manifests with plain secrets
	// TestSecretFiles are such manifests that are part of tests.
	TestSecretFiles []string
}

// Steps returns the steps of all workflows that are for a purpose, such as sast,
// dependencies, secrets, dast, manifests, signing or provenance.
func (t *Tree) Steps(purpose string) []Step {
	var out []Step
	for _, w := range t.Workflows {
		for _, s := range w.Steps {
			if slices.Contains(s.For, purpose) {
				out = append(out, s)
			}
		}
	}
	return out
}

// Blind says why a step that was not seen may exist nevertheless; "" if it
// cannot.
func (t *Tree) Blind() string {
	if len(t.Workflows) == 0 {
		return "no pipeline is set up in the repository"
	}
	for _, w := range t.Workflows {
		switch {
		case w.Opaque != "":
			return w.Place + ": " + w.Opaque
		case len(w.Calls) > 0:
			return w.Calls[0] + " runs what is written elsewhere"
		}
	}
	return ""
}

// A Path is a folder or file that decides what is deployed or allowed.
type Path struct {
	Path   string
	What   string // workflow, manifests, chart, policy, infrastructure
	Owners []string
}

// A Leak is a secret in a file, by the name of the rule that found it.
type Leak struct {
	Rule   string
	Place  string
	Commit string // where it is in the history only
	Test   bool   // in a part of tests, where made-up secrets are usual
}

// Read reads a source folder. What cannot be read is an error; what is over a
// bound is named in Left.
func Read(ctx context.Context, folder string) (*Tree, error) {
	r := &reader{ctx: ctx, root: folder, tree: &Tree{Name: name(folder), Remote: remote(folder)}}
	names, err := r.names()
	if err != nil {
		return nil, fmt.Errorf("read repository %s: %w", folder, err)
	}
	owners := r.codeOwners(names)
	search, err := newSearch()
	if err != nil {
		return nil, fmt.Errorf("load rules of secrets: %w", err)
	}
	searching, cancel := context.WithTimeout(ctx, treeTime)
	defer cancel()
	for _, name := range names {
		data, ok := r.file(name)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		r.tree.Files++
		r.tree.Leaks = append(r.tree.Leaks, search.file(searching, r.place(name, 0), name, data)...)
		r.look(name, data, owners)
	}
	if searching.Err() != nil {
		r.leave("some files: the search for secrets took over " + treeTime.String())
	}
	r.history(search)
	slices.SortStableFunc(r.tree.Leaks, func(a, b Leak) int { return order(a) - order(b) })
	r.tree.Leaks = r.tree.Leaks[:min(len(r.tree.Leaks), maxPlaces)]
	slices.SortFunc(r.tree.Sensitive, func(a, b Path) int { return strings.Compare(a.Path, b.Path) })
	return r.tree, nil
}

// order puts what counts first: not of tests, in the files.
func order(l Leak) int {
	n := 0
	if l.Test {
		n = 2
	}
	if l.Commit != "" {
		n++
	}
	return n
}

// A reader reads one folder.
type reader struct {
	ctx    context.Context
	root   string
	tree   *Tree
	opened *os.Root
	total  int
	seen   map[string]bool // sensitive folders
}

// names lists the files of a folder by their paths in it: those that git knows,
// else all.
func (r *reader) names() ([]string, error) {
	info, err := os.Stat(r.root)
	if err == nil && !info.IsDir() {
		err = errors.New("not a folder")
	}
	if err == nil {
		r.opened, err = os.OpenRoot(r.root)
	}
	if err != nil {
		return nil, err
	}
	if names, ok := r.tracked(); ok {
		return r.bounded(names), nil
	}
	var names []string
	err = fs.WalkDir(r.opened.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case r.ctx.Err() != nil:
			return r.ctx.Err()
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules"):
			return fs.SkipDir
		case !d.IsDir():
			names = append(names, name)
		}
		if len(names) > maxFiles {
			return fs.SkipAll
		}
		return nil
	})
	return r.bounded(names), err
}

func (r *reader) bounded(names []string) []string {
	if len(names) > maxFiles {
		r.leave(fmt.Sprintf("all but the first %d files", maxFiles))
		names = names[:maxFiles]
	}
	slices.Sort(names)
	return names
}

func (r *reader) leave(what string) {
	if len(r.tree.Left) < maxPlaces {
		r.tree.Left = append(r.tree.Left, what)
	}
}

// file reads a regular file within the bounds. Links are not followed out of
// the folder.
func (r *reader) file(name string) ([]byte, bool) {
	info, err := r.opened.Lstat(name)
	if err != nil || !info.Mode().IsRegular() {
		return nil, false // deleted in the work tree, a link or a submodule
	}
	if info.Size() > maxFile {
		if !binaryName(name) {
			r.leave(fmt.Sprintf("%s is over %d MiB", name, maxFile>>20))
		}
		return nil, false
	}
	if r.total > maxTotal {
		return nil, false
	}
	f, err := r.opened.Open(name)
	if err != nil {
		r.leave(name + " cannot be read")
		return nil, false
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		r.leave(name + " cannot be read")
		return nil, false
	}
	if r.total += len(data); r.total > maxTotal {
		r.leave(fmt.Sprintf("files after %s: over %d MiB in all", name, maxTotal>>20))
	}
	return data, !slices.Contains(data[:min(len(data), 8000)], 0)
}

// binaryName reports whether a large file is a picture, an archive or the like,
// or a list of versions.
func binaryName(name string) bool {
	return slices.Contains([]string{
		".lock", ".sum", ".svg", ".map",
		".png", ".jpg", ".jpeg", ".gif", ".webp", ".ico", ".pdf", ".zip", ".gz", ".tgz", ".xz", ".jar", ".woff", ".woff2", ".ttf", ".mp4", ".so", ".a", ".o", ".exe", ".wasm",
	}, strings.ToLower(filepath.Ext(name)))
}

// place returns "file:line" as seen from where the scan runs.
func (r *reader) place(name string, line int) string {
	name = filepath.Join(r.root, filepath.FromSlash(name))
	if line == 0 {
		return name
	}
	return fmt.Sprintf("%s:%d", name, line)
}

// name returns the name of a folder.
func name(folder string) string {
	if abs, err := filepath.Abs(folder); err == nil {
		folder = abs
	}
	return filepath.Base(folder)
}

// userInfo matches the credentials in an address.
var userInfo = regexp.MustCompile(`^([a-z+]+://)[^/]*@`)

// remote returns the address of the remote called origin.
func remote(folder string) string {
	data, err := os.ReadFile(filepath.Join(folder, ".git", "config"))
	if err != nil || len(data) > maxFile {
		return ""
	}
	_, section, _ := strings.Cut(string(data), `[remote "origin"]`)
	_, url, _ := strings.Cut(section, "url = ")
	url, _, _ = strings.Cut(url, "\n")
	return userInfo.ReplaceAllString(strings.TrimSpace(url), "$1")
}
