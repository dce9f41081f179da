package datastore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

func load(t testing.TB, documents ...string) *inventory.Inventory {
	t.Helper()
	inv, err := inventory.FromFiles(context.Background(), []string{"-"}, strings.NewReader(strings.Join(documents, "\n---\n")))
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func pod(image, container, spec string) string {
	return fmt.Sprintf("{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop, labels: {app: db}}, spec: {containers: [{name: c, image: %q%s}]%s}}", image, container, spec)
}

const service = "{apiVersion: v1, kind: Service, metadata: {name: db, namespace: shop}, spec: {selector: {app: db}, ports: [{port: 1}]}}"

func TestFind(t *testing.T) {
	tests := []struct {
		image string
		want  string // the first image of the product
	}{
		{"postgres", "postgres"},
		{"postgres:18.1-alpine", "postgres"},
		{"docker.io/library/postgres@sha256:0000", "postgres"},
		{"registry.example:5000/mirror/postgres", "postgres"},
		{"registry.example:5000/mirror/postgres:18@sha256:0000", "postgres"},
		{"bitnami/postgresql:18", "postgres"},
		{"mcr.microsoft.com/mssql/server:2025-latest", "mssql"},
		{"valkey/valkey:9", "redis"},
		{"cockroachdb/cockroach", "cockroach"},
		{"quay.io/prometheuscommunity/postgres-exporter", ""},
		{"dpage/pgadmin4", ""},
		{"example/postgres/backup", ""},
		{"redis-exporter:postgres", ""},
		{"", ""},
		{":", ""},
		{"nginx", ""},
	}
	for _, tt := range tests {
		got := ""
		if s := find(tt.image); s != nil {
			got = s.images[0]
		}
		if got != tt.want {
			t.Errorf("%q is %q, want %q", tt.image, got, tt.want)
		}
	}
}

// No image belongs to two products, and each product can be told and judged.
func TestStores(t *testing.T) {
	seen := map[string]int{}
	for i, s := range stores {
		for _, image := range s.images {
			if other, ok := seen[image]; ok {
				t.Errorf("%s is in %d and %d", image, other, i)
			}
			seen[image] = i
		}
		if len(s.ports) == 0 || len(s.open)+len(s.closed) == 0 {
			t.Errorf("%s has no port or no setting", s.images[0])
		}
		for _, setting := range slices.Concat(s.open, s.lax) {
			if name, values, ok := strings.Cut(setting, "="); ok && (name == "" || values == "") {
				t.Errorf("%s: setting %q", s.images[0], setting)
			}
		}
	}
}

func TestPorts(t *testing.T) {
	workload := func(document string) *inventory.Workload { return load(t, document).Workloads()[0] }
	declared := pod("postgres", ", ports: [{containerPort: 5433}]", "")
	job := "{apiVersion: batch/v1, kind: Job, metadata: {name: db, namespace: shop}, spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: postgres}]}}}}"
	tests := []struct {
		name, document string
		want           []int32
	}{
		{"usual", pod("postgres", "", ""), []int32{5432}},
		{"declared", declared, []int32{5433}},
		{"several", pod("elasticsearch", "", ""), []int32{9200, 9300}},
		{"beside another", strings.Replace(declared, "containers: [", "containers: [{name: proxy, image: envoy, ports: [{containerPort: 8000}]}, ", 1), []int32{5433}},
		{"a task with its image", job, nil},
		{"something else", pod("nginx", ", ports: [{containerPort: 5432}]", ""), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []int32
			for _, p := range Ports(workload(tt.document)) {
				got = append(got, p.ContainerPort)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("Ports = %v, want %v", got, tt.want)
			}
		})
	}
}

func env(pairs ...string) string {
	var out []string
	for _, p := range pairs {
		name, value, _ := strings.Cut(p, "=")
		out = append(out, fmt.Sprintf("{name: %s, value: %q}", name, value))
	}
	return ", env: [" + strings.Join(out, ", ") + "]"
}

