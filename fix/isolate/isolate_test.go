package isolate_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/fix/isolate"
	"github.com/kubeguardian/kubeguardian/inventory"
)

func read(t testing.TB, manifests ...string) *inventory.Inventory {
	t.Helper()
	inv, err := inventory.FromFiles(context.Background(), []string{"-"}, strings.NewReader(strings.Join(manifests, "\n---\n")))
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func workload(name, pod string) string {
	return "{apiVersion: apps/v1, kind: Deployment, metadata: {name: " + name + ", namespace: shop}, spec: {selector: {matchLabels: {app: " + name + "}}, template: {metadata: {labels: {app: " + name + ", version: v1}}, spec: {" + pod + "}}}}"
}

func with(env string) string { return "containers: [{name: c, image: i, env: [" + env + "]}]" }

func service(name, spec string) string {
	return "{apiVersion: v1, kind: Service, metadata: {name: " + name + ", namespace: shop}, spec: {selector: {app: " + name + "}, " + spec + "}}"
}

const db = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: db, namespace: shop}, spec: {selector: {matchLabels: {app: db}}, template: {metadata: {labels: {app: db}}, spec: {containers: [{name: c, image: i, ports: [{name: sql, containerPort: 5432}]}]}}}}"

// propose closes the namespace shop, and returns the policies and what they
// allow in all.
func propose(t testing.TB, manifests ...string) (*isolate.Proposal, string) {
	t.Helper()
	inv := read(t, manifests...)
	planner, err := isolate.New(inv)
	if err != nil {
		t.Fatal(err)
	}
	p, err := planner.Propose(isolate.Demand{Namespace: "shop", All: isolate.Ingress | isolate.Egress, DNS: true})
	if err != nil {
		t.Fatal(err)
	}
	objects := append([]*inventory.Object{}, inv.Objects()...)
	after, err := inventory.New(inventory.Files, append(objects, read(t, string(p.Text)).Objects()...), nil)
	if err != nil {
		t.Fatal(err)
	}
	if cut, err := planner.Simulate(after, p); err != nil || len(cut) > 0 {
		t.Errorf("simulate: %v, %v\n%s", cut, err, p.Text)
	}
	return p, string(p.Text)
}

