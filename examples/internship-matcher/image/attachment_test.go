package image_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/image"
)

// writeKey writes a private key as openssl does.
func writeKey(t *testing.T, key crypto.Signer) (file string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestPush pushes an image with what is said of it, and reads all of it back: by
// the digest of the image, and signed by the key.
func TestPush(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true)))
	defer server.Close()
	onCurve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	dir, revision := checkout(t)
	run := image.Run{Builder: "https://ci.example.com", Started: time.Now().Add(-time.Minute), Finished: time.Now()}
	for shop, private := range map[string]crypto.Signer{"/curve": onCurve, "/edwards": edwards} {
		i := build(t, image.Options{Dir: dir, Repository: strings.TrimPrefix(server.URL, "http://") + shop, Tag: "1.0.0"}, "traffic")[0]
		key, err := image.ReadKey(writeKey(t, private))
		if err != nil {
			t.Fatal(err)
		}
		attachments, err := i.Attachments(run, key)
		if err != nil {
			t.Fatal(err)
		}
		if err := i.Push(t.Context(), attachments...); err != nil {
			t.Fatal(err)
		}
		found := pulled(t, i)
		checkSBOM(t, i, found["application/vnd.cyclonedx+json"])
		checkProvenance(t, i, revision, opened(t, private.Public(), found["https://slsa.dev/provenance/v1"]))
		if !strings.Contains(string(opened(t, private.Public(), found["https://sigstore.dev/cosign/sign/v1"])), i.Digest.Hex) {
			t.Error("the signature is not of the image")
		}
	}
}

// pulled returns what refers to an image in its registry, by its predicate, or
// by its type where there is none.
func pulled(t *testing.T, i *image.Image) map[string][]byte {
	t.Helper()
	at, err := remote.Get(i.Tag)
	if err != nil {
		t.Fatal(err)
	}
	if at.Digest != i.Digest {
		t.Errorf("the registry has %v, want %v", at.Digest, i.Digest)
	}
	index, err := remote.Referrers(i.Tag.Digest(at.Digest.String()))
	if err != nil {
		t.Fatal(err)
	}
	list, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, d := range list.Manifests {
		artifact, err := remote.Image(i.Tag.Digest(d.Digest.String()))
		if err != nil {
			t.Fatal(err)
		}
		layers, err := artifact.Layers()
		if err != nil || len(layers) != 1 {
			t.Fatalf("%d layers (%v)", len(layers), err)
		}
		r, err := layers[0].Compressed()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		kind := d.Annotations["dev.sigstore.bundle.predicateType"]
		if kind == "" {
			kind = d.ArtifactType
		}
		out[kind] = data
	}
	if len(out) != 3 {
		t.Fatalf("%d kinds of attachments, want an SBOM, provenance and a signature", len(out))
	}
	return out
}

func checkSBOM(t *testing.T, i *image.Image, data []byte) {
	t.Helper()
	var bom cyclonedx.BOM
	if err := json.Unmarshal(data, &bom); err != nil {
		t.Fatal(err)
	}
	if bom.Metadata.Timestamp != commitTime || bom.Metadata.Component.Version != i.Digest.String() {
		t.Errorf("the SBOM is of %s at %s", bom.Metadata.Component.Version, bom.Metadata.Timestamp)
	}
	for _, want := range []string{"stdlib", "golang.org/x/time"} {
		if !slices.ContainsFunc(*bom.Components, func(c cyclonedx.Component) bool { return c.Name == want && c.Version != "" }) {
			t.Errorf("the SBOM does not list %s", want)
		}
	}
	if again, err := i.SBOM(); err != nil || string(again) != string(data) {
		t.Errorf("the SBOM of the same image differs (%v)", err)
	}
}

