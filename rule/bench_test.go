package rule_test

import (
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
)

// request is a record like that of a source: values at hand, no allocation.
type request struct {
	stage, verb, resource, subresource, namespace, name, user, code, uri string
	image                                                                []string
	privileged                                                           []string
	body                                                                 string
}

func (r *request) Value(ref event.Ref) event.Value {
	text := func(s string) event.Value {
		if s == "" {
			return event.Value{}
		}
		return event.Text(s)
	}
	switch ref.Name {
	case "ka.stage":
		return text(r.stage)
	case "jevt.value":
		if len(ref.Pointer) == 1 {
			return text(r.stage)
		}
		return event.Value{}
	case "ka.verb":
		return text(r.verb)
	case "ka.target.resource":
		return text(r.resource)
	case "ka.target.subresource":
		return text(r.subresource)
	case "ka.target.namespace":
		return text(r.namespace)
	case "ka.target.name":
		return text(r.name)
	case "ka.user.name":
		return text(r.user)
	case "ka.response.code":
		return text(r.code)
	case "ka.uri":
		return text(r.uri)
	case "ka.req.pod.containers.image.repository":
		return event.List(r.image)
	case "ka.req.pod.containers.privileged":
		return event.List(r.privileged)
	case "ka.req.configmap.obj":
		return text(r.body)
	}
	return event.Value{}
}

func (r *request) Subject() event.Subject { return event.Subject{} }

// someRules returns n rules of twelve shapes. Those of one shape watch different
// resources, names or texts, as the rules of several teams do.
func someRules(n int) string {
	var b strings.Builder
	b.WriteString(`
- list: system_users
  items: ["system:apiserver", "system:kube-scheduler", "system:kube-controller-manager", "system:addon-manager"]
- macro: complete
  condition: jevt.value[/stage] = ResponseComplete
- macro: allowed
  condition: ka.response.code startswith "2"
- macro: by_people
  condition: not ka.user.name in (system_users) and not ka.user.name startswith "system:node:"
- macro: writes
  condition: ka.verb in (create, update, patch)
- macro: removes
  condition: ka.verb in (delete, deletecollection)
`)
	resources := []string{"pods", "secrets", "configmaps", "roles", "rolebindings", "clusterroles", "services", "ingresses", "jobs", "deployments", "nodes", "leases"}
	for i := range n {
		team, resource := fmt.Sprintf("team-%d", i/12), resources[i/12%len(resources)]
		condition := []string{
			"complete and by_people and removes and ka.target.resource = " + resource + " and ka.target.namespace = " + team,
			"complete and by_people and writes and allowed and ka.target.resource = " + resource + " and ka.target.name startswith " + team,
			"complete and ka.target.resource = pods and ka.target.subresource in (exec, attach) and ka.target.namespace = " + team + " and by_people",
			"complete and ka.target.resource = pods and ka.verb = create and ka.req.pod.containers.privileged intersects (true) and ka.target.namespace = " + team,
			"complete and ka.target.resource = pods and ka.verb = create and not ka.req.pod.containers.image.repository in (registry/" + team + ", registry/base)",
			"complete and ka.target.resource = configmaps and writes and ka.req.configmap.obj contains \"" + team + "_password\"",
			"complete and ka.target.resource = configmaps and writes and ka.req.configmap.obj icontains \"" + team + "-token\"",
			"complete and by_people and allowed and ka.verb = list and ka.target.resource = secrets and ka.target.namespace != " + team,
			"complete and ka.user.name = \"system:serviceaccount:" + team + ":default\" and ka.verb in (get, list) and ka.target.resource in (secrets, configmaps)",
			"complete and ka.user.name endswith \"@" + team + ".example.com\" and removes",
			"complete and ka.uri startswith /api/v1/namespaces/" + team + "/services/ and ka.target.subresource = proxy",
			"complete and by_people and writes and ka.target.resource in (validatingwebhookconfigurations, mutatingwebhookconfigurations) and ka.target.name = " + team,
		}[i%12]
		fmt.Fprintf(&b, "- rule: R%d\n  desc: d\n  source: k8s_audit\n  condition: %q\n  output: \"%%ka.user.name %%ka.verb\"\n  priority: info\n", i, condition)
	}
	return b.String()
}