func TestAuthentication(t *testing.T) {
	fromSecret := ", env: [{name: %s, valueFrom: {secretKeyRef: {name: s, key: k}}}]"
	mount := ", volumeMounts: [{name: conf, mountPath: /conf}]"
	conf := ", volumes: [{name: conf, configMap: {name: conf}}]"
	file := func(text string) string {
		return fmt.Sprintf("{apiVersion: v1, kind: ConfigMap, metadata: {name: conf, namespace: shop}, data: {server.conf: %q}}", text)
	}
	tests := []struct {
		name      string
		documents []string
		want      finding.Status
	}{
		{"password in the environment", []string{pod("postgres", fmt.Sprintf(fromSecret, "POSTGRES_PASSWORD"), "")}, finding.Pass},
		{"an empty password is none", []string{pod("postgres", env("POSTGRES_PASSWORD="), "")}, finding.Unknown},
		{"trust beats the password", []string{pod("postgres", env("POSTGRES_PASSWORD=x", "POSTGRES_HOST_AUTH_METHOD=trust"), "")}, finding.Fail},
		{"another method", []string{pod("postgres", env("POSTGRES_PASSWORD=x", "POSTGRES_HOST_AUTH_METHOD=scram-sha-256"), "")}, finding.Pass},
		{"an empty password allowed", []string{pod("bitnami/postgresql", env("ALLOW_EMPTY_PASSWORD=yes"), "")}, finding.Fail},
		{"and not allowed", []string{pod("bitnami/postgresql", env("ALLOW_EMPTY_PASSWORD=no"), "")}, finding.Unknown},
		{"allowed, but there is one", []string{pod("mysql", env("MYSQL_ALLOW_EMPTY_PASSWORD=yes", "MYSQL_ROOT_PASSWORD=x"), "")}, finding.Pass},
		{"flag", []string{pod("redis", `, args: ["--requirepass", "$(P)"]`, "")}, finding.Pass},
		{"flag with a value", []string{pod("redis", `, args: ["--requirepass=x"]`, "")}, finding.Pass},
		{"flag in a shell", []string{pod("redis", `, command: ["sh", "-c", "redis-server --requirepass $P --port 6379"]`, "")}, finding.Pass},
		{"flag of another program", []string{pod("redis", `, args: ["--appendonly", "yes"]`, "")}, finding.Fail},
		{"protected mode is off", []string{pod("redis", `, args: ["--protected-mode", "no"]`, "")}, finding.Fail},
		{"password in a file", []string{pod("redis", mount, conf), file("port 6379\nrequirepass x\n")}, finding.Pass},
		{"comment in a file", []string{pod("redis", mount, conf), file("# requirepass x\n")}, finding.Fail},
		{"file that was not read", []string{pod("redis", mount, conf)}, finding.Unknown},
		{"file that is not mounted here", []string{pod("redis", "", conf), file("requirepass x\n")}, finding.Fail},
		{"file from a Secret", []string{pod("redis", mount, ", volumes: [{name: conf, secret: {secretName: conf}}]")}, finding.Unknown},
		{"file from a driver", []string{pod("redis", mount, ", volumes: [{name: conf, csi: {driver: d}}]")}, finding.Unknown},
		{"data is no configuration", []string{pod("redis", mount, ", volumes: [{name: conf, emptyDir: {}}]")}, finding.Fail},
		{"yaml", []string{pod("mongo", mount, conf), file("security:\n  authorization: enabled\n")}, finding.Pass},
		{"yaml that says no", []string{pod("mongo", mount, conf), file("security:\n  authorization: disabled\n")}, finding.Fail},
		{"environment from a ConfigMap", []string{pod("elasticsearch", ", envFrom: [{configMapRef: {name: conf}}]", ""), "{apiVersion: v1, kind: ConfigMap, metadata: {name: conf, namespace: shop}, data: {xpack.security.enabled: 'false'}}"}, finding.Fail},
		{"with a prefix", []string{pod("influxdb", ", envFrom: [{prefix: INFLUXDB_, configMapRef: {name: conf}}]", ""), "{apiVersion: v1, kind: ConfigMap, metadata: {name: conf, namespace: shop}, data: {HTTP_AUTH_ENABLED: 'true'}}"}, finding.Pass},
		{"environment from a Secret", []string{pod("mongo", ", envFrom: [{secretRef: {name: s}}]", "")}, finding.Unknown},
		{"setting as an argument", []string{pod("elasticsearch", `, args: ["-E", "xpack.security.enabled=false"]`, "")}, finding.Fail},
		{"neo4j without", []string{pod("neo4j", env("NEO4J_AUTH=none"), "")}, finding.Fail},
		{"neo4j with", []string{pod("neo4j", env("NEO4J_AUTH=neo4j/x"), "")}, finding.Pass},
		{"a value that is referred to is not known", []string{pod("neo4j", fmt.Sprintf(fromSecret, "NEO4J_AUTH"), "")}, finding.Pass},
		{"letters do not matter", []string{pod("opensearch", env("DISABLE_SECURITY_PLUGIN=True"), "")}, finding.Fail},
		{"kafka in clear text", []string{pod("kafka", env("ALLOW_PLAINTEXT_LISTENER=yes"), "")}, finding.Fail},
		{"what nobody can tell", []string{pod("rabbitmq", "", "")}, finding.Unknown},
		{"no data store", []string{pod("nginx", "", "")}, finding.NotApplicable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Authentication(load(t, append(tt.documents, service)...))
			if len(got) != 1 || got[0].Status != tt.want {
				t.Fatalf("%+v, want %s", got, tt.want)
			}
			if got[0].Status == finding.Fail && (got[0].Message == "" || got[0].Evidence == "") || got[0].Status == finding.Unknown && got[0].Reason == "" {
				t.Errorf("%+v does not say why", got[0])
			}
		})
	}
}

