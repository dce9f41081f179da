package repository

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// secret has the form of a key, and is none. It is put together here so that
// this file holds none either.
var secret = "AKIA" + "ZQ3DVN5XW2JTRHKC"

// folder writes files into a new folder.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		file := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func gitIn(t *testing.T, root string, args ...string) {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-C", root, "-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
}

func needGit(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		if os.Getenv("KUBEGUARDIAN_REQUIRE") != "" {
			t.Fatal("git is not installed")
		}
		t.Skip("git is not installed")
	}
}

func readTree(t *testing.T, root string) *Tree {
	t.Helper()
	tree, err := Read(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), secret) || strings.Contains(string(text), secret[4:12]) {
		t.Errorf("the secret is kept: %s", text)
	}
	return tree
}

// leaks writes leaks as "file:line", and "file:line@" if only in the history.
func leaks(root string, tree *Tree) string {
	var out []string
	for _, l := range tree.Leaks {
		place := strings.TrimPrefix(l.Place, root+"/")
		if l.Commit != "" {
			place += "@"
		}
		if l.Test {
			place += "?"
		}
		out = append(out, place)
	}
	return strings.Join(out, " ")
}

func TestSecretsInFiles(t *testing.T) {
	root := folder(t, map[string]string{
		".github/dependabot.yml": "version: 2\n",
		"a.py":                   "# nothing\n\nkey = '" + secret + "'\n",
		"allowed.py":             "key = '" + secret + "' # gitleaks:allow\n",
		"a_test.go":              "var key = \"" + secret + "\"\n",
		"bin.dat":                "\x00" + secret,
		"node_modules/a/b.js":    "key = '" + secret + "'\n",
		"deploy/secret.yaml":     "data:\n  key: QVdTX0tFWT1BS0lBWlEzRFZONVhXMkpUUkhLQw==\n", // in base64
	})
	if err := os.Symlink("/etc/passwd", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	tree := readTree(t, root)
	if got, want := leaks(root, tree), "a.py:3 allowed.py:1 deploy/secret.yaml:2 a_test.go:1?"; got != want {
		t.Errorf("leaks %q, want %q", got, want)
	}
	if tree.History != "the folder has no .git" || len(tree.Left) > 0 {
		t.Errorf("history %q, left %v", tree.History, tree.Left)
	}
}

func TestSecretsInTheHistory(t *testing.T) {
	needGit(t)
	root := folder(t, map[string]string{"a.py": "one\ntwo\n", "kept.py": "k = '" + secret + "'\n"})
	gitIn(t, root, "init", "-q", "-b", "main")
	gitIn(t, root, "add", ".")
	gitIn(t, root, "commit", "-qm", "first")
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(root, "a.py"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		gitIn(t, root, "commit", "-qam", "next")
	}
	write("one\ntwo\nthree\nkey = '" + secret + "'\n")
	write("one\ntwo\nthree\n")
	if err := os.WriteFile(filepath.Join(root, ".env"), []byte("KEY="+secret+"\n"), 0o644); err != nil { // not in git
		t.Fatal(err)
	}
	gitIn(t, root, "remote", "add", "origin", "https://user:password@example.com/shop/app.git")
	tree := readTree(t, root)
	if got, want := leaks(root, tree), "kept.py:1 a.py:4@"; got != want {
		t.Errorf("leaks %q, want %q", got, want)
	}
	if tree.History != "" || tree.Remote != "https://example.com/shop/app.git" || tree.Files != 2 {
		t.Errorf("history %q, remote %q, %d files", tree.History, tree.Remote, tree.Files)
	}

	shallow := t.TempDir()
	gitIn(t, shallow, "clone", "-q", "--depth", "1", "file://"+root, "c")
	if tree := readTree(t, filepath.Join(shallow, "c")); !strings.Contains(tree.History, "shallow") {
		t.Errorf("history of a shallow clone %q", tree.History)
	}
}

// A repository must not make its reader run a program.
func TestHostileRepository(t *testing.T) {
	needGit(t)
	root := folder(t, map[string]string{".gitattributes": "*.py diff=evil filter=evil\n", "a.py": "one\n"})
	gitIn(t, root, "init", "-q", "-b", "main")
	gitIn(t, root, "add", ".")
	gitIn(t, root, "commit", "-qm", "first")
	mark := filepath.Join(t.TempDir(), "ran")
	run := "touch " + mark
	for _, setting := range []string{
		"core.fsmonitor", "core.pager", "diff.external", "diff.evil.textconv", "diff.evil.command", "filter.evil.clean", "filter.evil.smudge", "gpg.program",
		"core.sshCommand", "core.alternateRefsCommand", "alias.log", "pager.log",
	} {
		gitIn(t, root, "config", setting, run)
	}
	gitIn(t, root, "config", "log.showSignature", "true")
	tree := readTree(t, root)
	if tree.History != "" || tree.Files != 2 {
		t.Errorf("history %q, %d files", tree.History, tree.Files)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("the repository ran a program")
	}
}

func TestBounds(t *testing.T) {
	root := folder(t, map[string]string{"Jenkinsfile": "", "large.sql": strings.Repeat("x", maxFile+1), "large.png": strings.Repeat("x", maxFile+1)})
	tree := readTree(t, root)
	if len(tree.Left) != 1 || tree.Left[0] != "large.sql is over 4 MiB" {
		t.Errorf("left %q", tree.Left)
	}
	if _, err := Read(t.Context(), filepath.Join(root, "Jenkinsfile")); err == nil || !strings.Contains(err.Error(), "not a folder") {
		t.Errorf("a file: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Read(ctx, root); err == nil {
		t.Error("no error after the end")
	}
}

func TestIs(t *testing.T) {
	for file, want := range map[string]bool{
		".git/HEAD": true, ".git": true, ".github/workflows/ci.yml": true, ".gitlab-ci.yml": true, "Jenkinsfile": true, ".tekton/run.yaml": true,
		"plan.json": false, "app/.git/HEAD": false,
	} {
		if got := Is(folder(t, map[string]string{file: ""})); got != want {
			t.Errorf("%s: %t", file, got)
		}
	}
}

func TestRemote(t *testing.T) {
	for config, want := range map[string]string{
		"[remote \"origin\"]\n\turl = git@github.com:shop/app.git\n\tfetch = x\n": "git@github.com:shop/app.git",
		"[remote \"origin\"]\n\turl = https://user:password@h/shop/app\n":         "https://h/shop/app",
		"[remote \"other\"]\n\turl = x\n":                                         "",
	} {
		if got := remote(folder(t, map[string]string{".git/config": config})); got != want {
			t.Errorf("%q: %q, want %q", config, got, want)
		}
	}
	if got := remote(t.TempDir()); got != "" {
		t.Errorf("without git: %q", got)
	}
}

func TestAdditions(t *testing.T) {
	const log = `commit aaaa

diff --git a/x.py b/x.py
index 1..2 100644
--- a/x.py
+++ b/x.py
@@ -1,0 +2,2 @@ def f():
+++ two
+three
@@ -9 +12 @@
-old
+twelve
\ No newline at end of file
diff --git "a/\"q\".py" b/y.py
+++ b/y.py
@@ -0,0 +1 @@
+one
commit bbbb
`
	var got []string
	a := newAdditions(strings.NewReader(log))
	for a.next() {
		got = append(got, fmt.Sprintf("%s %s %v %q", a.now.commit, a.now.file, a.now.lines, a.now.text.String()))
	}
	want := []string{`aaaa x.py [2 3 12] "++ two\nthree\ntwelve\n"`, `aaaa y.py [1] "one\n"`}
	if !slices.Equal(got, want) {
		t.Errorf("additions\n%s, want\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func FuzzAdditions(f *testing.F) {
	f.Add("commit a\ndiff --git a/x b/x\n+++ b/x\n@@ -1,0 +2,2 @@\n+two\n")
	f.Fuzz(func(t *testing.T, log string) {
		a := newAdditions(strings.NewReader(log))
		for n := 0; a.next(); n++ {
			if n > len(log) || a.now.text.Len() == 0 || a.now.text.Len() > 2*len(log) {
				t.Fatalf("addition %d of %d bytes", n, a.now.text.Len())
			}
		}
	})
}

// A secret is found wherever it stands in a long file, once, and at its line.
func TestPieces(t *testing.T) {
	s, err := newSearch()
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Repeat("x", 70) + "\n"
	for _, before := range []int{0, piece - 200, piece - overlap, piece - 20, piece, 2*piece - overlap, 5 * piece} {
		n := before / len(line)
		text := strings.Repeat(line, n) + "key = '" + secret + "'\n" + strings.Repeat(line, 2000)
		got := s.file(t.Context(), "a.py", "a.py", []byte(text))
		if len(got) != 1 || got[0].Place != fmt.Sprintf("a.py:%d", n+1) {
			t.Errorf("after %d bytes: %+v, want line %d", before, got, n+1)
		}
	}
	if got := s.file(t.Context(), "a.py", "a.py", []byte(strings.Repeat(" ", piece-10)+"'"+secret+"'")); len(got) != 1 {
		t.Errorf("across an end: %+v", got)
	}
}

func TestMadeUp(t *testing.T) {
	for name, want := range map[string]bool{
		"a_test.go": true, "src/test/java/A.java": true, "testdata/x": true, "pkg/testcerts/c.go": true, "test_a.py": true, "a.spec.ts": true, "ATests.cs": true,
		"latest/a": false, "contest.py": false, "attest/a.go": false, "testament.txt": false, "src/a.go": false,
	} {
		if madeUp(name) != want {
			t.Errorf("%s: %t", name, !want)
		}
	}
}

func TestSensitive(t *testing.T) {
	const manifest = "apiVersion: v1\nkind: Pod\n"
	for _, tt := range []struct{ name, text, want string }{
		{".github/workflows/ci.yml", "", "workflow"}, {".gitlab-ci.yml", "", "workflow"}, {"ci/Jenkinsfile", "", "workflow"},
		{"CODEOWNERS", "", "owners"}, {"other/CODEOWNERS", "", ""},
		{"chart/Chart.yaml", "", "chart"}, {"k/kustomization.yaml", "", "manifests"}, {"a.rego", "", "policy"}, {"net.tf", "", "infrastructure"},
		{"a.yaml", manifest, "manifests"}, {"a.yaml", "kind: Pod\n", ""}, {"a.yml", "spec:\n  apiVersion: v1\n  kind: Pod\n", ""}, {"a.txt", manifest, ""},
		{"testdata/a.yaml", manifest, ""}, {"examples/net.tf", "", ""}, {"test/Jenkinsfile", "", ""},
	} {
		if got := sensitive(tt.name, []byte(tt.text)); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// Files of one folder with the same owners are one path.
func TestPaths(t *testing.T) {
	const manifest = "apiVersion: v1\nkind: Pod\n"
	root := folder(t, map[string]string{
		".gitlab-ci.yml": "a: {script: x}\n", "deploy/a.yaml": manifest, "deploy/b.yaml": manifest, "deploy/c.yaml": manifest, "net.tf": "", "renovate.json": "{}",
		"CODEOWNERS": "/deploy/ @ops\n/deploy/c.yaml @security\n",
	})
	tree := readTree(t, root)
	var got []string
	for _, p := range tree.Sensitive {
		got = append(got, fmt.Sprintf("%s %s %s", p.Path, p.What, strings.Join(p.Owners, ",")))
	}
	want := []string{".gitlab-ci.yml workflow ", "CODEOWNERS owners ", "deploy manifests @ops", "deploy manifests @security", "net.tf infrastructure "}
	if !slices.Equal(got, want) {
		t.Errorf("paths %q, want %q", got, want)
	}
	if len(tree.Terraform) != 1 || len(tree.Updates) != 1 || !strings.HasSuffix(tree.CodeOwners, "CODEOWNERS") {
		t.Errorf("terraform %v, updates %v, owners %q", tree.Terraform, tree.Updates, tree.CodeOwners)
	}
}