func TestReferences(t *testing.T) {
	sql := service("db", "ports: [{port: 5432, targetPort: sql}]")
	tests := []struct {
		name string
		more []string
		web  string
		want string // in the policy of web; "" for no policy
	}{
		{"a bare name", nil, with("{name: DB_HOST, value: db}"), "app: db\n    ports:\n    - {protocol: TCP, port: 5432}"},
		{"a URL", nil, with("{name: DSN, value: 'postgres://u:p@db:5432/x?y=z'}"), "app: db\n    ports:\n    - {protocol: TCP, port: 5432}"},
		{"the name of a user", nil, with("{name: DB_USER, value: db}"), ""},
		{"a part of a text", nil, with("{name: TITLE, value: the db of all}"), ""},
		{"with its namespace", nil, with("{name: A, value: db.shop}"), "app: db\n"},
		{"with the domain", nil, with("{name: A, value: 'db.shop.svc.cluster.local:5432'}"), "app: db\n"},
		{"an argument", nil, "containers: [{name: c, image: i, args: [--database-host, db]}]", "# web names db in --database-host\n"},
		{"a flag with a value", nil, "containers: [{name: c, image: i, args: [--server=db]}]", "app: db\n"},
		{"a shell", nil, "containers: [{name: c, image: i, command: [sh, -c, 'exec psql -h db -U db']}]", "# web names db in -h\n"},
		{"an init container", nil, "initContainers: [{name: i, image: i, env: [{name: H, value: db}]}], containers: [{name: c, image: i}]", "app: db\n"},
		{
			"a config map", []string{"{apiVersion: v1, kind: ConfigMap, metadata: {name: m, namespace: shop}, data: {nginx.conf: \"location / {\\n  proxy_pass http://db:5432;\\n}\"}}"},
			"volumes: [{name: v, configMap: {name: m}}], containers: [{name: c, image: i}]", "# web names db in proxy_pass\n",
		},
		{
			"a secret", []string{"{apiVersion: v1, kind: Secret, metadata: {name: m, namespace: shop}, stringData: {url: 'postgres://u:hunter2@db/x', other: 'http://elsewhere.example.com'}}"},
			"containers: [{name: c, image: i, env: [{name: U, valueFrom: {secretKeyRef: {name: m, key: url}}}]}]", "# web names db in url\n",
		},
		{"outside", nil, with("{name: API_URL, value: 'https://api.example.com/v1'}"), "cidr: 0.0.0.0/0\n        except: [169.254.169.254/32]\n    ports:\n    - {protocol: TCP, port: 443}"},
		{
			"outside, in a secret", []string{"{apiVersion: v1, kind: Secret, metadata: {name: m, namespace: shop}, stringData: {HOOK: 'https://hunter2.example.com/x', TOKEN_HOST: 'hunter2.token:4711'}}"},
			"containers: [{name: c, image: i, envFrom: [{secretRef: {name: m}}]}]", "# web names a host in HOOK of a Secret\n",
		},
		{"outside, the port beside it", nil, with("{name: MAIL_HOST, value: mail.example.com}, {name: MAIL_PORT, value: '2525'}"), "{protocol: TCP, port: 2525}"},
		{"outside, by protocol", nil, with("{name: SMTP_HOST, value: mail.example.com}"), "{protocol: TCP, port: 587}"},
		{"an address", nil, with("{name: A, value: '10.1.2.3:9000'}"), "cidr: 10.1.2.3/32\n    ports:\n    - {protocol: TCP, port: 9000}"},
		{"the metadata service", nil, with("{name: A, value: 'http://169.254.169.254/latest'}"), ""},
		{"itself by loopback", nil, with("{name: A, value: 'http://127.0.0.1:80'}, {name: B, value: 'localhost:80'}"), ""},
		{"a class name", nil, with("{name: DRIVER, value: org.postgresql.Driver}"), ""},
		{"a Service of another namespace, unseen", nil, with("{name: A, value: 'http://x.other.svc:81'}"), "kubernetes.io/metadata.name: other\n    ports:\n    - {protocol: TCP, port: 81}"},
		{"a Service of the own namespace, unseen", nil, with("{name: A, value: 'http://x:81'}"), "podSelector: {}\n    ports:\n    - {protocol: TCP, port: 81}"},
		{
			"rights in the API", []string{
				"{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: b, namespace: shop}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}, subjects: [{kind: ServiceAccount, name: web, namespace: shop}]}",
			}, "serviceAccountName: web, containers: [{name: c, image: i}]", "# web has rights in the API\n",
		},
		{
			"rights, but no token", []string{
				"{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: b, namespace: shop}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}, subjects: [{kind: ServiceAccount, name: web, namespace: shop}]}",
			}, "automountServiceAccountToken: false, serviceAccountName: web, containers: [{name: c, image: i}]", "",
		},
		{
			"the known API server", []string{
				"{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: b, namespace: shop}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}, subjects: [{kind: ServiceAccount, name: web, namespace: shop}]}",
				"{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: kubernetes, namespace: default, labels: {kubernetes.io/service-name: kubernetes}}, addressType: IPv4, endpoints: [{addresses: [10.0.0.1]}]}",
			}, "serviceAccountName: web, containers: [{name: c, image: i}]", "cidr: 10.0.0.1/32\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, text := propose(t, append(tt.more, workload("web", tt.web), db, sql)...)
			_, policy, found := strings.Cut(text, "# What Deployment web needs.\n")
			if found != (tt.want != "") || !strings.Contains(policy, tt.want) {
				t.Errorf("want %q in\n%s", tt.want, text)
			}
			if strings.Contains(text, "hunter2") || strings.Contains(text, "4711") {
				t.Error("a secret is printed")
			}
		})
	}
}

