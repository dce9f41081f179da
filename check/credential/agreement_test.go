package credential_test

import (
	"context"
	"io/fs"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/policy"
)

// judgePod returns what the policy credential-literals says about a container.
func judgePod(t testing.TB, p *policy.Policy, container map[string]any) []finding.Violation {
	t.Helper()
	container["name"] = "web"
	req, err := policy.NewCreateRequest(&unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "web"},
		"spec": map[string]any{"containers": []any{container}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	req.Namespaces = policy.NamespacesFunc(func(context.Context, string) (*corev1.Namespace, error) { return &corev1.Namespace{}, nil })
	_, violations, err := p.Check(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return violations
}

func literals(t testing.TB) *policy.Policy {
	t.Helper()
	data, err := fs.ReadFile(content.Policies(), "credential-literals.yaml")
	if err != nil {
		t.Fatal(err)
	}
	set, err := policy.Load(policy.File{Name: "credential-literals.yaml", Data: data})
	if err != nil {
		t.Fatal(err)
	}
	return set.Policy("credential-literals")
}

// The same name and value has the same verdict in a ConfigMap and in the
// environment of a container.
func TestSameAsPolicy(t *testing.T) {
	p := literals(t)
	for _, tt := range []struct {
		name, value string
		fails       bool
	}{
		{"REDIS_URL", "redis://:hunter2@redis:6379", true},
		{"DATABASE_URL", "postgres://app:hunter2@$(DB_HOST)/app", true},
		{"X", "Server=db;User Id=sa;Password=Hunter22;", true},
		{"X", "Server=db;User Id=sa;Password=Hunter22", true},
		{"X", "host=db user=sa password=hunter22 sslmode=require", true},
		{"X", "AccountName=shop;AccountKey=" + letters(40) + "==", true},
		{"X", "ghu_" + letters(36), true},
		{"X", "ghp_" + letters(36), true},
		{"X", "AIza" + letters(35), true},
		{"X", "sk_" + "live_" + letters(24), true},
		{"X", "AKIA" + strings.ToUpper(letters(16)), true},
		{"X", "xoxb-" + letters(12), true},
		{"X", "xoxp-" + letters(12), true},
		{"X", "-----BEGIN EC PRIVATE " + "KEY-----\nabc", true},
		{"X", "eyJ" + letters(12) + ".eyJ" + letters(12) + "." + letters(20), true},
		{"X", "Authorization: Bearer " + letters(20), true},
		{"RAILS_MASTER_KEY", strings.ToLower(letters(32)), true},
		{"SECRET_KEY_BASE", letters(32), true},
		{"DB_PASS", "hunter2", true},
		{"SMTP_PASS", "hunter2", true},
		{"REDIS_AUTH", "hunter2", true},
		{"RABBITMQ_DEFAULT_PASS", "guest", true},
		{"POSTGRES_PASSWORD", "12345", true},
		{"POSTGRES_PASSWORD", "hunter2\n", true},
		{"PGPASSWORD", "hunter2", true},
		{"MYSQL_PWD", "hunter2", true},
		{"DB_PASSWORD_2", "hunter2", true},
		{"dbPass", "hunter2", true},
		{"api.key", "hunter2", true},
		{"ACCESS_TOKEN_SECRET", "hunter2", true},
		{"JWT_SECRET", "super-secret-key", true},
		{"CREDENTIALS", "app hunter2", true},
		{"settings", "a: 1\npassword: hunter2\n", true},
		{"settings", "{\n  \"clientSecret\": \"hunter2\",\n}", true},

		{"SECRET_PROVIDER", "aws", false},
		{"SECRET_STORE", "vault", false},
		{"SECRET_NAMESPACE", "prod", false},
		{"TOKEN_VALIDATION_MODE", "strict", false},
		{"TOKEN_STORAGE", "redis", false},
		{"PASSWORD_HASHER", "argon2", false},
		{"PASSWORD_ENCODER", "bcrypt", false},
		{"PASSWORD_RESET_SUBJECT", "Reset your password", false},
		{"DB_PASSWORD_SECRET", "my-db-secret", false},
		{"imagePullSecret", "regcred", false},
		{"DB_PASSWORD", "vault:secret/data/db#password", false},
		{"DB_PASSWORD", "ref+vault://secret/db#password", false},
		{"DB_PASSWORD", "aws-sm://db", false},
		{"DB_PASSWORD", "${PW}", false},
		{"DB_PASSWORD", "$(PW)", false},
		{"DB_PASSWORD", "$PW", false},
		{"DB_PASSWORD", "`cat /x`", false},
		{"DB_PASSWORD", "<your password>", false},
		{"DB_PASSWORD", "", false},
		{"DB_PASSWORD", `""`, false},
		{"DB_PASSWORD_FILE", "/run/secrets/db", false},
		{"TOKEN_PATH", "/run/secrets/token", false},
		{"TOKEN", "/run/secrets/token", false},
		{"GOOGLE_APPLICATION_CREDENTIALS", "/run/secrets/gcp.json", false},
		{"PWD", "/app", false},
		{"TOKEN_TTL", "3600", false},
		{"TOKEN", "300", false},
		{"REQUIRE_TOKEN", "true", false},
		{"ALLOW_EMPTY_PASSWORD", "yes", false},
		{"PROXY_AUTH", "basic", false},
		{"BYPASS", "everything", false},
		{"COMPASS", "north", false},
		{"MONKEY", "banana", false},
		{"DATABASE_URL", "postgres://app:$(PW)@db/app", false},
		{"DATABASE_URL", "postgres://app:<password>@db/app", false},
		{"FORMAT", "postgres://%s:%s@%s/%s", false},
		{"X", "Server=db;User Id=sa;Password=$(PW);", false},
		{"X", "Authorization: Bearer ${TOKEN}", false},
		{"settings", "password: \"\" # set it\ntoken: |\n  x\npassword = os.environ[\"PW\"]\n", false},
	} {
		if got := judge(t, map[string]any{tt.name: tt.value}, nil); (got.Status == finding.Fail) != tt.fails {
			t.Errorf("ConfigMap %s=%q: %s, want fail %v", tt.name, tt.value, got.Status, tt.fails)
		}
		env := map[string]any{"env": []any{map[string]any{"name": tt.name, "value": tt.value}}}
		if got := judgePod(t, p, env); (len(got) > 0) != tt.fails {
			t.Errorf("env %s=%q: %v, want fail %v", tt.name, tt.value, got, tt.fails)
		}
	}
}

func TestCommands(t *testing.T) {
	p := literals(t)
	list := func(words ...string) []any {
		var out []any
		for _, w := range words {
			out = append(out, w)
		}
		return out
	}
	shell := func(line string) map[string]any { return map[string]any{"command": list("sh", "-c", line)} }
	exec := func(words ...string) map[string]any {
		return map[string]any{"exec": map[string]any{"command": list(words...)}}
	}
	for _, tt := range []struct {
		name      string
		container map[string]any
		place     string
	}{
		{"redis", map[string]any{"command": list("redis-server", "--requirepass", "hunter2")}, "web (command)"},
		{"redis in args", map[string]any{"args": list("--requirepass", "hunter2")}, "web (args)"},
		{"mysql", map[string]any{"command": list("mysql", "-uroot", "-phunter2")}, "web (command)"},
		{"mysql, arguments apart", map[string]any{"command": list("mysqldump"), "args": list("-phunter2", "app")}, "web (args)"},
		{"mysql in a shell", shell("sleep 5; mysql -u root -phunter2 app"), "web (command)"},
		{"curl", map[string]any{"command": list("curl", "-u", "user:hunter2", "https://x")}, "web (command)"},
		{"curl in a shell", shell("curl -s -u user:hunter2 https://x"), "web (command)"},
		{"flag in a shell", shell("mysql --password hunter2"), "web (command)"},
		{"header", shell("curl -H 'Authorization: Bearer hunter2hunter2' https://x"), "web (command)"},
		{"beside a harmless flag", shell("DB_PASSWORD=hunter2abc ./app --config-file=/etc/x"), "web (command)"},
		{"before a switch", shell("app --password=hunter2abc --debug=true"), "web (command)"},
		{"-e", map[string]any{"args": list("run", "-e", "DB_PASSWORD=hunter2")}, "web (args)"},
		{"liveness", map[string]any{"livenessProbe": exec("redis-cli", "--pass", "hunter2", "ping")}, "web (livenessProbe)"},
		{"readiness", map[string]any{"readinessProbe": exec("sh", "-c", "PGPASSWORD=hunter2 psql -c 'select 1'")}, "web (readinessProbe)"},
		{"startup", map[string]any{"startupProbe": exec("mysqladmin", "ping", "-phunter2")}, "web (startupProbe)"},
		{"post start", map[string]any{"lifecycle": map[string]any{"postStart": exec("app", "--token=hunter2")}}, "web (postStart)"},
		{"pre stop", map[string]any{"lifecycle": map[string]any{"preStop": exec("app", "--token=hunter2")}}, "web (preStop)"},
		{"argument of several words", map[string]any{"args": list("--password", "correct horse battery")}, "web (args)"},

		{"name of a Secret, with namespace", map[string]any{"args": list("--default-ssl-certificate-secret=ingress/default")}, ""},
		{"name of a Secret for images", map[string]any{"args": list("--image-pull-secret=regcred")}, ""},
		{"name of a Secret, apart", map[string]any{"args": list("--webhook-secret", "cert-manager-webhook-ca")}, ""},
		{"from a file", shell("PASSWORD=`cat /x` ./app"), ""},
		{"from a file, quoted", shell(`export PASSWORD="$(cat /x)"; ./app --password "$PASSWORD"`), ""},
		{"mysql from a variable", shell("mysql -p$PASSWORD; mysql -p\"$PASSWORD\" -e x; mysql -p -e x"), ""},
		{"mysql is the host", map[string]any{"command": list("nc", "-z", "-h", "mysql", "-p3306")}, ""},
		{"port of another program", map[string]any{"command": list("redis-cli", "-p", "6379")}, ""},
		{"curl from a variable", shell("curl -u user:$PASSWORD https://x; curl -u \"$USER:$PASSWORD\" https://x"), ""},
		{"user", map[string]any{"command": list("docker", "run", "-u", "1000:1000")}, ""},
		{"header from a variable", shell(`curl -H "Authorization: Bearer $TOKEN" https://x`), ""},
		{"switches", map[string]any{"args": list("--client-cert-auth=true", "--anonymous-auth=false", "--require-token", "--verbose")}, ""},
		{"probe", map[string]any{"livenessProbe": exec("cat", "/tmp/healthy")}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := judgePod(t, p, tt.container)
			if tt.place == "" {
				if len(got) > 0 {
					t.Errorf("%v", got)
				}
				return
			}
			if len(got) != 1 || !strings.Contains(got[0].Message, tt.place) {
				t.Fatalf("%v, want %s", got, tt.place)
			}
			if text := got[0].Message + got[0].Details["containers"]; strings.Contains(text, "hunter2") || strings.Contains(text, "horse") {
				t.Errorf("the value is shown: %s", text)
			}
		})
	}
}

// A large pod stays within the cost that the API server allows.
func TestCostOfLargePods(t *testing.T) {
	p := literals(t)
	var env []any
	for range 300 {
		env = append(env, map[string]any{"name": "SOME_SETTING_OF_AVERAGE_LENGTH", "value": "http://service.shop.svc:8080/path"})
	}
	script := strings.Repeat("echo http://service.shop.svc:8080/path; app --log-level=debug\n", 40<<10/63)
	for name, container := range map[string]map[string]any{
		"variables": {"env": env},
		"script":    {"command": []any{"sh", "-c", script}},
		"file":      {"env": []any{map[string]any{"name": "X", "value": script}}},
	} {
		if got := judgePod(t, p, container); len(got) > 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// The policy and this package have the same patterns.
func TestSamePatterns(t *testing.T) {
	source, err := os.ReadFile("credential.go")
	if err != nil {
		t.Fatal(err)
	}
	data, err := fs.ReadFile(content.Policies(), "credential-literals.yaml")
	if err != nil {
		t.Fatal(err)
	}
	patterns := strings.Split(string(source), "`")
	if len(patterns) != 25 {
		t.Errorf("%d patterns, want 12", len(patterns)/2)
	}
	for i := 1; i < len(patterns); i += 2 {
		if !strings.Contains(string(data), patterns[i]) {
			t.Errorf("the policy does not have %s", patterns[i])
		}
	}
}