// traffic is what an API server mostly serves, and raises no alert.
func traffic() []*event.Event {
	kinds := []request{
		{verb: "get", resource: "leases", namespace: "kube-system", name: "controller", user: "system:kube-controller-manager", code: "200"},
		{verb: "update", resource: "leases", namespace: "kube-node-lease", name: "node-1", user: "system:node:node-1", code: "200"},
		{verb: "watch", resource: "pods", user: "system:kube-scheduler", code: "200"},
		{verb: "list", resource: "configmaps", namespace: "shop", user: "ann", code: "200"},
		{verb: "get", resource: "secrets", namespace: "shop", name: "db", user: "system:serviceaccount:shop:web", code: "200"},
		{verb: "patch", resource: "nodes", subresource: "status", name: "node-1", user: "system:node:node-1", code: "200"},
		{verb: "create", resource: "events", namespace: "shop", user: "system:kube-scheduler", code: "201"},
		{verb: "create", resource: "pods", namespace: "shop", name: "web-1", user: "system:serviceaccount:kube-system:replicaset-controller", code: "201", image: []string{"registry/base"}},
		{verb: "update", resource: "configmaps", namespace: "shop", name: "settings", user: "ann", code: "200", body: strings.Repeat(`{"colour":"green","size":"12"}`, 30)},
		{verb: "get", resource: "pods", namespace: "shop", name: "web-1", user: "ann", code: "200"},
	}
	var events []*event.Event
	for i := range kinds {
		r := &kinds[i]
		r.stage, r.uri = "ResponseComplete", "/api/v1/namespaces/"+r.namespace+"/"+r.resource
		events = append(events, &event.Event{Source: event.K8sAudit, ID: "x", Time: when, Record: r})
	}
	return events
}

func loadSome(b testing.TB, n int) *rule.Set {
	set, err := rule.Load(rule.File{Name: "f.yaml", Data: []byte(someRules(n))})
	if err != nil {
		b.Fatal(err)
	}
	return set
}

// BenchmarkMatch is the cost of one event that no rule matches.
func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{48, 480} {
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			set, events := loadSome(b, n), traffic()
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				if got := set.Match(events[i%len(events)], rule.First); got != nil {
					b.Fatalf("alerts %v", got)
				}
			}
		})
	}
}

// BenchmarkGrowth prints by how much an event costs more processor time with ten
// times the rules.
func BenchmarkGrowth(b *testing.B) {
	few, many, events := loadSome(b, 48), loadSome(b, 480), traffic()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var spent [2]time.Duration
	b.ResetTimer()
	for range b.N {
		for i, set := range []*rule.Set{few, many} {
			begin := processorTime(b)
			for range 1000 {
				for _, e := range events {
					set.Match(e, rule.First)
				}
			}
			spent[i] += processorTime(b) - begin
		}
	}
	b.ReportMetric(float64(spent[0])/float64(b.N*1000*len(events)), "ns/event-48")
	b.ReportMetric(float64(spent[1])/float64(b.N*1000*len(events)), "ns/event-480")
	b.ReportMetric(float64(spent[1])/float64(spent[0]), "times-the-cost")
}

// processorTime returns what this thread has used.
func processorTime(b *testing.B) time.Duration {
	const thread = 1 // RUSAGE_THREAD
	var usage syscall.Rusage
	if err := syscall.Getrusage(thread, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// Events that raise no alert cost no memory.
func TestMatchDoesNotAllocate(t *testing.T) {
	set := loadSome(t, 480)
	for _, e := range traffic() {
		// The race detector makes pools forget at random; then some runs are free.
		least := 100.0
		for range 20 {
			least = min(least, testing.AllocsPerRun(1, func() { set.Match(e, rule.First) }))
		}
		if least > 0 {
			t.Errorf("%v allocations for %+v", least, e.Record)
		}
	}
}

func TestSomeRulesMatch(t *testing.T) {
	set := loadSome(t, 480)
	r := &request{stage: "ResponseComplete", verb: "delete", resource: "pods", namespace: "team-0", name: "x", user: "eve", code: "200", uri: "/"}
	e := &event.Event{Source: event.K8sAudit, ID: "x", Time: when, Record: r}
	if got := set.Match(e, rule.All); len(got) != 1 || got[0].Rule != "R0" {
		t.Errorf("alerts %v, want one of R0", got)
	}
	r.user = "eve@team-3.example.com"
	if got := set.Match(e, rule.All); len(got) != 2 || got[1].Rule != "R45" {
		t.Errorf("alerts %v, want R0 and R45", got)
	}
}
