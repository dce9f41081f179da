package credential_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/check/credential"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// judge returns the finding for a ConfigMap with these entries.
func judge(t testing.TB, data, binary map[string]any) finding.Verdict {
	t.Helper()
	object := map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "c"}}
	if data != nil {
		object["data"] = data
	}
	if binary != nil {
		object["binaryData"] = binary
	}
	inv, err := inventory.New(inventory.Cluster, []*inventory.Object{{Unstructured: &unstructured.Unstructured{Object: object}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	findings := credential.ConfigMaps(inv)
	if len(findings) != 1 {
		t.Fatalf("%d findings", len(findings))
	}
	return findings[0]
}

// letters builds test credentials, so that none stands in this file.
func letters(n int) string { return strings.Repeat("aB3xQ9zK", n/8+1)[:n] }

func TestCredentials(t *testing.T) {
	tests := []struct{ name, key, value, place string }{
		{"password by name", "DB_PASSWORD", "hunter2", `key "DB_PASSWORD": value under the name of a secret`},
		{"camel case", "dbPassword", "hunter2", `key "dbPassword"`},
		{"API key", "api-key", "d41d8cd98f00", `key "api-key"`},
		{"secret key", "AWS_SECRET_ACCESS_KEY", letters(40), `key "AWS_SECRET_ACCESS_KEY"`},
		{"token", "auth.token", "d41d8cd98f00", `key "auth.token"`},
		{"default password", "adminPassword", "changeme", `key "adminPassword"`},
		{"digits that are long enough", "password", "12345678", `key "password"`},
		{"private key", "tls.pem", "-----BEGIN RSA PRIVATE " + "KEY-----\nabc\n", `key "tls.pem": private key`},
		{"PGP key", "k", "-----BEGIN PGP PRIVATE " + "KEY BLOCK-----", "private key"},
		{"cloud access key", "config", "id " + "AKIA" + strings.ToUpper(letters(16)), "cloud access key"},
		{"GitHub token", "x", "ghp_" + letters(36), "access token"},
		{"JSON web token", "x", "eyJ" + letters(12) + ".eyJ" + letters(12) + "." + letters(20), "JSON web token"},
		{"URL", "DATABASE_URL", "postgres://app:hunter2@db:5432/app", `key "DATABASE_URL": password in a URL`},
		{"connection string", "cs", "Server=db;User Id=app;Password=hunter2;", "password in a connection string"},
		{"YAML file", "app.yaml", "server:\n  port: 80\n  password: hunter2\n", `key "app.yaml" line 3: value under the name of a secret`},
		{"properties file", "app.properties", "a=b\nspring.datasource.password=hunter2", `key "app.properties" line 2`},
		{"env file", ".env", "export API_TOKEN='d41d8cd98f00'", `key ".env" line 1`},
		{"JSON file", "c.json", "{\n  \"clientSecret\": \"hunter2\",\n}", `key "c.json" line 2`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, f := range []finding.Verdict{
				judge(t, map[string]any{tt.key: tt.value}, nil),
				judge(t, nil, map[string]any{tt.key: base64.StdEncoding.EncodeToString([]byte(tt.value))}),
			} {
				if f.Status != finding.Fail || !strings.Contains(f.Evidence, tt.place) {
					t.Errorf("%s %q, want fail with %q", f.Status, f.Evidence, tt.place)
				}
				if text := fmt.Sprintf("%+v", f); strings.Contains(text, "hunter2") || strings.Contains(text, tt.value) {
					t.Errorf("the value is shown: %s", text)
				}
			}
		})
	}
}

func TestNoCredentials(t *testing.T) {
	for _, tt := range []struct{ name, key, value string }{
		{"setting", "LOG_LEVEL", "debug"},
		{"empty", "password", ""},
		{"about a token", "token-ttl", "3600s"},
		{"name of a Secret", "passwordSecretName", "db-credentials"},
		{"name of a Secret by another key", "existingSecret", "db-credentials"},
		{"name of a Secret for images", "imagePullSecret", "registry"},
		{"file of a password", "POSTGRES_PASSWORD_FILE", "/run/secrets/db"},
		{"path under a plain name", "password", "/run/secrets/db"},
		{"rule for passwords", "password.min.length", "twelve"},
		{"number", "password_retries", "3"},
		{"number under a plain name", "token", "300"},
		{"switch", "require-password", "true"},
		{"variable", "password", "${DB_PASSWORD}"},
		{"shell variable", "password", "$DB_PASSWORD"},
		{"Kubernetes variable", "password", "$(DB_PASSWORD)"},
		{"template", "password", "{{ .Values.password }}"},
		{"placeholder", "password", "<your password>"},
		{"stars", "password", "********"},
		{"reference to a vault", "password", "vault:secret/data/db#password"},
		{"encrypted in place", "password", "ENC[AES256,data:abc]"},
		{"endpoint of tokens", "tokenUrl", "https://login.example.com/token"},
		{"URL under the name of a token", "token", "https://login.example.com/token"},
		{"URL without password", "DATABASE_URL", "postgres://app@db:5432/app"},
		{"URL with a variable", "DATABASE_URL", "postgres://app:${PASSWORD}@db/app"},
		{"time of day", "x", "http://example.com:8080/a@b"},
		{"certificate", "ca.crt", "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----"},
		{"public key", "key.pem", "-----BEGIN PUBLIC KEY-----"},
		{"word that holds another", "tokenizer", "standard-one"},
		{"detached signature", "jws-kubeconfig-abcdef", "eyJhbGciOiJIUzI1NiJ9..abcdefghijkl"},
		{"YAML block", "app.yaml", "password: |\n  x"},
		{"YAML parent", "app.yaml", "secrets:\n  name: x"},
		{"comment", "app.properties", "# password=hunter2"},
		{"access key id of another kind", "access-key-id", "none-given"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if f := judge(t, map[string]any{tt.key: tt.value}, nil); f.Status != finding.Pass {
				t.Errorf("%s: %s", f.Status, f.Evidence)
			}
		})
	}
}