// A Service counts only for the pods that it selects, and the worst of them
// counts.
func TestServices(t *testing.T) {
	open := strings.NewReplacer("name: db", "name: open", "app: db", "app: open").Replace(pod("redis", "", ""))
	good := pod("redis", ", args: [--requirepass, x]", "")
	tests := []struct {
		name, selector string
		want           finding.Status
	}{
		{"good", "{app: db}", finding.Pass},
		{"open", "{app: open}", finding.Fail},
		{"nobody", "{app: other}", finding.NotApplicable},
		{"no selector", "{}", finding.NotApplicable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Authentication(load(t, good, open, strings.Replace(service, "{app: db}", tt.selector, 1)))
			if len(got) != 1 || got[0].Status != tt.want {
				t.Errorf("%+v, want %s", got, tt.want)
			}
		})
	}
	both := strings.NewReplacer("app: db", "tier: data").Replace(service)
	tier := strings.NewReplacer("app: db", "tier: data", "app: open", "tier: data")
	got := Authentication(load(t, tier.Replace(good), tier.Replace(open), both))
	if len(got) != 1 || got[0].Status != finding.Fail {
		t.Errorf("of a good and an open one: %+v", got)
	}
}

// No value of a setting is shown unless it was looked for.
func TestValuesStayHidden(t *testing.T) {
	const value = "hunter2hunter2"
	for _, image := range []string{"postgres", "redis", "mysql", "mongo", "rabbitmq", "neo4j"} {
		got := Authentication(load(t, pod(image, env("POSTGRES_PASSWORD="+value, "MYSQL_ROOT_PASSWORD="+value, "RABBITMQ_DEFAULT_PASS="+value, "NEO4J_AUTH=neo4j/"+value)+", args: [--requirepass, "+value+"]", ""), service))
		if text := fmt.Sprintf("%+v", got); strings.Contains(text, value) {
			t.Errorf("%s: %s", image, text)
		}
	}
}

func FuzzSettings(f *testing.F) {
	f.Add("requirepass x\n# no\nname: value", "redis-server --requirepass x")
	f.Add("=\n:\n \n", "= -- - \"\" '=")
	f.Fuzz(func(t *testing.T, text, args string) {
		s := settings{values: map[string][]string{}}
		s.file(text)
		s.words([]string{args})
		for _, store := range stores {
			for _, wanted := range [][]string{store.open, store.closed, store.lax} {
				if name := s.first(wanted); name != "" && !slices.ContainsFunc(wanted, func(w string) bool {
					return strings.HasPrefix(name, strings.Split(w, "=")[0])
				}) {
					t.Errorf("first returned %q, which nobody wanted", name)
				}
			}
		}
		find(text)
	})
}
