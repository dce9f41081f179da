//go:build linux && kernels

package kernels

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A debian downloads packages of one release for one architecture, from the
// machine's mirrors but with lists and settings of its own, and keeps them in the
// user's cache.
type debian struct {
	t       *testing.T
	release string // codename
	arch    string
	dir     string
}

func newDebian(t *testing.T, release, arch string) *debian {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	d := &debian{t, release, arch, filepath.Join(cache, "kubeguardian", "kernels", release+"-"+arch)}
	for _, dir := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(d.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sources := fmt.Sprintf("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n", mirror(t, "Debian"), release) +
		fmt.Sprintf("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s-security main\n", mirror(t, "Debian-Security"), release)
	if err := os.WriteFile(filepath.Join(d.dir, "sources.list"), []byte(sources), 0o644); err != nil {
		t.Fatal(err)
	}
	// What was downloaded once will do where there is no network.
	if out, err := d.apt("update").CombinedOutput(); err != nil {
		t.Logf("apt-get update: %v: %s", err, out)
	}
	return d
}

// mirror returns where the machine gets packages of an origin from.
func mirror(t *testing.T, label string) string {
	t.Helper()
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(LABEL) $(SITE)", "Created-By: Packages").Output()
	if err != nil {
		t.Fatalf("apt-get indextargets: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		if l, site, _ := strings.Cut(strings.TrimSpace(line), " "); l == label {
			return site
		}
	}
	t.Fatalf("this machine has no source of packages labelled %s", label)
	return ""
}

func (d *debian) apt(args ...string) *exec.Cmd {
	cmd := exec.Command("apt-get", append([]string{"-qq",
		"-o", "Dir::State=" + d.dir, "-o", "Dir::State::status=/dev/null", "-o", "Dir::Cache=" + d.dir,
		"-o", "Dir::Etc::sourcelist=" + filepath.Join(d.dir, "sources.list"), "-o", "Dir::Etc::sourceparts=-",
		"-o", "APT::Architecture=" + d.arch, "-o", "APT::Architectures=" + d.arch, "-o", "APT::Install-Recommends=false",
		"-o", "Acquire::Languages=none", "-o", "APT::Sandbox::User="}, args...)...)
	cmd.Dir = filepath.Join(d.dir, "archives")
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	return cmd
}

var installed = regexp.MustCompile(`(?m)^Inst (\S+) \((\S+) `)

// fetch downloads packages and what they depend on, of all that those which
// match, and returns the files.
func (d *debian) fetch(match string, names ...string) []string {
	d.t.Helper()
	out, err := d.apt(append([]string{"--simulate", "install"}, names...)...).CombinedOutput()
	if err != nil {
		d.t.Fatalf("what %v needs: %v: %s", names, err, out)
	}
	var wanted, files []string
	for _, m := range installed.FindAllStringSubmatch(string(out), -1) {
		if regexp.MustCompile(match).MatchString(m[1]) {
			wanted = append(wanted, m[1]+"="+m[2])
		}
	}
	if out, err := d.apt(append([]string{"download"}, wanted...)...).CombinedOutput(); err != nil {
		d.t.Fatalf("download %v: %v: %s", wanted, err, out)
	}
	for _, w := range wanted {
		name, version, _ := strings.Cut(w, "=")
		pattern := filepath.Join(d.dir, "archives", name+"_"+strings.ReplaceAll(version, ":", "%3a")+"_*.deb")
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) != 1 {
			d.t.Fatalf("%s: %v, %v", pattern, found, err)
		}
		files = append(files, found[0])
	}
	return files
}
