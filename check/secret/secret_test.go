package secret_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/check/secret"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

var now = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// read makes an inventory of documents; "shop" is the namespace of all.
func read(t *testing.T, origin inventory.Origin, gaps []inventory.Gap, documents ...string) *inventory.Inventory {
	t.Helper()
	inv, err := inventory.FromFiles(context.Background(), []string{"-"}, strings.NewReader(strings.Join(documents, "\n---\n")))
	if err != nil {
		t.Fatal(err)
	}
	inv, err = inventory.New(origin, inv.Objects(), gaps)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

const shop = "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}"

func pod(name, labels, spec string) string {
	return fmt.Sprintf("{apiVersion: v1, kind: Pod, metadata: {name: %s, namespace: shop, labels: {%s}}, spec: {containers: [{name: c, image: i}]%s}}", name, labels, spec)
}

func secretObject(name, more string) string {
	return fmt.Sprintf("{apiVersion: v1, kind: Secret, metadata: {name: %s, namespace: shop%s}}", name, more)
}

func TestNames(t *testing.T) {
	tests := []struct{ name, object, want string }{
		{"volume", "{kind: Pod, spec: {volumes: [{name: v, secret: {secretName: a}}]}}", "a"},
		{"projected volume", "{kind: Pod, spec: {volumes: [{name: v, projected: {sources: [{secret: {name: a}}, {configMap: {name: b}}]}}]}}", "a"},
		{"variable", "{kind: Pod, spec: {containers: [{env: [{name: A, valueFrom: {secretKeyRef: {name: a, key: k}}}]}]}}", "a k"},
		{"all variables", "{kind: Pod, spec: {containers: [{envFrom: [{secretRef: {name: a}}, {configMapRef: {name: b}}]}]}}", "a"},
		{"pull secret", "{kind: Pod, spec: {imagePullSecrets: [{name: a}]}}", "a"},
		{"pull secret of an account", "{kind: ServiceAccount, imagePullSecrets: [{name: a}]}", "a"},
		{"driver", "{kind: Pod, spec: {volumes: [{csi: {nodePublishSecretRef: {name: a}}}]}}", "a"},
		{"entry point", "{kind: Ingress, spec: {tls: [{hosts: [h], secretName: a}]}}", "a"},
		{"gateway", "{kind: Gateway, spec: {listeners: [{tls: {certificateRefs: [{name: a}]}}]}}", "a"},
		{"gateway of Istio", "{kind: Gateway, spec: {servers: [{tls: {credentialName: a}}]}}", "a"},
		{"certificate", "{kind: Certificate, spec: {secretName: a, issuerRef: {name: b}}}", "a"},
		{"rule", "{kind: Role, rules: [{resources: [secrets], resourceNames: [a], verbs: [get]}]}", "a"},
		{"rule on something else", "{kind: Role, rules: [{resources: [pods], resourceNames: [a], verbs: [get]}]}", ""},
		{"its own name is no use", "{kind: Pod, metadata: {name: secret-a, annotations: {secret: a}}}", ""},
		{"neither is a status", "{kind: ExternalSecret, status: {binding: {name: a, secret: a}}}", ""},
		{"a text", "{kind: ConfigMap, data: {note: a}}", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := &inventory.Object{Unstructured: &unstructured.Unstructured{}}
			if err := yaml.Unmarshal([]byte(tt.object), &o.Object); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(slices.Sorted(maps.Keys(secret.Names(o))), " "); got != tt.want {
				t.Errorf("Names = %q, want %q", got, tt.want)
			}
		})
	}
}

// A deep object ends the search, not the program.
func TestNamesAreBounded(t *testing.T) {
	var node any = "deep"
	for range 100_000 {
		node = map[string]any{"secret": node}
	}
	o := &inventory.Object{Unstructured: &unstructured.Unstructured{Object: map[string]any{"kind": "Pod", "spec": node}}}
	if got := secret.Names(o); len(got) != 0 {
		t.Errorf("Names = %v", got)
	}
}

