package repository

import (
	"bytes"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/kubeguardian/kubeguardian/tool"
)

// look reads what a file says: by its name, then by its content.
func (r *reader) look(name string, data []byte, owners owners) {
	if what := sensitive(name, data); what != "" {
		r.sensitive(name, what, owners)
	}
	if path.Ext(name) == ".tf" && !fixture(name) {
		r.tree.Terraform = bounded(r.tree.Terraform, r.place(name, 0))
	}
	if slices.ContainsFunc(updates(), func(file string) bool { return file == name }) {
		r.tree.Updates = append(r.tree.Updates, r.place(name, 0))
	}
	if w := workflow(name, data, func(line int) string { return r.place(name, line) }); w != nil {
		r.tree.Workflows = append(r.tree.Workflows, *w)
	}
	if slices.Contains([]string{".yaml", ".yml", ".json"}, path.Ext(name)) {
		for _, line := range secretLines(data) {
			if madeUp(name) {
				r.tree.TestSecretFiles = bounded(r.tree.TestSecretFiles, r.place(name, line))
			} else {
				r.tree.SecretFiles = bounded(r.tree.SecretFiles, r.place(name, line))
			}
		}
	}
}

func bounded(list []string, s string) []string {
	if len(list) < maxPlaces {
		list = append(list, s)
	}
	return list
}

// updates are the files that set up updates of dependencies.
func updates() []string {
	var out []string
	for _, n := range tool.BuiltIn().Needs {
		if n.ID == "updates" {
			for _, t := range n.Tools {
				out = append(out, t.Files...)
			}
		}
	}
	return out
}

var (
	manifestForm = regexp.MustCompile(`(?m)^apiVersion:[ \t]*\S+[ \t]*\r?$`)
	kindForm     = regexp.MustCompile(`(?m)^kind:[ \t]*\S+[ \t]*\r?$`)
)

// sensitive says what a file decides: what is deployed, how, or what is
// allowed; "" for other files.
func sensitive(name string, data []byte) string {
	base, ext := path.Base(name), path.Ext(name)
	switch {
	case workflowKind(name) != "":
		return "workflow"
	case slices.Contains(ownerFiles, name):
		return "owners"
	case fixture(name):
		return ""
	case base == "Chart.yaml":
		return "chart"
	case base == "kustomization.yaml" || base == "kustomization.yml":
		return "manifests"
	case ext == ".rego":
		return "policy"
	case ext == ".tf":
		return "infrastructure"
	case (ext == ".yaml" || ext == ".yml") && manifestForm.Match(data) && kindForm.Match(data):
		return "manifests"
	}
	return ""
}

// fixture reports whether a file is data of tests or an example, which nobody
// deploys.
func fixture(name string) bool {
	return within(name, "testdata", "test", "tests", "fixtures", "examples", "example", "samples")
}

// madeUp reports whether a file is part of tests, which hold made-up secrets.
func madeUp(name string) bool {
	return within(name, "fixtures", "__tests__", "__fixtures__", "mocks") || testFolder.MatchString(path.Dir(name)) || testFile.MatchString(path.Base(name))
}

// testFile matches how tests are called in most languages.
var testFile = regexp.MustCompile(`^test_.*\.py$|[._]test\.[a-z]+$|\.spec\.[a-z]+$|Tests?\.(java|kt|cs)$`)

// testFolder matches folders such as tests, testdata and testcerts.
var testFolder = regexp.MustCompile(`(^|/)(tests?|test[a-z]+)(/|$)`)

// within reports whether a file is in a folder of one of the names, at any
// depth.
func within(name string, folders ...string) bool {
	return slices.ContainsFunc(strings.Split(path.Dir(name), "/"), func(f string) bool { return slices.Contains(folders, f) })
}

// sensitive keeps the folder of a sensitive file once, or the file if its
// owners are others than those of the folder.
func (r *reader) sensitive(name, what string, owners owners) {
	if r.seen == nil {
		r.seen = map[string]bool{}
	}
	of, shown := owners.of(name), path.Dir(name)
	if shown == "." || what == "owners" {
		shown = name
	}
	key := shown + "\x00" + strings.Join(of, " ")
	if r.seen[key] || len(r.tree.Sensitive) == maxPlaces {
		return
	}
	r.seen[key] = true
	r.tree.Sensitive = append(r.tree.Sensitive, Path{Path: shown, What: what, Owners: of})
}

// ownerFiles are where code hosts look for code owners, in their order.
var ownerFiles = []string{".github/CODEOWNERS", ".gitlab/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS"}

// codeOwners reads the first file of code owners.
func (r *reader) codeOwners(names []string) owners {
	for _, name := range ownerFiles {
		if !slices.Contains(names, name) {
			continue
		}
		if data, ok := r.file(name); ok {
			r.tree.CodeOwners = r.place(name, 0)
			return parseOwners(string(bytes.ToValidUTF8(data, nil)))
		}
	}
	return nil
}
