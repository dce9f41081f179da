package certificate

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

var now = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// issue returns a certificate in PEM that begins and ends so many days from
// now.
func issue(t testing.TB, from, to int) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.AddDate(0, 0, from), NotAfter: now.AddDate(0, 0, to)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func tlsSecret(field string, value any) *inventory.Object {
	return &inventory.Object{Unstructured: &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "s", "namespace": "shop"}, "type": "kubernetes.io/tls",
		field: map[string]any{"tls.crt": value},
	}}}
}

func encode(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

func judged(t testing.TB, o *inventory.Object) finding.Verdict {
	t.Helper()
	inv, err := inventory.New(inventory.Files, []*inventory.Object{o}, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := Expiry(inv, now)
	if len(got) != 1 {
		t.Fatalf("%d findings", len(got))
	}
	return got[0]
}

func TestSecrets(t *testing.T) {
	good, due, expired, early := issue(t, -100, 100), issue(t, -100, 13), issue(t, -100, -1), issue(t, 2, 200)
	key := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("none")}))
	broken := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("none")}))
	tests := []struct {
		name   string
		object *inventory.Object
		want   finding.Status
		text   string
	}{
		{"good", tlsSecret("data", encode(good)), finding.Pass, "valid until 2027-03-06"},
		{"written as text", tlsSecret("stringData", good), finding.Pass, ""},
		{"due", tlsSecret("data", encode(due)), finding.Fail, "expires in 13 days"},
		{"two weeks to go", tlsSecret("data", encode(issue(t, -100, 14))), finding.Pass, ""},
		{"expired", tlsSecret("data", encode(expired)), finding.Fail, "has expired"},
		{"not yet", tlsSecret("data", encode(early)), finding.Fail, "not valid yet"},
		{"short life, fresh", tlsSecret("data", encode(issue(t, -1, 8))), finding.Pass, ""},
		{"short life, late", tlsSecret("data", encode(issue(t, -7, 2))), finding.Fail, "expires in 2 days"},
		{"an expired one in the chain", tlsSecret("data", encode(good+expired)), finding.Fail, "has expired"},
		{"a key beside it", tlsSecret("data", encode(key+good)), finding.Pass, ""},
		{"text around it", tlsSecret("data", encode("subject: x\n"+good+"\nend")), finding.Pass, ""},
		{"empty", tlsSecret("data", ""), finding.Unknown, "holds no certificate"},
		{"no base64", tlsSecret("data", "%%%"), finding.Unknown, "not base64"},
		{"only a key", tlsSecret("data", encode(key)), finding.Unknown, "holds no certificate"},
		{"broken", tlsSecret("data", encode(broken)), finding.Unknown, "cannot be read"},
		{"no text", tlsSecret("data", int64(7)), finding.Unknown, "holds no certificate"},
		{"too large", tlsSecret("stringData", strings.Repeat("x", maxBytes+1)), finding.Unknown, "larger than"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := judged(t, tt.object)
			if text := f.Message + f.Reason + f.Evidence; f.Status != tt.want || !strings.Contains(text, tt.text) {
				t.Errorf("%s %q, want %s %q", f.Status, text, tt.want, tt.text)
			}
		})
	}
}

// A long chain is read up to a bound.
func TestChainIsBounded(t *testing.T) {
	chain, err := parse(tlsSecret("stringData", strings.Repeat(issue(t, -1, 100), maxChain+5)))
	if err != nil || len(chain) != maxChain {
		t.Errorf("%d certificates, %v", len(chain), err)
	}
}

func TestCertManager(t *testing.T) {
	at := func(days int) string { return now.AddDate(0, 0, days).Format(time.RFC3339) }
	tests := []struct {
		name   string
		status map[string]any
		want   finding.Status
	}{
		{"good", map[string]any{"notBefore": at(-30), "notAfter": at(60)}, finding.Pass},
		{"without a beginning", map[string]any{"notAfter": at(60)}, finding.Pass},
		{"due", map[string]any{"notBefore": at(-80), "notAfter": at(10)}, finding.Fail},
		{"expired", map[string]any{"notBefore": at(-90), "notAfter": at(-1)}, finding.Fail},
		{"not issued", nil, finding.Unknown},
		{"no date", map[string]any{"notAfter": "soon"}, finding.Unknown},
		{"no text", map[string]any{"notAfter": int64(1)}, finding.Unknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := map[string]any{"apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": map[string]any{"name": "c"}}
			if tt.status != nil {
				o["status"] = tt.status
			}
			if f := judged(t, &inventory.Object{Unstructured: &unstructured.Unstructured{Object: o}}); f.Status != tt.want {
				t.Errorf("%+v, want %s", f, tt.want)
			}
		})
	}
}

// What is no certificate is unknown, and nothing crashes.
func FuzzParse(f *testing.F) {
	f.Add(issue(f, -1, 100))
	f.Add("-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n")
	f.Fuzz(func(t *testing.T, text string) {
		chain, err := parse(tlsSecret("stringData", text))
		if (len(chain) == 0) == (err == nil) || len(chain) > maxChain {
			t.Errorf("%d certificates, error %v", len(chain), err)
		}
		if got := judged(t, tlsSecret("data", encode(text))); fmt.Sprint(got.Status) == "" {
			t.Error("no status")
		}
	})
}