func TestPlacesAreBounded(t *testing.T) {
	f := judge(t, map[string]any{"env": strings.Repeat("PASSWORD=hunter2\n", 100)}, nil)
	if !strings.Contains(f.Evidence, "line 5") || strings.Contains(f.Evidence, "line 6") || !strings.Contains(f.Evidence, "95 more") {
		t.Errorf("evidence %q", f.Evidence)
	}
}

func TestOddConfigMaps(t *testing.T) {
	if f := judge(t, nil, nil); f.Status != finding.Pass {
		t.Errorf("empty: %+v", f)
	}
	if f := judge(t, map[string]any{"password": int64(5)}, map[string]any{"password": "not base64"}); f.Status != finding.Pass {
		t.Errorf("wrong types: %+v", f)
	}
	inv, err := inventory.FromFiles(context.Background(), []string{"-"}, strings.NewReader("{apiVersion: v1, kind: Namespace, metadata: {name: x}}"))
	if err != nil {
		t.Fatal(err)
	}
	if got := credential.ConfigMaps(inv); len(got) != 0 {
		t.Errorf("no ConfigMap: %+v", got)
	}
}

func FuzzConfigMaps(f *testing.F) {
	f.Add("password", "hunter2")
	f.Add("app.yaml", "a:\n  password: 'x y'\n- token = z")
	f.Add("u", "postgres://a:b@c")
	f.Fuzz(func(t *testing.T, key, value string) {
		got := judge(t, map[string]any{key: value}, nil)
		if got.Status != finding.Pass && got.Status != finding.Fail {
			t.Fatalf("status %q", got.Status)
		}
		if len(got.Evidence) > 6*len(key)*4+1000 {
			t.Fatalf("evidence of %d bytes", len(got.Evidence))
		}
	})
}

// A ConfigMap can hold a mebibyte; what it holds must not matter.
func BenchmarkConfigMaps(b *testing.B) {
	for name, unit := range map[string]string{"words": "lorem ipsum ", "settings": "a.b.c = d\n", "hostile": "://a:b password=c eyJabc gh AKIA "} {
		b.Run(name, func(b *testing.B) {
			value := strings.Repeat(unit, 1<<20/len(unit))
			b.SetBytes(int64(len(value)))
			for b.Loop() {
				judge(b, map[string]any{"x": value}, nil)
			}
		})
	}
}