func TestEntries(t *testing.T) {
	web := workload("web", "containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}]}]")
	tests := []struct{ name, more, want string }{
		{"ingress", "{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: i, namespace: shop}, spec: {rules: [{http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}}", "# Ingress i leads here\n  - ports:\n    - {protocol: TCP, port: 8080}"},
		{"route", "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop}, spec: {rules: [{backendRefs: [{name: web, port: 80}]}]}}", "# HTTPRoute r leads here\n  - ports:\n"},
		{"webhook", "{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {name: h}, webhooks: [{name: a.b.c, sideEffects: None, admissionReviewVersions: [v1], clientConfig: {service: {name: web, namespace: shop}}}]}", "has the API server call it\n  - ports:\n"},
		{"load balancer", "{apiVersion: v1, kind: Service, metadata: {name: out, namespace: shop}, spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 443, targetPort: http}]}}", "# Service out opens a door to the outside\n  - ports:\n    - {protocol: TCP, port: 8080}"},
		{"none", "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, text := propose(t, web, service("web", "ports: [{port: 80, targetPort: http}]"), tt.more)
			if strings.Contains(text, "ingress:\n") != (tt.want != "") || !strings.Contains(text, tt.want) {
				t.Errorf("want %q in\n%s", tt.want, text)
			}
		})
	}
}

func TestWhatExistsStays(t *testing.T) {
	web := workload("web", with("{name: DB_HOST, value: db}"))
	sql := service("db", "ports: [{port: 5432}]")
	deny := "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: default-deny-ingress, namespace: shop}, spec: {podSelector: {}, policyTypes: [Ingress]}}"
	p, text := propose(t, web, db, sql, deny)
	if !strings.Contains(text, "name: default-deny-egress\n") || strings.Contains(text, "Ingress") {
		t.Errorf("ingress was closed already, and stays as it is:\n%s", text)
	}
	if p.Before != 0 || p.After != 0 {
		t.Errorf("pairs %d -> %d: ingress is closed", p.Before, p.After)
	}
	_, text = propose(t, web, db, sql, strings.Replace(deny, "default-deny-ingress", "web", 1))
	if !strings.Contains(text, "name: web-2\n") {
		t.Errorf("a name is used twice:\n%s", text)
	}
}

func TestDNSOfTheInventory(t *testing.T) {
	_, text := propose(t, db, "{apiVersion: v1, kind: Service, metadata: {name: d, namespace: openshift-dns}, spec: {selector: {dns: here}, ports: [{port: 53, protocol: UDP, targetPort: dns}]}}")
	if !strings.Contains(text, "kubernetes.io/metadata.name: openshift-dns\n      podSelector:\n        matchLabels:\n          dns: here\n") || strings.Contains(text, "kube-dns") {
		t.Errorf("got\n%s", text)
	}
}

func TestNotes(t *testing.T) {
	p, _ := propose(t, db, workload("web", "containers: [{name: c, image: i, envFrom: [{secretRef: {name: hidden}}]}]"))
	if len(p.Notes) != 1 || !strings.Contains(p.Notes[0], "takes settings from Secret/shop/hidden, which is not among the files") {
		t.Errorf("notes %q", p.Notes)
	}
}

// A pod without labels cannot be allowed anything, so it must not be closed.
func TestWithoutLabels(t *testing.T) {
	inv := read(t, "{apiVersion: v1, kind: Pod, metadata: {name: bare, namespace: shop}, spec: {containers: [{name: c, image: i, env: [{name: A, value: 'http://x.example.com'}]}]}}")
	planner, err := isolate.New(inv)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := planner.Propose(isolate.Demand{Namespace: "shop", All: isolate.Egress}); err == nil || !strings.Contains(err.Error(), "bare has no labels") {
		t.Errorf("error %v", err)
	}
}

