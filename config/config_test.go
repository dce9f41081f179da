package config

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// wants returns the errors that a fixture announces: a comment
// "# error: <text>" promises that error for its line.
func wants(file string, data []byte) string {
	var out []string
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		if _, text, ok := strings.Cut(lines.Text(), "# error: "); ok {
			out = append(out, fmt.Sprintf("%s:%d: %s", file, n, text))
		}
	}
	return strings.Join(out, "\n")
}

func TestFixtures(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatalf("fixtures: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := wants(file, data)
			if bad := strings.HasSuffix(file, ".bad.yaml"); bad != (want != "") {
				t.Fatal("a bad fixture announces its errors, a good one has none")
			}
			_, err = Load(file)
			if have := errorText(err); have != want {
				t.Errorf("have:\n%s\nwant:\n%s", have, want)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestFullFile(t *testing.T) {
	have, err := Load("testdata/full.good.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Cluster: "production", DataDir: "/srv/kubeguardian", Kubeconfig: "/etc/kubeguardian/kubeconfig",
		Log: Log{Level: "debug"},
		Web: Web{
			Listen: "0.0.0.0:8443", CertFile: "/etc/kubeguardian/tls.crt",
			KeyFile: "/etc/kubeguardian/tls.key", TokenFile: "/etc/kubeguardian/token",
			Login: Login{Kubernetes: true, Audiences: []string{"guard", "https://kubernetes.default.svc"}, OIDC: OIDC{
				Issuer: "https://issuer.example/realm", ClientID: "guard", ClientSecretFile: "/etc/kubeguardian/client-secret",
				RedirectURL: "https://guard.example/login/oidc/callback", CAFile: "/etc/kubeguardian/issuer.pem", Scopes: []string{"email", "offline_access"},
				UsernameClaim: "email", UsernamePrefix: "oidc:", GroupsClaim: "roles", GroupsPrefix: "oidc:",
			}},
			Authorization: "roles", Roles: []RoleGrant{{Role: "viewer", Groups: []string{"staff"}}, {Role: "admin", Users: []string{"ada"}, Groups: []string{"security"}}},
		},
		Webhook: Webhook{
			Listen: "0.0.0.0:9443", Service: Service{"kubeguardian", "kubeguardian", 8443},
			Drain: 20 * time.Second, AuthoritySecret: "webhook-authority", ClientCAFile: "/etc/kubernetes/pki/ca.crt", ClientNames: []string{"kube-apiserver"},
		},
		Admission: Admission{
			FailurePolicy: "Fail", FailClosed: []string{"pods", "clusterrolebindings.rbac.authorization.k8s.io"}, Timeout: 10 * time.Second, RequireClientCertificate: true,
			ExemptNamespaces: []string{"monitoring", "ingress-nginx"}, Policies: []string{"/etc/kubeguardian/policies"}, Settings: "/etc/kubeguardian/settings.yaml", FromCluster: true, Defaults: true,
			ExternalData: ExternalData{"/etc/kubeguardian/client.crt", "/etc/kubeguardian/client.key", 30 * time.Second},
		},
		Bus: Bus{ServiceAccounts: []string{"kubeguardian/kubeguardian-agent"}, MaxMiB: 1024, Sync: time.Second, External: ExternalBus{Replicas: 1}},
		Registries: Registries{
			CredentialsFile: "/etc/kubeguardian/pull/.dockerconfigjson",
			Authorities:     []RegistryAuthority{{"registry.internal:5000", "/etc/kubeguardian/registry.pem"}},
		},
		Detection: Detection{Rules: []string{"/etc/kubeguardian/rules", "extra.yaml"}, Match: "all", Priority: "notice",
			Select:   []RuleSelection{{Rule: "Pod*"}, {Tag: "k8s", Enabled: true}},
			Append:   []OutputAppend{{Source: "k8s_audit", Rule: "Listing", Tags: []string{"a", "b"}, Output: "on %static.region", Fields: []OutputField{{Name: "ka.uri"}, {Name: "who", Format: "%ka.user.name"}}}},
			Static:   []StaticField{{Name: "region", Value: "eu"}},
			Cooldown: []Cooldown{{Rule: "Secret*", Within: time.Hour, By: []string{"ka.user.name"}, Limit: 100}, {Tag: "k8s"}},
			Compat:   "fixed", AuditFiles: []string{"/var/log/kubernetes/audit.log"}, Heartbeat: time.Minute, RespondWithin: 4 * time.Hour, OwnerKeys: []string{"team", "kubeguardian.dev/owner"}},
		Falco: Falco{
			Listen: "0.0.0.0:2801", CertFile: "/etc/kubeguardian/tls.crt", KeyFile: "/etc/kubeguardian/tls.key",
			TokenFile: "/etc/kubeguardian/falco-token", ClientCAFile: "/etc/kubeguardian/senders.pem",
		},
		Scan:      Scan{Interval: time.Hour},
		Retention: Retention{Alerts: 2160 * time.Hour, Decisions: 24 * time.Hour, Readiness: 1440 * time.Hour, Records: 2_000_000, MaxMiB: 4096},
		Database:  Database{"/etc/kubeguardian/database-url"},
		Tracing:   Tracing{Endpoint: "collector:4317", CAFile: "/etc/kubeguardian/collector.pem", Ratio: 0.5},
		Notify:    Notify{URL: "https://guardian.example", Tags: []string{"production"}},
	}
	if !reflect.DeepEqual(have, want) {
		t.Errorf("have %+v\nwant %+v", have, want)
	}
	// Every key of the file differs from its default, so a key that is read
	// into the wrong field, or not at all, cannot pass.
	defaults := Default()
	for f, v := range reflect.ValueOf(*have).Fields() {
		if reflect.DeepEqual(v.Interface(), reflect.ValueOf(*defaults).FieldByIndex(f.Index).Interface()) {
			t.Errorf("%s has its default", f.Name)
		}
	}
}

// TestDrain: without a Service nobody has to hear that the server ends.
func TestDrain(t *testing.T) {
	for data, want := range map[string]time.Duration{
		"": 0, "webhook: {drain: 2s}": 2 * time.Second,
		"webhook: {service: {name: a, namespace: b}}":            5 * time.Second,
		"webhook: {drain: 0s, service: {name: a, namespace: b}}": 0,
	} {
		if c, err := Parse("config.yaml", []byte(data)); err != nil || c.Webhook.Drain != want {
			t.Errorf("%s: have %+v, %v; want %s", data, c, err, want)
		}
	}
}

func TestDefaults(t *testing.T) {
	tests := []struct{ name, data, tokenFile, url string }{
		{"empty file", "", "/var/lib/kubeguardian/token", "https://127.0.0.1:9443"},
		{"null document", "---\n", "/var/lib/kubeguardian/token", "https://127.0.0.1:9443"},
		{"token follows dataDir", "dataDir: /srv", "/srv/token", "https://127.0.0.1:9443"},
		{"url follows listen", "webhook: {listen: '10.0.0.1:1'}", "/var/lib/kubeguardian/token", "https://10.0.0.1:1"},
		{"a service leaves no url", "webhook: {service: {name: a, namespace: b}}", "/var/lib/kubeguardian/token", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Parse("config.yaml", []byte(tt.data))
			if err != nil {
				t.Fatal(err)
			}
			if c.Web.TokenFile != tt.tokenFile || c.Webhook.URL != tt.url {
				t.Errorf("have %q, %q", c.Web.TokenFile, c.Webhook.URL)
			}
			if c.Cluster != "default" || c.Log.Level != "info" || c.Webhook.Service.Port != 443 || !c.Admission.Enabled {
				t.Errorf("have %+v", c)
			}
		})
	}
}

// TestFalcoToken: senders need a token unless they need a certificate.
func TestFalcoToken(t *testing.T) {
	for data, want := range map[string]string{
		"": "", "dataDir: /srv\nfalco: {listen: '127.0.0.1:2801'}": "/srv/falco-token",
		"falco: {listen: '127.0.0.1:2801', tokenFile: /t}":                      "/t",
		"falco: {listen: ':2801', certFile: /c, keyFile: /k, clientCAFile: /a}": "",
	} {
		if c, err := Parse("config.yaml", []byte(data)); err != nil || c.Falco.TokenFile != want {
			t.Errorf("%s: have %v; want %q", data, err, want)
		}
	}
}

func TestNotAConfiguration(t *testing.T) {
	tests := []struct{ name, data, want string }{
		{"binary", "\x7fELF\x02\x01\x01\x00\x00", "config.yaml:1: not YAML: "},
		{"huge", strings.Repeat("a: b\n", maxSize), "config.yaml: larger than 1048576 bytes"},
		{"text", "hello", `config.yaml:1: want keys and values, have "hello"`},
		{"deep", strings.Repeat("[", 100_000), "config.yaml:1: not YAML: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("config.yaml", []byte(tt.data))
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("have %v, want one line starting with %q", err, tt.want)
			}
		})
	}
	var many strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&many, "key%d: value\n", i)
	}
	_, err := Parse("config.yaml", []byte(many.String()))
	if n := strings.Count(err.Error(), "\n") + 1; n != maxErrors {
		t.Errorf("%d errors are printed, want %d", n, maxErrors)
	}
	if _, err := Load(t.TempDir()); err == nil {
		t.Error("a folder was read")
	}
	if _, err := Load("testdata/none.yaml"); err == nil || !strings.Contains(err.Error(), "testdata/none.yaml") {
		t.Errorf("have %v", err)
	}
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("&a [*a]"))
	f.Add([]byte("web: {listen: !!binary aGk=}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f", data)
		if (c == nil) == (err == nil) {
			t.Fatalf("have %v and %v", c, err)
		}
		if err == nil {
			return
		}
		for line := range strings.SplitSeq(err.Error(), "\n") {
			if !strings.HasPrefix(line, "f:") {
				t.Errorf("line without a place: %q", line)
			}
		}
	})
}
