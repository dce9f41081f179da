package cloud

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/evidence/terraform"
	"github.com/kubeguardian/kubeguardian/fact"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

var now = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

func planOf(file string, p terraform.Plan) evidence.Plan {
	return evidence.Plan{Origin: evidence.Origin{Kind: evidence.IaC, Source: file, SeenAt: now}, Plan: &p}
}

func objects(t *testing.T, origin inventory.Origin, list ...map[string]any) *inventory.Inventory {
	t.Helper()
	var all []*inventory.Object
	for _, o := range list {
		all = append(all, &inventory.Object{Unstructured: &unstructured.Unstructured{Object: o}})
	}
	inv, err := inventory.New(origin, all, nil)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

// TestOpenings compares with asking each port for itself.
func TestOpenings(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	interesting := []int{0, 21, 22, 23, 2378, 2379, 2380, 2381, 6443, 10249, 10250, 10259, 10260, 29999, 30000, 32767, 32768, 65535}
	opened := 0
	for range 3000 {
		var fw terraform.Firewall
		for i := range 1 + random.IntN(4) {
			a, b := interesting[random.IntN(len(interesting))], interesting[random.IntN(len(interesting))]
			fw.Rules = append(fw.Rules, terraform.Rule{
				Address: fmt.Sprint("r", i), Allow: random.IntN(2) == 0, Priority: random.IntN(3), Partial: random.IntN(4) == 0,
				Protocol: []string{"", "tcp", "udp", "icmp"}[random.IntN(4)],
				From:     [][]string{{"0.0.0.0/0"}, {"::/0", "10.0.0.0/8"}, {"10.0.0.0/8"}, nil}[random.IntN(4)],
				Ports:    []terraform.Range{{First: min(a, b), Last: max(a, b)}},
			})
		}
		want := false
		for _, g := range guarded {
			for _, port := range interesting {
				if port >= g.First && port <= g.Last && (admits(fw.Rules, "tcp", port) || g.udp && admits(fw.Rules, "udp", port)) {
					want = true
				}
			}
		}
		if got := openings(fw); (len(got) > 0) != want {
			t.Fatalf("%+v: %v, want %t", fw.Rules, got, want)
		}
		if want {
			opened++
		}
	}
	if opened < 300 || opened > 2700 {
		t.Errorf("%d of 3000 firewalls are open: the test shows little", opened)
	}
}

// admits is the same question in its simplest form: the rule with the smallest
// priority that speaks of the port decides, and of equals one that refuses.
func admits(rules []terraform.Rule, protocol string, port int) bool {
	for priority := range 3 {
		refused, allowed := false, false
		for _, r := range rules {
			speaks := r.Priority == priority && (r.Protocol == "" || r.Protocol == protocol) && port >= r.Ports[0].First && port <= r.Ports[0].Last &&
				strings.Contains(strings.Join(r.From, " "), "/0") && strings.Contains(" "+strings.Join(r.From, " "), ":/0") != strings.Contains(strings.Join(r.From, " "), "0.0.0.0/0")
			allowed = allowed || speaks && r.Allow
			refused = refused || speaks && !r.Allow && !r.Partial
		}
		switch {
		case refused:
			return false
		case allowed:
			return true
		}
	}
	return false
}

func TestEverybody(t *testing.T) {
	for cidr, want := range map[string]bool{
		"0.0.0.0/0": true, "::/0": true, "0.0.0.0/1": true, "2000::/3": true, " 0.0.0.0/0 ": true,
		"10.0.0.0/8": false, "198.51.100.7/32": false, "": false, "everybody": false, "0.0.0.0": false,
	} {
		if everybody(cidr) != want {
			t.Errorf("%q: %t", cidr, !want)
		}
	}
}

// Two plans may use the same addresses.
func TestSubjects(t *testing.T) {
	p := terraform.Plan{Clusters: []terraform.Cluster{{Address: "aws_eks_cluster.main", Public: fact.No}}}
	one := &evidence.Set{Plans: []evidence.Plan{planOf("a.json", p)}}
	two := &evidence.Set{Plans: []evidence.Plan{planOf("a.json", p), planOf("b.json", p)}}
	if f := Endpoints(one); len(f) != 1 || f[0].Subject.Name != "aws_eks_cluster.main" || f[0].Status != finding.Pass || !f[0].ObservedAt.Equal(now) || f[0].EvidenceKind != "iac" {
		t.Errorf("%+v", f)
	}
	f := Endpoints(two)
	if len(f) != 2 || f[0].Subject == f[1].Subject || f[1].Subject.Name != "b.json: aws_eks_cluster.main" {
		t.Errorf("%+v", f)
	}
	if got := Endpoints(nil); got != nil {
		t.Errorf("of nothing: %v", got)
	}
}

// TestMetadata joins what the cloud lets pods reach and what is inside the
// cluster holds back.
func TestMetadata(t *testing.T) {
	for _, tt := range []struct {
		cloud        fact.Fact
		inside, want finding.Status
	}{
		{fact.No, "", finding.Pass}, {fact.No, finding.Fail, finding.Pass},
		{fact.Yes, "", finding.Fail}, {fact.Yes, finding.Fail, finding.Fail}, {fact.Yes, finding.Unknown, finding.Fail}, {fact.Yes, finding.Pass, finding.Pass},
		{fact.Unknown, "", finding.Unknown}, {fact.Unknown, finding.Fail, finding.Unknown}, {fact.Unknown, finding.Pass, finding.Pass},
	} {
		var inside []finding.Verdict
		if tt.inside != "" {
			inside = []finding.Verdict{{Status: tt.inside, Evidence: "policies", Subject: finding.Subject{Kind: "Node"}}}
		}
		set := &evidence.Set{Plans: []evidence.Plan{planOf("p.json", terraform.Plan{Machines: []terraform.Machine{{Address: "pool", Metadata: tt.cloud, Why: "so"}}})}}
		got := Metadata(set, inside)
		if len(got) != 1 || got[0].Status != tt.want || got[0].Subject.Name != "pool" {
			t.Errorf("cloud %d, inside %q: %+v, want %s", tt.cloud, tt.inside, got, tt.want)
		}
		if got := Metadata(nil, inside); len(got) != len(inside) || len(got) > 0 && got[0].Status != tt.inside {
			t.Errorf("no plan, inside %q: %+v", tt.inside, got)
		}
	}
}

func node(id string) map[string]any {
	return map[string]any{"apiVersion": "v1", "kind": "Node", "metadata": map[string]any{"name": "n" + id}, "spec": map[string]any{"providerID": id}}
}

func TestProvider(t *testing.T) {
	for _, tt := range []struct {
		origin inventory.Origin
		ids    []string
		cloud  string
		known  bool
	}{
		{inventory.Cluster, []string{""}, "", true},
		{inventory.Cluster, []string{"kind://docker/a/b"}, "", true},
		{inventory.Cluster, []string{"", "aws:///eu-central-1a/i-0"}, "aws", true},
		{inventory.Cluster, []string{"azure:///subscriptions/x"}, "azure", true},
		{inventory.Cluster, nil, "", false},
		{inventory.Files, []string{""}, "", false},
	} {
		var list []map[string]any
		for _, id := range tt.ids {
			list = append(list, node(id))
		}
		if cloud, known := provider(objects(t, tt.origin, list...)); cloud != tt.cloud || known != tt.known {
			t.Errorf("%s %q: %q, %t", tt.origin, tt.ids, cloud, known)
		}
	}
}

func backupOf(phase, at string) map[string]any {
	return map[string]any{
		"apiVersion": "velero.io/v1", "kind": "Backup", "metadata": map[string]any{"name": "b" + at + phase, "namespace": "velero"},
		"status": map[string]any{"phase": phase, "completionTimestamp": at},
	}
}

// The newest backup that completed counts, whatever failed since.
func TestBackups(t *testing.T) {
	for _, tt := range []struct {
		backups []map[string]any
		want    finding.Status
	}{
		{nil, ""},
		{[]map[string]any{backupOf("Completed", "2026-11-20T12:00:00Z")}, finding.Pass},
		{[]map[string]any{backupOf("Completed", "2026-11-19T11:59:59Z")}, finding.Fail},
		{[]map[string]any{backupOf("Completed", "2026-11-01T00:00:00Z"), backupOf("Completed", "2026-11-25T00:00:00Z"), backupOf("Failed", "2026-11-26T00:00:00Z")}, finding.Pass},
		{[]map[string]any{backupOf("InProgress", "")}, ""},
		{[]map[string]any{backupOf("Completed", "yesterday")}, ""},
	} {
		got := Backups(objects(t, inventory.Cluster, tt.backups...), nil, now)
		if tt.want == "" && len(got) > 0 || tt.want != "" && (len(got) != 1 || got[0].Status != tt.want) {
			t.Errorf("%v: %+v, want %q", tt.backups, got, tt.want)
		}
	}
	paused := &evidence.Set{Plans: []evidence.Plan{planOf("p.json", terraform.Plan{Backups: []terraform.Backup{{Address: "x", Paused: fact.Yes}}})}}
	if got := Backups(objects(t, inventory.Cluster), paused, now); got != nil {
		t.Errorf("a paused plan makes no backups: %+v", got)
	}
}

// TestCode counts what is critical, and does not hide what is not known.
func TestCode(t *testing.T) {
	open := terraform.Rule{Address: "r", Allow: true, Protocol: "tcp", From: []string{"0.0.0.0/0"}, Ports: []terraform.Range{{First: 22, Last: 22}}}
	unsure := terraform.Firewall{Address: "u", Unknown: []string{"ingress"}}
	for _, tt := range []struct {
		plan terraform.Plan
		want finding.Status
		says string
	}{
		{terraform.Plan{Resources: 3}, finding.Pass, "3 resources"},
		{terraform.Plan{Firewalls: []terraform.Firewall{unsure}}, finding.Unknown, "u: known only after apply"},
		{terraform.Plan{Firewalls: []terraform.Firewall{unsure, {Address: "o", Rules: []terraform.Rule{open}}}}, finding.Fail, "a critical finding"},
		{terraform.Plan{Firewalls: []terraform.Firewall{{Address: "o", Rules: []terraform.Rule{open}}, {Address: "p", Rules: []terraform.Rule{open}}}}, finding.Fail, "2 critical findings"},
	} {
		got := Code(&evidence.Set{Plans: []evidence.Plan{planOf("p.json", tt.plan)}})
		if len(got) != 1 || got[0].Status != tt.want || !strings.Contains(got[0].Message+got[0].Reason+got[0].Evidence, tt.says) || got[0].Subject.Name != "p.json" {
			t.Errorf("%+v, want %s with %q", got, tt.want, tt.says)
		}
	}
	if Code(nil) != nil {
		t.Error("of nothing something")
	}
}

// Many unknown attributes and openings are not all listed.
func TestShorten(t *testing.T) {
	var names []string
	for i := range 12 {
		names = append(names, fmt.Sprint("a", i))
	}
	if got := shorten(names); len(got) != maxNamed+1 || got[maxNamed] != "7 more" {
		t.Errorf("%v", got)
	}
	if f := pending([]string{"b", "a", "a"}); !strings.Contains(f.Reason, "a, b;") {
		t.Errorf("%q", f.Reason)
	}
}

func TestEntryPoints(t *testing.T) {
	for _, tt := range []struct {
		public, attached, blocking fact.Fact
		want                       finding.Status
	}{
		{fact.Yes, fact.Yes, fact.Yes, finding.Pass},
		{fact.Yes, fact.Yes, fact.No, finding.Fail},
		{fact.Yes, fact.Yes, fact.Unknown, finding.Unknown},
		{fact.Yes, fact.No, fact.No, finding.Fail},
		{fact.Yes, fact.Unknown, fact.Unknown, finding.Unknown},
		{fact.No, fact.No, fact.No, finding.NotApplicable},
		{fact.Unknown, fact.No, fact.No, finding.Unknown},
		{fact.Unknown, fact.Yes, fact.Yes, finding.Pass},
	} {
		if got := waf("lb", "acl", tt.public, tt.attached, tt.blocking); got.Status != tt.want {
			t.Errorf("%+v: %+v", tt, got)
		}
	}
	service := func(kind string) map[string]any {
		return map[string]any{"apiVersion": "v1", "kind": "Service", "metadata": map[string]any{"name": kind, "namespace": "a"}, "spec": map[string]any{"type": kind}}
	}
	ingress := map[string]any{"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": map[string]any{"name": "i", "namespace": "a"}}
	for name, tt := range map[string]struct {
		origin  inventory.Origin
		objects []map[string]any
		want    int
	}{
		"inside only": {inventory.Cluster, []map[string]any{service("ClusterIP")}, 1},
		"balancer":    {inventory.Cluster, []map[string]any{service("LoadBalancer")}, 0},
		"node port":   {inventory.Cluster, []map[string]any{service("NodePort")}, 0},
		"ingress":     {inventory.Cluster, []map[string]any{service("ClusterIP"), ingress}, 0},
		"files":       {inventory.Files, []map[string]any{service("ClusterIP")}, 0},
	} {
		if got := EntryPoints(objects(t, tt.origin, tt.objects...), nil); len(got) != tt.want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestLogs(t *testing.T) {
	whole := terraform.Cluster{Address: "c", AuditLog: fact.Yes, ContainerLog: fact.Yes, LogDays: 30}
	for name, tt := range map[string]struct {
		change  func(*terraform.Cluster)
		shipper string
		want    finding.Status
		says    string
	}{
		"whole":            {func(*terraform.Cluster) {}, "", finding.Pass, "30 days"},
		"for ever":         {func(c *terraform.Cluster) { c.LogDays = terraform.Forever }, "", finding.Pass, "for ever"},
		"a day short":      {func(c *terraform.Cluster) { c.LogDays = 29 }, "", finding.Fail, "29 days only"},
		"no audit":         {func(c *terraform.Cluster) { c.AuditLog = fact.No }, "", finding.Fail, "audit log"},
		"stay on nodes":    {func(c *terraform.Cluster) { c.ContainerLog = fact.No }, "", finding.Fail, "stay on the nodes"},
		"shipped":          {func(c *terraform.Cluster) { c.ContainerLog = fact.No }, "DaemonSet/logs", finding.Pass, ""},
		"audit not known":  {func(c *terraform.Cluster) { c.AuditLog = fact.Unknown }, "", finding.Unknown, "whether the audit log"},
		"length not known": {func(c *terraform.Cluster) { c.LogDays = 0 }, "", finding.Unknown, "how long"},
	} {
		c := whole
		tt.change(&c)
		if got := logs(c, tt.shipper); got.Status != tt.want || !strings.Contains(got.Message+got.Reason+got.Evidence, tt.says) {
			t.Errorf("%s: %+v, want %s with %q", name, got, tt.want, tt.says)
		}
	}
}

func TestIdentities(t *testing.T) {
	account := func(key string) map[string]any {
		return map[string]any{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": "a", "namespace": "a", "annotations": map[string]any{key: "x"}}}
	}
	for name, tt := range map[string]struct {
		workload fact.Fact
		key      string
		want     finding.Status
	}{
		"set up":      {fact.Yes, "x", finding.Pass},
		"not set up":  {fact.No, "x", finding.Fail},
		"not known":   {fact.Unknown, "x", finding.Unknown},
		"seen in use": {fact.Unknown, "eks.amazonaws.com/role-arn", finding.Pass},
	} {
		set := &evidence.Set{Plans: []evidence.Plan{planOf("p.json", terraform.Plan{Clusters: []terraform.Cluster{{Address: "c", WorkloadIdentity: tt.workload}}})}}
		got := Identities(objects(t, inventory.Cluster, account(tt.key)), set)
		if len(got) != 1 || got[0].Status != tt.want {
			t.Errorf("%s: %+v, want %s", name, got, tt.want)
		}
	}
	for name, tt := range map[string]struct {
		id   terraform.Identity
		want finding.Status
	}{
		"narrow": {terraform.Identity{Address: "r"}, finding.Pass},
		"broad":  {terraform.Identity{Address: "r", Broad: []string{"policy AdministratorAccess"}, Unknown: []string{"x"}}, finding.Fail},
		"unsure": {terraform.Identity{Address: "r", Unknown: []string{"x"}}, finding.Unknown},
	} {
		set := &evidence.Set{Plans: []evidence.Plan{planOf("p.json", terraform.Plan{Identities: []terraform.Identity{tt.id}})}}
		if got := nodeRights(set); len(got) != 1 || got[0].Status != tt.want || got[0].Subject.Name != "nodes of r" {
			t.Errorf("%s: %+v, want %s", name, got, tt.want)
		}
	}
	if got := Identities(objects(t, inventory.Cluster, node("")), nil); len(got) != 1 || got[0].Status != finding.NotApplicable {
		t.Errorf("on premises: %+v", got)
	}
	if got := Identities(objects(t, inventory.Cluster, node("gce://p/z/n")), nil); got != nil {
		t.Errorf("in a cloud of which nothing is given: %+v", got)
	}
}

// TestScans counts the newest report of each scanner, and no scanner of
// manifests.
func TestScans(t *testing.T) {
	report := func(tool string, age time.Duration, severities ...finding.Severity) evidence.Analysis {
		a := evidence.Analysis{
			Origin: evidence.Origin{Kind: evidence.IaC, Tool: tool, Source: "s.sarif", SeenAt: now.Add(-age)}, Type: evidence.IaCScan, Repository: "https://github.com/shop/app.git",
		}
		for _, s := range severities {
			a.Results = append(a.Results, evidence.Result{Rule: "CKV_AWS_24", File: "net.tf", Line: 3, Severity: s})
		}
		return a
	}
	for name, tt := range map[string]struct {
		reports []evidence.Analysis
		want    string
	}{
		"none":         {nil, ""},
		"clean":        {[]evidence.Analysis{report("checkov 3.2", 0, finding.High)}, "pass"},
		"critical":     {[]evidence.Analysis{report("checkov 3.2", 0, finding.Low, finding.Critical)}, "fail"},
		"repaired":     {[]evidence.Analysis{report("checkov 3.1", time.Hour, finding.Critical), report("Checkov 3.2", 0)}, "pass"},
		"two scanners": {[]evidence.Analysis{report("tfsec", time.Hour, finding.Critical), report("checkov 3.2", 0)}, "pass fail"},
		"of manifests": {[]evidence.Analysis{report("kube-linter", 0, finding.Critical)}, ""},
	} {
		var got []string
		for _, f := range Code(&evidence.Set{Analyses: tt.reports}) {
			got = append(got, string(f.Status))
			if f.Subject.Name != "github.com/shop/app" || f.EvidenceKind != "iac" {
				t.Errorf("%s: %+v", name, f)
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %v, want %s", name, got, tt.want)
		}
	}
}
