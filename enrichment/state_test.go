package enrichment_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/enrichment"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/k8saudit"
)

// written is a request that writes an object, and what became of it.
func written(user, verb, resource, kind, name, uid, owner string, generation int) string {
	return fmt.Sprintf(`"verb":%q,"user":{"username":%q},"objectRef":{"resource":%q,"namespace":"shop","name":%q},"responseStatus":{"code":200},
		"responseObject":{"kind":%q,"metadata":{"uid":%q,"name":%q,"namespace":"shop","generation":%d,"ownerReferences":[{"uid":%q,"controller":true}]}}`,
		verb, user, resource, name, kind, uid, name, generation, owner)
}

const (
	deployer  = "system:serviceaccount:kube-system:deployment-controller"
	replicas  = "system:serviceaccount:kube-system:replicaset-controller"
	execOnPod = `"verb":"create","user":{"username":"eve"},"objectRef":{"resource":"pods","subresource":"exec","namespace":"shop","name":"web-1-a"},"responseStatus":{"code":101}`
)

// rollout is what becomes of a deployment of alice that bob changes.
func rollout() []string {
	return []string{
		written("alice", "create", "deployments", "Deployment", "web", "d", "", 1),
		written(deployer, "update", "deployments", "Deployment", "web", "d", "", 1),
		written(deployer, "create", "replicasets", "ReplicaSet", "web-1", "r", "d", 1),
		written(replicas, "create", "pods", "Pod", "web-1-a", "p", "r", 1),
	}
}

func TestAttribution(t *testing.T) {
	en := enrichment.New()
	for _, e := range rollout() {
		read(t, en, e)
	}
	e := read(t, en, execOnPod)
	alerts := en.Attribute(e, make([]alert.Alert, 1))
	a := alerts[0].Attribution
	if a == nil || a.Kind != "Deployment" || a.Name != "web" || a.Namespace != "shop" || a.Writer.User != "alice" || a.Writer.AuditID != "1" || a.Writer.Time.IsZero() {
		t.Fatalf("attribution %+v", a)
	}
	if chain := strings.Join(a.Chain, " "); chain != "Pod/web-1-a ReplicaSet/web-1 Deployment/web" {
		t.Errorf("chain %s", chain)
	}
	for field, want := range map[string]string{"kg.owner.kind": "Deployment", "kg.owner.name": "web", "kg.owner.writer": "alice", "kg.owner.auditid": "1"} {
		if got := value(e, field).String(); got != want {
			t.Errorf("%s = %s, want %s", field, got, want)
		}
	}

	read(t, en, written("bob", "patch", "deployments", "Deployment", "web", "d", "", 2))
	if got := value(read(t, en, execOnPod), "kg.owner.writer").String(); got != "bob" {
		t.Errorf("after a change the writer is %s, want bob", got)
	}
	if got := value(read(t, en, strings.Replace(execOnPod, "web-1-a", "other", 1)), "kg.owner.writer"); !got.Missing() {
		t.Errorf("an unknown pod belongs to %s", got)
	}
}

func TestInvolve(t *testing.T) {
	en := enrichment.New()
	for _, e := range rollout() {
		read(t, en, e)
	}
	for name, want := range map[string]string{"web-1-a": "[node:n1 workload:Deployment/shop/web]", "other": "[node:n1]"} {
		a := alert.Alert{
			Subject:  finding.Subject{Kind: "Pod", Namespace: "shop", Name: name},
			Entities: []alert.Entity{{Kind: alert.Node, Name: "n1"}},
		}
		if en.Involve(&a); fmt.Sprint(a.Entities) != want {
			t.Errorf("%s involves %v, want %s", name, a.Entities, want)
		}
	}
}