func TestUnused(t *testing.T) {
	issuer := "{apiVersion: cert-manager.io/v1, kind: ClusterIssuer, metadata: {name: ca}, spec: {ca: {secretName: a}}}"
	crd := `{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: clusterissuers.cert-manager.io},
		spec: {group: cert-manager.io, names: {kind: ClusterIssuer, plural: clusterissuers}, scope: Cluster,
		versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]}}`
	tests := []struct {
		name      string
		documents []string
		want      finding.Status
	}{
		{"used", []string{shop, secretObject("a", ""), pod("p", "", ", imagePullSecrets: [{name: a}]")}, finding.Pass},
		{"used without its namespace", []string{secretObject("a", ""), pod("p", "", ", imagePullSecrets: [{name: a}]")}, finding.Pass},
		{"not used", []string{shop, secretObject("a", ""), pod("p", "", ", imagePullSecrets: [{name: b}]")}, finding.Fail},
		{"one Secret does not use another", []string{shop, secretObject("a", ""), strings.Replace(secretObject("b", ""), "}}", "}, stringData: {secret: a}}", 1)}, finding.Fail},
		{"by an object of the whole cluster", []string{shop, secretObject("a", ""), crd, issuer}, finding.Pass},
		{"alone", []string{secretObject("a", "")}, finding.Unknown},
		{"bootstrap token", []string{shop, strings.Replace(secretObject("a", ""), "}}", "}, type: bootstrap.kubernetes.io/token}", 1)}, finding.NotApplicable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := secret.Unused(read(t, inventory.Files, nil, tt.documents...))
			if len(got) == 0 || got[0].Status != tt.want || got[0].Subject.Name != "a" {
				t.Errorf("%+v, want %s", got, tt.want)
			}
		})
	}
	if got := secret.Unused(read(t, inventory.Cluster, nil, shop)); len(got) != 0 {
		t.Errorf("a live cluster shows no Secret, and %v", got)
	}
}

func TestAge(t *testing.T) {
	day := func(n int) string { return now.AddDate(0, 0, -n).Format(time.DateOnly) }
	stamp := func(n int) string { return now.AddDate(0, 0, -n).Format(time.RFC3339) }
	noted := func(day string) string { return ", annotations: {" + secret.RotatedMark + ": '" + day + "'}" }
	tests := []struct {
		name, more string
		want       finding.Status
	}{
		{"today", noted(day(0)), finding.Pass},
		{"on the last day", noted(day(90)), finding.Fail}, // at noon it is half a day late
		{"a day earlier", noted(day(89)), finding.Pass},
		{"in the future", noted(day(-3)), finding.Unknown},
		{"the note counts more than the birthday", ", creationTimestamp: '" + stamp(400) + "'" + noted(day(3)), finding.Pass},
		{"born lately", ", creationTimestamp: '" + stamp(10) + "'", finding.Pass},
		{"born long ago", ", creationTimestamp: '" + stamp(400) + "'", finding.Unknown},
		{"written lately", ", creationTimestamp: '" + stamp(400) + "', managedFields: [{manager: m, operation: Update, time: '" + stamp(10) + "'}]", finding.Pass},
		{"written long ago", ", creationTimestamp: '" + stamp(400) + "', managedFields: [{manager: m, operation: Update, time: '" + stamp(300) + "'}]", finding.Fail},
		{"nothing", "", finding.Unknown},
		{"no day", noted("soon"), finding.Unknown},
		{"rotated elsewhere", ", annotations: {" + secret.RotationMark + ": external}", finding.NotApplicable},
		{"made by cert-manager", ", ownerReferences: [{apiVersion: cert-manager.io/v1, kind: Certificate, name: c, uid: u}]", finding.NotApplicable},
		{"owned by something else", ", ownerReferences: [{apiVersion: v1, kind: Pod, name: c, uid: u}]", finding.Unknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := secret.Age(read(t, inventory.Files, nil, secretObject("a", tt.more)), now)
			if len(got) != 1 || got[0].Status != tt.want {
				t.Fatalf("%+v, want %s", got, tt.want)
			}
			if unknown := got[0].Status == finding.Unknown || got[0].Status == finding.NotApplicable; unknown != (got[0].Reason != "") {
				t.Errorf("%s with reason %q", got[0].Status, got[0].Reason)
			}
		})
	}
}

