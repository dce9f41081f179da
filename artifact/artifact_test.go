package artifact

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	ociregistry "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/registry"
)

// A hub is a real registry on this machine, which counts requests. Forge may
// change what it answers for a blob.
type hub struct {
	*httptest.Server
	host     string
	requests atomic.Int64
	forge    func(path string) []byte
}

func newHub(t *testing.T) *hub {
	t.Helper()
	inner := ociregistry.New(ociregistry.Logger(log.New(io.Discard, "", 0)))
	h := &hub{}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.requests.Add(1)
		if h.forge != nil && r.Method == http.MethodGet {
			if data := h.forge(r.URL.Path); data != nil {
				w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
				w.Write(data)
				return
			}
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(h.Close)
	h.host = strings.TrimPrefix(h.URL, "http://")
	return h
}

func client(t *testing.T, cache string) *Client {
	t.Helper()
	access, err := registry.New(registry.Options{AllowLoopback: true})
	if err != nil {
		t.Fatal(err)
	}
	return New(Options{Registries: access, Cache: cache})
}

// push stores layers as other tools do, and returns the reference.
func (h *hub) push(t *testing.T, layers ...mutate.Addendum) string {
	t.Helper()
	image, err := mutate.Append(mutate.MediaType(empty.Image, types.OCIManifestSchema1), layers...)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(h.host + "/team/policies:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, image); err != nil {
		t.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return scheme + tag.Context().Digest(digest.String()).Name()
}

// file is a layer as oras makes it of a file, whose media type it does not know.
func file(title, text string) mutate.Addendum {
	return mutate.Addendum{Layer: static.NewLayer([]byte(text), types.OCIUncompressedLayer), Annotations: map[string]string{titleKey: title}}
}

// archive is a layer as docker makes it.
func archive(kind types.MediaType, entries ...tar.Header) mutate.Addendum {
	var text bytes.Buffer
	w := tar.NewWriter(&text)
	for _, e := range entries {
		content := e.Uname // there is no other place for it
		e.Uname, e.Size, e.Mode = "", int64(len(content)), 0o644
		if e.Typeflag != tar.TypeReg && e.Typeflag != 0 {
			e.Size, content = 0, ""
		}
		if err := errors.Join(w.WriteHeader(&e), ignoring(w.Write([]byte(content)))); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	data := text.Bytes()
	if strings.HasSuffix(string(kind), "gzip") {
		data = zip(data)
	}
	return mutate.Addendum{Layer: static.NewLayer(data, kind)}
}

func ignoring(_ int, err error) error { return err }

func zip(data []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if err := errors.Join(ignoring(w.Write(data)), w.Close()); err != nil {
		panic(err)
	}
	return out.Bytes()
}

func entry(name, text string) tar.Header {
	return tar.Header{Name: name, Uname: text, Typeflag: tar.TypeReg}
}

// show writes files as "name=content", without the reference.
func show(files []policy.File) (out []string) {
	for _, f := range files {
		_, at, _ := strings.Cut(f.Name, "@sha256:")
		_, at, _ = strings.Cut(at, "/")
		out = append(out, at+"="+string(f.Data))
	}
	return out
}

// TestLoop pushes files and pulls them. The digest depends on nothing else: it is
// the same as on the day when this was written.
func TestLoop(t *testing.T) {
	h, c := newHub(t), client(t, "")
	files := []policy.File{{Name: "b/team.yaml", Data: []byte("team")}, {Name: "a.yaml", Data: []byte("a")}, {Name: "c.yml", Data: []byte("a")}}
	pinned, err := c.Push(t.Context(), scheme+h.host+"/team/policies:1", files)
	if err != nil {
		t.Fatal(err)
	}
	const digest = "sha256:999477365094e52cbf74d5a90f1357437feed66970fa9ee13acca42439fe68b0"
	if want := scheme + h.host + "/team/policies@" + digest; pinned != want {
		t.Errorf("pushed %s, want %s", pinned, want)
	}
	slices.Reverse(files)
	again, err := c.Push(t.Context(), scheme+h.host+"/team/policies", files)
	if err != nil || again != pinned {
		t.Errorf("pushed %s again: %v", again, err)
	}
	for _, ref := range []string{pinned, strings.Replace(pinned, "@", ":1@", 1)} {
		found, err := c.Pull(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		if have, want := show(found), []string{"a.yaml=a", "b/team.yaml=team", "c.yml=a"}; !slices.Equal(have, want) {
			t.Errorf("%s has %v, want %v", ref, have, want)
		}
		if want := pinned[:strings.Index(pinned, "@")] + "@" + digest[:19] + "/a.yaml"; found[0].Name != want {
			t.Errorf("a file is called %s, want %s", found[0].Name, want)
		}
	}
	_, err = c.Pull(t.Context(), scheme+h.host+"/team/policies:1")
	if unpinned := (*UnpinnedError)(nil); !errors.As(err, &unpinned) || unpinned.Hint() != "the tag has this one now: "+strings.Replace(pinned, "@", ":1@", 1) {
		t.Errorf("a tag: %v", err)
	}
}

// TestLayouts reads what other tools make.
func TestLayouts(t *testing.T) {
	h, c := newHub(t), client(t, "")
	gzipped := types.OCILayer
	for name, test := range map[string]struct {
		layers []mutate.Addendum
		want   []string
	}{
		"files of oras":   {[]mutate.Addendum{file("z.yaml", "z"), file("a/b.yml", "b"), file("README.md", "#")}, []string{"a/b.yml=b", "z.yaml=z"}},
		"image of docker": {[]mutate.Addendum{archive(types.DockerLayer, entry("./b.yaml", "b")), archive(types.DockerLayer, entry("a/c.yaml", "c"), tar.Header{Name: "a/", Typeflag: tar.TypeDir})}, []string{"a/c.yaml=c", "b.yaml=b"}},
		"folder of oras": {[]mutate.Addendum{func() mutate.Addendum {
			a := archive(gzipped, tar.Header{Name: "policies", Typeflag: tar.TypeDir}, entry("policies/a.yaml", "a"), entry("policies/run.sh", "x"))
			a.Annotations = map[string]string{titleKey: "policies", unpackKey: "true"}
			return a
		}()}, []string{"policies/a.yaml=a"}},
		"archive":        {[]mutate.Addendum{archive(types.OCIUncompressedLayer, entry("a.yaml", "a"))}, []string{"a.yaml=a"}},
		"file of a type": {[]mutate.Addendum{{Layer: static.NewLayer([]byte("a"), "application/yaml")}}, []string{"sha256-ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb.yaml=a"}},
		"archive by title": {[]mutate.Addendum{func() mutate.Addendum {
			a := archive(gzipped, entry("a.yaml", "a"))
			a.Annotations = map[string]string{titleKey: "p.tar.gz"}
			return a
		}()}, []string{"a.yaml=a"}},
	} {
		found, err := c.Pull(t.Context(), h.push(t, test.layers...))
		if have := show(found); err != nil || !slices.Equal(have, test.want) {
			t.Errorf("%s: %v, %v, want %v", name, have, err, test.want)
		}
	}
}

func TestRefused(t *testing.T) {
	h, c := newHub(t), client(t, "")
	one := func(e tar.Header) []mutate.Addendum { return []mutate.Addendum{archive(types.OCILayer, e)} }
	long := strings.Repeat("x", maxFile+1)
	for want, layers := range map[string][]mutate.Addendum{
		`"../a.yaml" does not stay below`:                   one(entry("../a.yaml", "a")),
		`"a/../../b.yaml" does not stay below`:              {file("a/../../b.yaml", "a")},
		`"/etc/a.yaml" does not stay below`:                 one(entry("/etc/a.yaml", "a")),
		`"a\\b.yaml" does not stay below`:                   one(entry(`a\b.yaml`, "a")),
		`"a\x1b.yaml" does not stay below`:                  one(entry("a\x1b.yaml", "a")),
		`"../" does not stay below`:                         one(tar.Header{Name: "../", Typeflag: tar.TypeDir}),
		`"a.yaml" is neither a file nor a folder`:           one(tar.Header{Name: "a.yaml", Linkname: "/etc/passwd", Typeflag: tar.TypeSymlink}),
		`"b.yaml" is neither a file nor a folder`:           one(tar.Header{Name: "b.yaml", Linkname: "a.yaml", Typeflag: tar.TypeLink}),
		`"c" is neither a file nor a folder`:                one(tar.Header{Name: "c", Typeflag: tar.TypeChar}),
		`".wh.a.yaml" takes away a file`:                    one(entry(".wh.a.yaml", "")),
		`"twice.yaml" is there twice`:                       {file("twice.yaml", "a"), file("twice.yaml", "b")},
		"is too long or too deep":                           one(entry(strings.Repeat("a/", maxDepth+1)+"a.yaml", "a")),
		"no YAML files in it":                               one(entry("README.md", "a")),
		"it is not that of an OCI artifact with layers":     {},
		`media type "application/zip" is not supported`:     {{Layer: static.NewLayer([]byte("a"), "application/zip")}},
		"read archive: unexpected EOF":                      {{Layer: static.NewLayer(bytes.Repeat([]byte("a"), 100), types.OCILayer)}},
		"has 3145729 bytes, more than the limit of 3145728": {file("a.yaml", long)},
		"b.yaml\" has 3145729 bytes, more than the limit":   one(entry("b.yaml", long)),
		"unpacked it is over the limit of 64 MiB":           one(entry("big.bin", strings.Repeat("x", 2*maxBytes+1))),
		"its layers have more than the limit of 32 MiB":     {file("a.md", strings.Repeat("x", maxBytes)), file("b.yaml", "b")},
		"more than 10000 files and folders":                 one10k(),
		"its files have more than the limit of 32 MiB":      compressedMany(),
	} {
		reference := h.push(t, layers...)
		files, err := c.Pull(t.Context(), reference)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "read policies from "+reference+": ") {
			t.Errorf("%v, %.300v, want %s", show(files), err, want)
		}
	}
}

func one10k() []mutate.Addendum {
	var entries []tar.Header
	for i := range maxFiles + 1 {
		entries = append(entries, entry(fmt.Sprintf("%d", i), ""))
	}
	return []mutate.Addendum{archive(types.OCILayer, entries...)}
}

func compressedMany() []mutate.Addendum {
	var entries []tar.Header
	for i := range maxBytes/maxFile + 1 {
		entries = append(entries, entry(fmt.Sprintf("%d.yaml", i), strings.Repeat("x", maxFile)))
	}
	return []mutate.Addendum{archive(types.OCILayer, entries...)}
}

func TestBadReferences(t *testing.T) {
	h, c := newHub(t), client(t, "")
	for reference, want := range map[string]string{
		"oci://policies@sha256:00":                      "want oci://HOST/REPOSITORY@sha256:DIGEST",
		"oci://team/policies:1":                         "want oci://HOST/REPOSITORY@sha256:DIGEST",
		"oci://" + h.host + "/p@sha256:00":              "oci://" + h.host + "/p@sha256:00: ",
		"oci://" + h.host + "/P:1":                      "can only contain the characters",
		"oci://" + h.host + "/p@md5:" + zeros(32):       "unsupported",
		"oci://" + h.host + "/none:1":                   "an artifact is named by its digest",
		"oci://" + h.host + "/none@sha256:" + zeros(64): "NAME_UNKNOWN",
	} {
		if _, err := c.Read(t.Context(), nil, reference); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", reference, err, want)
		}
	}
	for reference, want := range map[string]string{
		"oci://policies": "want oci://HOST/REPOSITORY",
		"oci://" + h.host + "/p@sha256:" + zeros(64): "the digest follows from the files",
		"oci://" + h.host + "/P":                     "can only contain the characters",
		"oci://" + h.host + "/p":                     "pack policies: ",
	} {
		if _, err := c.Push(t.Context(), reference, []policy.File{{Name: "a.txt"}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("push to %s: %v, want %s", reference, err, want)
		}
	}
	var unpinned *UnpinnedError
	if _, err := c.Pull(t.Context(), "oci://"+h.host+"/none:1"); !errors.As(err, &unpinned) || !strings.Contains(unpinned.Hint(), "the registry does not tell it now") {
		t.Errorf("hint of %v", err)
	}
}

func zeros(n int) string { return strings.Repeat("0", n) }

// TestIndex names what an index holds.
func TestIndex(t *testing.T) {
	h, c := newHub(t), client(t, "")
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: empty.Image})
	tag, err := name.NewTag(h.host + "/p:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(tag, index); err != nil {
		t.Fatal(err)
	}
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	inner, err := empty.Image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Pull(t.Context(), scheme+tag.Context().Digest(digest.String()).Name())
	if want := "it is an index of several; name the digest of one of them: " + inner.String(); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}

// TestForged has a registry send something else than what a digest says.
func TestForged(t *testing.T) {
	h, c := newHub(t), client(t, t.TempDir())
	pinned := h.push(t, file("a.yaml", "a"))
	for _, part := range []string{"/manifests/", "/blobs/"} {
		h.forge = func(path string) []byte {
			if strings.Contains(path, part) {
				return []byte(`{"schemaVersion": 2}`)
			}
			return nil
		}
		_, err := c.Pull(t.Context(), pinned)
		if err == nil || !strings.Contains(err.Error(), "digest") && !strings.Contains(err.Error(), "sha256") {
			t.Errorf("forged %s: %v", part, err)
		}
	}
	h.forge = nil
	if files, err := c.Pull(t.Context(), pinned); err != nil || len(files) != 1 {
		t.Errorf("honest again: %v, %v", files, err)
	}
}

// TestCache reads what was read before while the registry is away, and trusts
// nothing that has changed on disk.
func TestCache(t *testing.T) {
	h, dir := newHub(t), t.TempDir()
	pinned := h.push(t, file("a.yaml", "a"))
	pull := func() (string, error) {
		files, err := client(t, dir).Read(t.Context(), nil, pinned)
		return strings.Join(show(files), " "), err
	}
	expect := func(when string) {
		t.Helper()
		if have, err := pull(); err != nil || have != "a.yaml=a" {
			t.Errorf("%s: %q, %v", when, have, err)
		}
	}
	expect("first")
	before := h.requests.Load()
	expect("again")
	if h.requests.Load() != before {
		t.Error("the registry is asked for what is kept")
	}
	blob := filepath.Join(dir, "blobs", "sha256", "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb")
	damage := func() {
		t.Helper()
		if err := os.WriteFile(blob, []byte("b"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	damage()
	expect("damaged")
	h.Close()
	expect("away")
	damage()
	_, err := pull()
	if err == nil || !errors.Is(err, errDamaged) || !strings.Contains(err.Error(), blob) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("damaged and away: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "blobs", "sha256", ".new-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestPrune removes what is old or too much, and nothing that was read.
func TestPrune(t *testing.T) {
	h, dir := newHub(t), t.TempDir()
	used, old := h.push(t, file("a.yaml", "a")), h.push(t, file("b.yaml", "b"))
	if _, err := client(t, dir).Read(t.Context(), nil, used, old); err != nil {
		t.Fatal(err)
	}
	blobs, now := filepath.Join(dir, "blobs", "sha256"), time.Now()
	age := func(name string, by time.Duration) {
		t.Helper()
		if err := os.Chtimes(filepath.Join(blobs, name), now.Add(-by), now.Add(-by)); err != nil {
			t.Fatal(err)
		}
	}
	names := func() (out []string) {
		t.Helper()
		entries, err := os.ReadDir(blobs)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			out = append(out, e.Name())
		}
		return out
	}
	before := names()
	for _, name := range before {
		age(name, maxUnused+time.Hour)
	}
	h.Close()
	c := client(t, dir)
	if _, err := c.Read(t.Context(), nil, used); err != nil {
		t.Fatal(err)
	}
	for name, by := range map[string]time.Duration{"large-1": 3 * time.Hour, "large-2": 2 * time.Hour, "large-3": time.Hour, unwrittenPrefix + "old": maxUnwritten + time.Minute, unwrittenPrefix + "new": 0} {
		if err := os.WriteFile(filepath.Join(blobs, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(name, "large") {
			if err := os.Truncate(filepath.Join(blobs, name), maxCached/2-1000); err != nil { // without its bytes on the disk
				t.Fatal(err)
			}
		}
		age(name, by)
	}
	removed, err := c.Prune()
	if left := names(); err != nil || removed != len(before)-2+2 || len(left) != 2+3 ||
		!slices.Contains(left, "large-2") || !slices.Contains(left, "large-3") || !slices.Contains(left, unwrittenPrefix+"new") {
		t.Errorf("%d removed, %v; left %q of %q", removed, err, left, before)
	}
	if files, err := client(t, dir).Read(t.Context(), nil, used); err != nil || len(files) != 1 {
		t.Errorf("what is used: %v, %v", files, err)
	}
	if removed, err := c.Prune(); removed != 0 || err != nil {
		t.Errorf("again: %d removed, %v", removed, err)
	}
	if removed, err := client(t, t.TempDir()).Prune(); removed != 0 || err != nil {
		t.Errorf("an empty cache: %d removed, %v", removed, err)
	}
}

func TestBelow(t *testing.T) {
	for _, test := range []struct{ path, file, want string }{
		{"policies", "policies/a/b.yaml", "a/b.yaml"},
		{"./policies/", "policies/b.yaml", "b.yaml"},
		{"../up/b.yaml", "../up/b.yaml", "b.yaml"},
		{".", "b.yaml", "b.yaml"},
		{"/abs", "/abs/b.yaml", "b.yaml"},
	} {
		if have := Below(test.path, []policy.File{{Name: test.file}})[0].Name; have != test.want {
			t.Errorf("%s in %s is %s, want %s", test.file, test.path, have, test.want)
		}
	}
}

// FuzzUnpack keeps files below the artifact, within bounds, whatever it holds.
func FuzzUnpack(f *testing.F) {
	add := func(a mutate.Addendum, manifest string) {
		content, err := a.Layer.Compressed()
		if err != nil {
			f.Fatal(err)
		}
		data, err := io.ReadAll(content)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(manifest), data)
	}
	const plain = `{"schemaVersion":2,"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb","size":1}]}`
	add(archive(types.OCILayer, entry("a/b.yaml", "a: b"), tar.Header{Name: "l", Linkname: "..", Typeflag: tar.TypeSymlink}), plain)
	add(archive(types.OCIUncompressedLayer, entry("../b.yaml", "a: b")), plain)
	add(file("a.yaml", "a: b"), strings.Replace(plain, `"size":1`, `"size":1,"annotations":{"org.opencontainers.image.title":"../a.yaml"}`, 1))
	f.Fuzz(func(t *testing.T, manifest, data []byte) {
		layers, err := parseManifest(manifest)
		if err != nil {
			return
		}
		contents := make([][]byte, len(layers))
		for i := range contents {
			contents[i] = data
		}
		files, err := unpack(layers, contents)
		if err == nil && len(files) == 0 {
			t.Error("no files and no error")
		}
		total := 0
		for _, file := range files {
			if !filepath.IsLocal(file.Name) || strings.Contains(file.Name, `\`) {
				t.Errorf("%q is not below the artifact", file.Name)
			}
			total += len(file.Data)
		}
		if total > maxBytes {
			t.Errorf("%d bytes", total)
		}
	})
}