// The memory of an event is used again for the ones after it.
func TestWhatIsRememberedOutlivesItsEvent(t *testing.T) {
	en, log := enrichment.New(), strings.Builder{}
	add := func(i int, text string) {
		fmt.Fprintf(&log, `{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"%d","stage":"ResponseComplete","stageTimestamp":"2026-11-20T10:00:00Z",%s}`+"\n", i, strings.Join(strings.Fields(text), " "))
	}
	for i, text := range append(rollout(), tokenFrom("10.0.0.1", "JTI=1")) {
		add(i, text)
	}
	for i := range 200 {
		add(100+i, written("zzzzzzzz", "create", "deployments", "Zzzzzzzzzz", fmt.Sprintf("z-%d", i), fmt.Sprintf("z%d", i), "zz", 7))
	}
	add(300, execOnPod)
	add(301, tokenFrom("203.0.113.9", "JTI=1"))
	var chain, before string
	_, err := k8saudit.Decode(strings.NewReader(log.String()), func(e *event.Event) error {
		en.Enrich(e)
		if a := en.Attribute(e, make([]alert.Alert, 1))[0].Attribution; a != nil {
			chain = a.Writer.User + " " + strings.Join(a.Chain, " ")
		}
		before = value(e, "kg.token.before").String()
		return nil
	})
	if want := "alice Pod/web-1-a ReplicaSet/web-1 Deployment/web"; err != nil || chain != want || before != "10.0.0.1" {
		t.Errorf("chain %q, want %q; before %q; %v", chain, want, before, err)
	}
}

func TestWhatDidNotHappenIsNoAttribution(t *testing.T) {
	for name, change := range map[string][2]string{
		"refused": {`"code":200`, `"code":403`}, "read": {`"verb":"create"`, `"verb":"get"`},
		"dry run":  {`"verb":"create"`, `"requestURI":"/x?dryRun=All","verb":"create"`},
		"no body":  {`"responseObject"`, `"other"`},
		"no owner": {`"uid":"d"`, `"uid":""`},
	} {
		t.Run(name, func(t *testing.T) {
			en := enrichment.New()
			read(t, en, strings.Replace(written("alice", "create", "deployments", "Deployment", "web", "d", "", 1), change[0], change[1], 1))
			e := read(t, en, written("bob", "delete", "deployments", "Deployment", "web", "d", "", 1))
			if got := value(e, "kg.owner.writer"); !got.Missing() {
				t.Errorf("the writer is %s", got)
			}
		})
	}
}

// A circle of owners, which only a forger can make, comes to an end.
func TestOwnersInACircle(t *testing.T) {
	en := enrichment.New()
	read(t, en, written("eve", "create", "replicasets", "ReplicaSet", "a", "a", "b", 1))
	e := read(t, en, written("eve", "create", "replicasets", "ReplicaSet", "b", "b", "a", 1))
	if a := en.Attribute(e, make([]alert.Alert, 1))[0].Attribution; a == nil || len(a.Chain) > 8 {
		t.Errorf("%+v", a)
	}
}

func tokenFrom(address, id string) string {
	return fmt.Sprintf(`"verb":"list","user":{"username":"system:serviceaccount:shop:web","extra":{"authentication.kubernetes.io/credential-id":[%q],
		"authentication.kubernetes.io/pod-name":["web-0"],"authentication.kubernetes.io/pod-uid":["p"]}},"sourceIPs":[%q]`, id, address)
}

// A batch that the server could not store comes again: its events say the same.
func TestAnEventThatComesAgainSaysTheSame(t *testing.T) {
	en := enrichment.New()
	read(t, en, tokenFrom("10.0.0.1", "JTI=1"))
	stolen := strings.Replace(tokenFrom("203.0.113.9", "JTI=1"), `"verb":"list"`, `"verb":"get"`, 1)
	for range 3 {
		if got := value(read(t, en, stolen), "kg.token.before").String(); got != "10.0.0.1" {
			t.Errorf("before = %s", got)
		}
	}
	if got := value(read(t, en, tokenFrom("203.0.113.9", "JTI=1")), "kg.token.before"); !got.Missing() {
		t.Errorf("another event from there says %s again", got)
	}
}

// However many tokens and addresses a client makes up, the rest goes on.
func TestEnricherIsSafeForConcurrentUse(t *testing.T) {
	en := enrichment.New()
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			for i := range 200 {
				e := read(t, en, tokenFrom(fmt.Sprintf("10.0.%d.%d", worker, i), fmt.Sprintf("JTI=%d", i%7)))
				for _, f := range event.Fields(event.K8sAudit) {
					value(e, f.Name)
				}
			}
		})
	}
	group.Wait()
}