func checkProvenance(t *testing.T, i *image.Image, revision string, statement []byte) {
	t.Helper()
	var s struct {
		Type          string `json:"_type"`
		PredicateType string
		Subject       []struct{ Digest map[string]string }
		Predicate     struct {
			BuildDefinition struct {
				BuildType            string
				ExternalParameters   map[string]string
				ResolvedDependencies []struct {
					URI    string
					Digest map[string]string
				}
			}
			RunDetails struct{ Builder struct{ ID string } }
		}
	}
	if err := json.Unmarshal(statement, &s); err != nil {
		t.Fatal(err)
	}
	if s.Type != "https://in-toto.io/Statement/v1" || s.PredicateType != "https://slsa.dev/provenance/v1" || s.Subject[0].Digest["sha256"] != i.Digest.Hex {
		t.Errorf("the statement is a %s, %s of %v", s.Type, s.PredicateType, s.Subject)
	}
	made := s.Predicate.BuildDefinition
	if s.Predicate.RunDetails.Builder.ID != "https://ci.example.com" || made.ExternalParameters["program"] != "traffic" || made.BuildType == "" {
		t.Errorf("built by %s with %v as %s", s.Predicate.RunDetails.Builder.ID, made.ExternalParameters, made.BuildType)
	}
	if first := made.ResolvedDependencies[0]; first.Digest["gitCommit"] != revision {
		t.Errorf("built from %v, want commit %s", first, revision)
	}
	for _, d := range made.ResolvedDependencies[2:] {
		if len(d.Digest["dirHash"]) != sha256.Size*2 {
			t.Errorf("%s has no sum", d.URI)
		}
	}
}

// opened returns the statement of a bundle whose signature is of a key.
func opened(t *testing.T, public crypto.PublicKey, bundle []byte) []byte {
	t.Helper()
	var b struct {
		Envelope struct {
			PayloadType string
			Payload     []byte
			Signatures  []struct{ Sig []byte }
		} `json:"dsseEnvelope"`
	}
	if err := json.Unmarshal(bundle, &b); err != nil {
		t.Fatal(err)
	}
	e := b.Envelope
	message := []byte(fmt.Sprintf("DSSEv1 %d %s %d %s", len(e.PayloadType), e.PayloadType, len(e.Payload), e.Payload))
	digest := sha256.Sum256(message)
	valid := false
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		valid = ecdsa.VerifyASN1(key, digest[:], e.Signatures[0].Sig)
	case ed25519.PublicKey:
		valid = ed25519.Verify(key, message, e.Signatures[0].Sig)
	}
	if !valid {
		t.Errorf("the signature is not valid:\n%s", bundle)
	}
	return e.Payload
}

// TestUnsigned says less: without a key there is no signature, and nothing that
// looks like one.
func TestUnsigned(t *testing.T) {
	i := build(t, image.Options{Dir: ".."}, "traffic")[0]
	attachments, err := i.Attachments(image.Run{Builder: image.InternshipMatcher().ByHand()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, a := range attachments {
		names = append(names, a.Name)
		if strings.Contains(string(a.Data), "signatures") {
			t.Errorf("%s has a signature", a.Name)
		}
	}
	if !slices.Equal(names, []string{"sbom", "provenance"}) {
		t.Errorf("attachments %q", names)
	}
}

func TestKeys(t *testing.T) {
	long, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(t.TempDir(), "text.pem")
	if err := os.WriteFile(text, []byte("-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		writeKey(t, long):  "key.pem: a key on P-384: want P-256",
		writeKey(t, other): "key.pem: want a key of ECDSA or Ed25519",
		text:               "text.pem: want a PRIVATE KEY in PEM",
		"missing":          "no such file",
	} {
		if _, err := image.ReadKey(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// TestManifests writes the secured manifests with the images that were built,
// and leaves the others as they are.
func TestManifests(t *testing.T) {
	images := build(t, image.Options{Dir: "..", Repository: "localhost:5000/shop", Tag: "2.0.0"}, "auth", "traffic")
	dir := t.TempDir()
	if err := image.WriteManifests(dir, "../deploy/secured", images); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"auth.yaml":           "image: localhost:5000/shop/auth:2.0.0@" + images[0].Digest.String() + "\n",
		"offer.yaml":          "image: registry.example.com/internship-matcher/offer:",
		"auth-db.yaml":        "image: registry.example.com/internship-matcher/postgres:",
		"secrets/sealed.yaml": "kind: SealedSecret",
	} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), want) {
			t.Errorf("%s has no %q", file, want)
		}
	}
	if err := image.WriteManifests(t.TempDir(), "../deploy/insecure", images); err == nil || !strings.Contains(err.Error(), "none of the images by digest") {
		t.Errorf("error %v of manifests without digests", err)
	}
}