// What is reached anywhere on an unknown port would open everything: egress is
// not closed, ingress can be.
func TestUnknownPort(t *testing.T) {
	planner, err := isolate.New(read(t, workload("web", with("{name: PARTNER_HOST, value: partner.example.com}"))))
	if err != nil {
		t.Fatal(err)
	}
	var unclear *isolate.UnclearError
	if _, err := planner.Propose(isolate.Demand{Namespace: "shop", All: isolate.Egress}); !errors.As(err, &unclear) || unclear.Direction != isolate.Egress ||
		!strings.HasPrefix(err.Error(), "web names partner.example.com in PARTNER_HOST, but not on which port") {
		t.Errorf("error %v", err)
	}
	if p, err := planner.Propose(isolate.Demand{Namespace: "shop", All: isolate.Ingress}); err != nil || p == nil {
		t.Errorf("ingress: %v", err)
	}
}

// The simulation is no friend of the proposal: it finds what is cut.
func TestSimulateFindsCuts(t *testing.T) {
	deny := "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: shop}, spec: "
	manifests := []string{workload("web", with("{name: DB_HOST, value: db}")), db, service("db", "ports: [{port: 5432, targetPort: sql}]")}
	tests := []struct {
		name, spec string
		cut        bool
	}{
		{"nothing may enter", "{podSelector: {}}", true},
		{"nothing may leave", "{podSelector: {}, policyTypes: [Egress]}", true},
		{"another pod is closed", "{podSelector: {matchLabels: {app: other}}}", false},
		{"the port is open", "{podSelector: {}, ingress: [{ports: [{port: 5432}]}]}", false},
		{"the port is open by name", "{podSelector: {}, ingress: [{ports: [{port: sql}]}]}", false},
		{"a range is open", "{podSelector: {}, ingress: [{ports: [{port: 5000, endPort: 6000}]}]}", false},
		{"a range beside it", "{podSelector: {}, ingress: [{ports: [{port: 5000, endPort: 5431}]}]}", true},
		{"another protocol", "{podSelector: {}, ingress: [{ports: [{port: 5432, protocol: UDP}]}]}", true},
		{"the pod is let in", "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}", false},
		{"the namespace is let in", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}}]}]}", false},
		{"another namespace", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: x}}}]}]}", true},
		{"addresses only", "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			planner, err := isolate.New(read(t, manifests...))
			if err != nil {
				t.Fatal(err)
			}
			cut, err := planner.Simulate(read(t, append(manifests, deny+tt.spec+"}")...))
			if err != nil || (len(cut) > 0) != tt.cut {
				t.Fatalf("cut %v, error %v", cut, err)
			}
			if err := cut["shop"]; tt.cut && !strings.Contains(err.Error(), "web names db in DB_HOST would be cut: Deployment/shop/web to Deployment/shop/db on {protocol: TCP, port: 5432}") {
				t.Errorf("error %v", err)
			}
		})
	}
}

// FuzzReferences looks for settings that break the search, or the proposal.
func FuzzReferences(f *testing.F) {
	for _, value := range []string{"db", "postgres://u:p@db:5432", "a=b:1,c", "10.0.0.1", "[::1]:80", "x\ny: db", "http://\u2028:99999", "\u009apostgre://u:p@db:5432"} {
		f.Add("DB_HOST", value)
		f.Add(value, "db:5432")
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		inv := read(t, workload("web", with("{name: A, value: b}")), db, service("db", "ports: [{port: 5432}]"))
		env := inv.Workloads()[1].Template.Spec.Containers[0].Env
		env[0].Name, env[0].Value = name, value
		planner, err := isolate.New(inv)
		if err != nil {
			t.Fatal(err)
		}
		p, err := planner.Propose(isolate.Demand{Namespace: "shop", All: isolate.Ingress | isolate.Egress, DNS: true})
		if unclear := (*isolate.UnclearError)(nil); errors.As(err, &unclear) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := inventory.FromFiles(t.Context(), []string{"-"}, strings.NewReader(string(p.Text))); err != nil {
			t.Fatalf("%v\n%s", err, p.Text)
		}
	})
}
