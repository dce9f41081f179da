package image_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/image"
)

// TestProduct builds KubeGuardian's own images twice, in different folders, and looks
// into them. It is slow: the server has much code in it.
func TestProduct(t *testing.T) {
	if testing.Short() {
		t.Skip("builds KubeGuardian twice")
	}
	project := image.KubeGuardian()
	o := image.Options{Project: project, Repository: "registry.example.com/kubeguardian"}
	o.Dir, _ = checkoutOf(t, "../../..")
	first := build(t, o)
	o.Dir, _ = checkoutOf(t, "../../..")
	second := build(t, o)
	for n, i := range first {
		t.Run(i.Name, func(t *testing.T) {
			if i.Digest != second[n].Digest {
				t.Errorf("built twice: %s and %s", i.Digest, second[n].Digest)
			}
			config, err := i.OCI.ConfigFile()
			if err != nil {
				t.Fatal(err)
			}
			if want := project.Programs[n].User; config.Config.User != want+":"+want {
				t.Errorf("user %q, want %q", config.Config.User, want)
			}
			checkProduct(t, i)
			sbom, err := i.SBOM()
			if err != nil || !strings.Contains(string(sbom), `"github.com/cilium/ebpf"`) && i.Name == "kubeguardian-agent" {
				t.Errorf("the SBOM does not list what reads the kernel (%v)", err)
			}
		})
	}
	if user := first[0].User; user == "0" {
		t.Error("the server runs as root")
	}
}

// checkProduct wants one program, which says its version, and no other.
func checkProduct(t *testing.T, i *image.Image) {
	t.Helper()
	found := extract(t, i.OCI)
	want := []string{"etc", "etc/group", "etc/passwd", "tmp", i.Name}
	if i.Public {
		want = append(want, "etc/ssl", "etc/ssl/certs", "etc/ssl/certs/ca-certificates.crt")
		if n := bytes.Count(found["etc/ssl/certs/ca-certificates.crt"], []byte("BEGIN CERTIFICATE")); n < 50 {
			t.Errorf("it trusts %d public authorities", n)
		}
	}
	slices.Sort(want)
	var names []string
	for name := range found {
		names = append(names, name)
	}
	if slices.Sort(names); !slices.Equal(names, want) {
		t.Errorf("files %q, want %q", names, want)
	}
	file := filepath.Join(t.TempDir(), i.Name)
	if err := os.WriteFile(file, found[i.Name], 0o700); err != nil {
		t.Fatal(err)
	}
	flag := map[string]string{"kubeguardian": "version", "kubeguardian-agent": "--version"}[i.Name]
	out, err := exec.Command(file, flag).CombinedOutput()
	if revision, _ := i.Commit(); err != nil || revision == "" || !strings.Contains(string(out), revision[:7]) {
		t.Errorf("%s of commit %s says (%v):\n%s", flag, revision, err, out)
	}
}

// extract returns the files of an image, and its folders without content.
func extract(t *testing.T, i v1.Image) map[string][]byte {
	t.Helper()
	files := mutate.Extract(i)
	defer files.Close()
	out := map[string][]byte{}
	for r := tar.NewReader(files); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if out[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Typeflag == tar.TypeReg && h.Mode&0o222 != 0 {
			t.Errorf("%s belongs to %d with mode %o: whoever runs it could change it", h.Name, h.Uid, h.Mode)
		}
	}
}