func TestShared(t *testing.T) {
	mounts := ", volumes: [{name: v, secret: {secretName: a}}]"
	part := func(app string) string { return "app.kubernetes.io/part-of: " + app }
	tests := []struct {
		name      string
		documents []string
		reader    string // through the API
		want      finding.Status
	}{
		{"by nobody", []string{shop, secretObject("a", "")}, "", finding.Pass},
		{"by one", []string{shop, secretObject("a", ""), pod("p", part("shop"), mounts)}, "", finding.Pass},
		{"by two of one", []string{shop, secretObject("a", ""), pod("p", part("shop"), mounts), pod("q", part("shop"), mounts)}, "", finding.Pass},
		{"by two of two", []string{shop, secretObject("a", ""), pod("p", part("shop"), mounts), pod("q", part("blog"), mounts)}, "", finding.Fail},
		{"by an unnamed part of the namespace", []string{shop, secretObject("a", ""), pod("p", "", mounts), pod("q", "", mounts)}, "", finding.Pass},
		{"by rights", []string{shop, secretObject("a", ""), pod("p", part("shop"), mounts), pod("q", part("blog"), "")}, "q", finding.Fail},
		{"by rights of the same", []string{shop, secretObject("a", ""), pod("p", part("shop"), mounts), pod("q", part("shop"), "")}, "q", finding.Pass},
		{"a failure needs no whole namespace", []string{secretObject("a", ""), pod("p", part("shop"), mounts), pod("q", part("blog"), mounts)}, "", finding.Fail},
		{"a pass does", []string{secretObject("a", ""), pod("p", part("shop"), mounts)}, "", finding.Unknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inv := read(t, inventory.Files, nil, tt.documents...)
			got := secret.Shared(inv, func(ns, name string) []*inventory.Workload {
				return slices.DeleteFunc(slices.Clone(inv.Workloads()), func(w *inventory.Workload) bool { return w.GetName() != tt.reader || ns != "shop" || name != "a" })
			})
			if len(got) != 1 || got[0].Status != tt.want {
				t.Errorf("%+v, want %s", got, tt.want)
			}
		})
	}
}

func TestStores(t *testing.T) {
	uses := pod("p", "", ", imagePullSecrets: [{name: a}]")
	forbidden := []inventory.Gap{{Kind: schema.GroupKind{Group: "external-secrets.io", Kind: "ExternalSecret"}, Reason: "forbidden"}}
	csi := pod("p", "", ", volumes: [{name: v, csi: {driver: secrets-store.csi.k8s.io}}]")
	tests := []struct {
		name      string
		origin    inventory.Origin
		gaps      []inventory.Gap
		documents []string
		want      finding.Status
	}{
		{"nothing used", inventory.Cluster, nil, []string{shop, pod("p", "", "")}, finding.NotApplicable},
		{"used", inventory.Cluster, nil, []string{shop, uses}, finding.Fail},
		{"a store could not be read", inventory.Cluster, forbidden, []string{shop, uses}, finding.Unknown},
		{"and nobody needs it", inventory.Cluster, forbidden, []string{shop, pod("p", "", "")}, finding.NotApplicable},
		{"driver", inventory.Cluster, forbidden, []string{shop, csi}, finding.Pass},
		{"another driver", inventory.Cluster, nil, []string{shop, strings.Replace(csi, "secrets-store.csi", "ebs.csi", 1), uses}, finding.Fail},
		{"made by a store", inventory.Files, nil, []string{shop, secretObject("a", ", ownerReferences: [{apiVersion: bitnami.com/v1alpha1, kind: SealedSecret, name: a, uid: u}]")}, finding.Pass},
		{"lone file", inventory.Files, nil, []string{uses}, finding.Unknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := secret.Stores(read(t, tt.origin, tt.gaps, tt.documents...))
			if len(got) != 1 || got[0].Status != tt.want || got[0].Subject.Name != "shop" || got[0].Subject.Source == "" {
				t.Errorf("%+v, want %s", got, tt.want)
			}
		})
	}
}

// No finding shows a value.
func TestValuesStayHidden(t *testing.T) {
	const value = "hunter2-hunter2"
	inv := read(t, inventory.Files, nil, shop, strings.Replace(secretObject("a", ""), "}}", "}, stringData: {password: "+value+"}}", 1))
	all := slices.Concat(secret.Unused(inv), secret.Age(inv, now), secret.Stores(inv), secret.Shared(inv, func(string, string) []*inventory.Workload { return nil }))
	if text := fmt.Sprintf("%+v", all); len(all) != 4 || strings.Contains(text, value) {
		t.Errorf("%d findings: %s", len(all), text)
	}
}
