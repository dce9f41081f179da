package main

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// street is a cluster of three namespaces.
func street(t *testing.T, policies string) cluster {
	t.Helper()
	pod := func(namespace, name, ip string, port int32) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": name}}}
		p.Status.PodIP, p.Status.Phase = ip, corev1.PodRunning
		p.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: port}}}}
		return p
	}
	ended, host := pod("shop", "ended", "10.244.0.9", 80), pod("shop", "host", "10.99.0.2", 80)
	ended.Status.Phase, host.Spec.HostNetwork = corev1.PodSucceeded, true
	c := cluster{pods: []*corev1.Pod{
		pod("shop", "till", "10.244.0.2", 8080), pod("shop", "store", "10.244.0.3", 9090),
		pod("bank", "vault", "10.244.0.4", 7070), pod("shop", "new", "", 80), pod("shop", "six", "fd00::5", 80), ended, host,
	}}
	for _, name := range []string{"shop", "bank"} {
		c.namespaces = append(c.namespaces, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kind": name}}})
	}
	for text := range strings.SplitSeq(policies, "---") {
		p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "policy"}}
		if err := yaml.UnmarshalStrict([]byte(text), &p.Spec); err != nil {
			t.Fatal(err)
		}
		c.policies = append(c.policies, p)
	}
	return c
}

// chain returns what the chain of a pod lets pass, and whether there is one.
func chain(table, name string) (lines []string, ok bool) {
	body := regexp.MustCompile(`(?s)\tchain ` + regexp.QuoteMeta(name) + ` \{[^\n]*\n(.*?)\n\t\}`).FindStringSubmatch(table)
	if body == nil {
		return nil, false
	}
	for line := range strings.Lines(body[1]) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines[1 : len(lines)-1], true // without the pod itself, and the drop
}

func TestRender(t *testing.T) {
	for name, tt := range map[string]struct {
		policies, chain string
		want            []string
	}{
		"deny": {`{podSelector: {}, policyTypes: [Ingress]}`, "ingress-10.244.0.2", nil},
		"allow all": {`{podSelector: {}, policyTypes: [Ingress], ingress: [{}]}`, "ingress-10.244.0.2",
			[]string{"ip saddr 0.0.0.0/0 return"}},
		"one port for all": {`{podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{port: 80}]}]}`, "ingress-10.244.0.2",
			[]string{"ip saddr 0.0.0.0/0 tcp dport 80 return"}},
		"a protocol without a port": {`{podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{protocol: SCTP}]}]}`, "ingress-10.244.0.2",
			[]string{"ip saddr 0.0.0.0/0 meta l4proto sctp return"}},
		"pods of the same namespace": {`{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {}}], ports: [{port: 1, endPort: 9, protocol: UDP}]}]}`,
			"ingress-10.244.0.2", []string{"ip saddr { 10.244.0.2, 10.244.0.3 } udp dport 1-9 return"}},
		"pods of another namespace": {`{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {matchLabels: {kind: bank}}}]}]}`,
			"ingress-10.244.0.2", []string{"ip saddr { 10.244.0.4 } return"}},
		"both selectors": {`{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: store}}}]}]}`,
			"ingress-10.244.0.2", []string{"ip saddr { 10.244.0.3 } return"}},
		"nobody fits": {`{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: none}}}]}]}`,
			"ingress-10.244.0.2", nil},
		"named port of this pod": {`{podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{port: web}]}]}`,
			"ingress-10.244.0.3", []string{"ip saddr 0.0.0.0/0 tcp dport 9090 return"}},
		"name of no port": {`{podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{port: dns}]}]}`, "ingress-10.244.0.3", nil},
		"same name, other protocol": {`{podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{port: web, protocol: UDP}]}]}`,
			"ingress-10.244.0.3", nil},
		"named port of each peer": {`{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: web}]}]}`,
			"egress-10.244.0.2", []string{"ip daddr { 10.244.0.2 } tcp dport 8080 return", "ip daddr { 10.244.0.3 } tcp dport 9090 return"}},
		"named port of anyone": {`{podSelector: {matchLabels: {app: till}}, policyTypes: [Egress], egress: [{ports: [{port: web}]}]}`,
			"egress-10.244.0.2", []string{"ip daddr { 10.244.0.2 } tcp dport 8080 return", "ip daddr { 10.244.0.3 } tcp dport 9090 return",
				"ip daddr { 10.244.0.4 } tcp dport 7070 return"}},
		"blocks": {`{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.2.0.0/16]}}, {ipBlock: {cidr: "fd00::/8"}}], ports: [{port: 443}]}]}`,
			"egress-10.244.0.2", []string{"ip daddr 10.0.0.0/8 ip daddr != { 10.1.0.0/16, 10.2.0.0/16 } tcp dport 443 return"}},
		"only a block of another kind": {`{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: "::/0"}}]}]}`, "egress-10.244.0.2", nil},
		"two policies add up": {`{podSelector: {}, policyTypes: [Ingress]}
---
{podSelector: {matchLabels: {app: till}}, policyTypes: [Ingress], ingress: [{ports: [{port: 80}, {port: 443}]}]}`, "ingress-10.244.0.2",
			[]string{"ip saddr 0.0.0.0/0 tcp dport 443 return", "ip saddr 0.0.0.0/0 tcp dport 80 return"}},
	} {
		t.Run(name, func(t *testing.T) {
			table, err := street(t, tt.policies).render()
			if err != nil {
				t.Fatal(err)
			}
			got, ok := chain(table, tt.chain)
			if !ok || !slices.Equal(got, tt.want) {
				t.Errorf("%s lets pass %q, want %q in\n%s", tt.chain, got, tt.want, table)
			}
			wantAccepted(t, table)
		})
	}
}

// What no policy selects, has no address of its own or has ended gets no chain.
func TestRenderSelects(t *testing.T) {
	table, err := street(t, `{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [till]}]}, policyTypes: [Ingress]}`).render()
	if err != nil {
		t.Fatal(err)
	}
	if got := regexp.MustCompile(`chain \S+`).FindAllString(table, -1); !slices.Equal(got, []string{"chain ingress-10.244.0.3", "chain forward", "chain input"}) {
		t.Errorf("chains: %q", got)
	}
	if strings.Count(table, "vmap") != 1 || !strings.Contains(table, "ip daddr vmap { 10.244.0.3 : jump ingress-10.244.0.3 }") {
		t.Errorf("jumps:\n%s", table)
	}
}

func TestRenderRefusesABadSelector(t *testing.T) {
	_, err := street(t, `{podSelector: {matchExpressions: [{key: app, operator: Near}]}, policyTypes: [Ingress]}`).render()
	if err == nil || !strings.HasPrefix(err.Error(), "policy shop/policy: ") {
		t.Errorf("render = %v", err)
	}
}

// wantAccepted lets nft check a table, in a network namespace of its own.
func wantAccepted(t *testing.T, table string) {
	t.Helper()
	if _, err := exec.LookPath("nft"); err != nil || os.Getuid() != 0 {
		const reason = "not checked by the kernel: no nft, or not root"
		if os.Getenv("KUBEGUARDIAN_REQUIRE") == "all" {
			t.Fatal(reason)
		}
		t.Skip(reason)
	}
	cmd := exec.Command("unshare", "--net", "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(table)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("nft: %v\n%s\nin\n%s", err, out, table)
	}
}
