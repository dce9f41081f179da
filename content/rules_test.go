package content_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/apis/audit"
	auditapi "k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/audit/policy"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
	"github.com/kubeguardian/kubeguardian/ruletest"
)

const ruleTests = "rules/testdata"

// builtinRules loads all built-in rules, and returns those of one source.
func builtinRules(t *testing.T, source string) []rule.Rule {
	t.Helper()
	files, err := content.Read[rule.File](content.Rules())
	if err != nil {
		t.Fatal(err)
	}
	set, err := rule.Load(files...)
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Warnings()) > 0 {
		t.Errorf("warnings %v", set.Warnings())
	}
	return slices.DeleteFunc(set.Rules(), func(r rule.Rule) bool { return r.Source != source })
}

// ruleResults runs the tests of the rules of a source. In optional.yaml are the
// only ones that the audit policy as it is does not feed.
func ruleResults(t *testing.T, source string) []ruletest.Result {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(ruleTests, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	var all []ruletest.Result
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := ruletest.Read(name, data)
		if err != nil {
			t.Fatal(err)
		}
		if cmp.Or(f.Source, event.K8sAudit) != source {
			continue
		}
		if optional := strings.HasSuffix(name, "/optional.yaml"); source == event.K8sAudit && optional != (f.AuditPolicy == "") {
			t.Errorf("%s: audit policy %q", name, f.AuditPolicy)
		}
		results, err := f.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, results...)
	}
	return all
}

// Each rule has an event that must alert and a similar one that must not, both as
// the API server records them with the audit policy next to the rules. Recorded
// events come from a Kubernetes 1.37 API server, some with another user, verb,
// status, path or patch put in.
func TestRules(t *testing.T) {
	for source, least := range map[string]int{event.K8sAudit: 100, event.Syscall: 110} {
		alerts, quiet := map[string]int{}, map[string]int{}
		for _, r := range ruleResults(t, source) {
			if r.Err != nil {
				t.Errorf("%s: %v", r.Name, r.Err)
			}
			if r.Alert {
				alerts[r.Rule]++
			} else {
				quiet[r.Rule]++
			}
		}
		for _, r := range builtinRules(t, source) {
			if alerts[r.Name] == 0 || quiet[r.Name] == 0 {
				t.Errorf("rule %q has %d cases that alert and %d that do not", r.Name, alerts[r.Name], quiet[r.Name])
			}
		}
		if n := len(alerts); n < least {
			t.Errorf("%d rules for %s", n, source)
		}
	}
}

// What goes on in ordinary containers and on an ordinary node raises nothing: there
// are enough cases that no rule may match.
func TestOrdinaryEventsAreQuiet(t *testing.T) {
	n := 0
	for _, r := range ruleResults(t, event.Syscall) {
		if r.Rule == "" {
			n++
		}
	}
	if n < 150 { // what they raise is an error of TestRules
		t.Errorf("%d ordinary events", n)
	}
}

// The server and the agent raise the first rule that matches, so that none may
// stand before a more urgent one.
func TestRulesAreInOrderOfPriority(t *testing.T) {
	for _, source := range event.Sources() {
		last := alert.Emergency
		for _, r := range builtinRules(t, source) {
			if r.Priority < last {
				t.Errorf("rule %q is a %s after a %s", r.Name, r.Priority, last)
			}
			last = r.Priority
		}
	}
}

// The agent need not look at every file that is opened to be read, nor at calls as
// frequent as read and write.
func TestSyscallRulesNeedLittle(t *testing.T) {
	files, err := content.Read[rule.File](content.Rules())
	if err != nil {
		t.Fatal(err)
	}
	set, err := rule.Load(files...)
	if err != nil {
		t.Fatal(err)
	}
	n := set.Needs()
	if n.Reads.All() || slices.ContainsFunc(n.Reads.Prefixes, func(p string) bool { return len(p) < len("/home/") || p == "/proc/" }) || !n.FailedReads.None() {
		t.Errorf("reads %q, failed ones %q", n.Reads, n.FailedReads)
	}
	for _, frequent := range []string{"read", "write", "close", "sendto", "recvfrom", "futex", "clone", "access", "newfstatat", "mmap"} {
		if rules := n.Rules[frequent]; len(rules) > 0 {
			t.Errorf("%s is needed by %q", frequent, rules)
		}
	}
}

var technique = regexp.MustCompile(`^T[0-9]{4}(\.[0-9]{3})?$`)

// Each rule says which tactic and technique it is about; one for system calls also
// where it looks, and how well tried it is.
func TestRulesAreTagged(t *testing.T) {
	for _, source := range event.Sources() {
		for _, r := range builtinRules(t, source) {
			tactics := alert.Tactics(r.Tags)
			if len(tactics) != 1 || !slices.ContainsFunc(r.Tags, technique.MatchString) {
				t.Errorf("rule %q: tags %q: want one tactic and a technique", r.Name, r.Tags)
			}
			place := slices.Contains(r.Tags, "container") || slices.Contains(r.Tags, "host")
			maturity := slices.Contains(r.Tags, "maturity_stable") != slices.Contains(r.Tags, "maturity_incubating")
			if audit := slices.Contains(r.Tags, "k8s"); audit != (source == event.K8sAudit) || audit == place || audit == maturity {
				t.Errorf("rule %q: tags %q", r.Name, r.Tags)
			}
		}
	}
}

// What an alert says must answer who did what to what, from where, in which
// request, and name no credential.
func TestAuditAlertsAreComplete(t *testing.T) {
	for _, r := range ruleResults(t, event.K8sAudit) {
		for _, a := range r.Raised {
			for _, field := range []string{"ka.verb", "ka.sourceips", "ka.auditid"} {
				if a.OutputFields[field] == nil {
					t.Errorf("%s: %s is missing", r.Name, field)
				}
			}
			name, _ := a.OutputFields["ka.user.name"].(string)
			if name == "" && a.Rule != "Authentication failed" || !strings.Contains(a.Output, name) {
				t.Errorf("%s: output %q does not name the user %q", r.Name, a.Output, name)
			}
			if text, err := json.Marshal(a); err != nil || bytes.Contains(text, []byte("hunter2")) {
				t.Errorf("%s: alert holds a credential, or %v: %s", r.Name, err, text)
			}
		}
	}
}

// What an alert of the node agent says must answer which process of which pod, and
// who started it.
func TestSyscallAlertsAreComplete(t *testing.T) {
	for _, r := range ruleResults(t, event.Syscall) {
		for _, a := range r.Raised {
			for _, field := range []string{
				"proc.cmdline", "proc.exepath", "proc.pid", "proc.pname", "proc.aname[2]", "proc.aname[3]", "user.name",
				"container.id", "container.image.repository", "k8s.pod.name", "k8s.ns.name",
			} {
				if _, ok := a.OutputFields[field]; !ok {
					t.Errorf("%s: the output lacks %s", r.Name, field)
				}
			}
			pod := a.OutputFields["container.id"] != "host"
			if pod != (a.Subject.Name == "web-0") || pod != strings.Contains(a.Output, "pod=web-0 namespace=shop") || !strings.Contains(a.Output, "user=root") {
				t.Errorf("%s: output %q of %+v", r.Name, a.Output, a.Subject)
			}
		}
	}
}

// Every file of events belongs to a test.
func TestRuleEventsAreUsed(t *testing.T) {
	var tests []byte
	files, err := os.ReadDir(ruleTests)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if strings.HasSuffix(f.Name(), ".yaml") {
			data, err := os.ReadFile(filepath.Join(ruleTests, f.Name()))
			if err != nil {
				t.Fatal(err)
			}
			tests = append(tests, data...)
		}
	}
	for _, f := range files {
		if !f.IsDir() && !strings.HasSuffix(f.Name(), ".yaml") && !bytes.Contains(tests, []byte("file: "+f.Name()+"}")) && !bytes.Contains(tests, []byte("file: "+f.Name()+"\n")) &&
			!bytes.Contains(tests, []byte("file: "+f.Name()+",")) {
			t.Errorf("%s belongs to no test", f.Name())
		}
	}
}

// auditLevel returns how an API server with the audit policy logs a request.
func auditLevel(t *testing.T) func(name, verb, group, resource, subresource, namespace, object string) audit.Level {
	t.Helper()
	p, err := policy.LoadPolicyFromBytes(content.AuditPolicy())
	if err != nil {
		t.Fatal(err)
	}
	var evaluator auditapi.PolicyRuleEvaluator = policy.NewPolicyRuleEvaluator(p)
	return func(name, verb, group, resource, subresource, namespace, object string) audit.Level {
		groups := []string{"system:authenticated"}
		if strings.HasPrefix(name, "system:node:") {
			groups = append(groups, "system:nodes")
		}
		return evaluator.EvaluatePolicyRule(authorizer.AttributesRecord{
			User: &user.DefaultInfo{Name: name, Groups: groups}, Verb: verb, ResourceRequest: true,
			APIGroup: group, Resource: resource, Subresource: subresource, Namespace: namespace, Name: object,
		}).Level
	}
}

// Whoever asks, by whatever verb: the contents of secrets, config maps and tokens
// do not get into the audit log.
func TestAuditPolicyLogsNoSecret(t *testing.T) {
	level := auditLevel(t)
	users := []string{"alice", "system:anonymous", "system:node:a", "system:serviceaccount:shop:web", "system:apiserver", "system:serviceaccount:kubeguardian:kubeguardian"}
	verbs := []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}
	for _, name := range users {
		for _, verb := range verbs {
			for _, namespace := range []string{"shop", "kube-system", "kubeguardian", ""} {
				for _, resource := range []string{"secrets", "configmaps"} {
					if l := level(name, verb, "", resource, "", namespace, "x"); audit.LevelMetadata.Less(l) {
						t.Errorf("%s of %s in %q by %s is logged at %s", verb, resource, namespace, name, l)
					}
				}
				if l := level(name, verb, "", "serviceaccounts", "token", namespace, "x"); audit.LevelRequest.Less(l) {
					t.Errorf("%s of a token by %s is logged at %s", verb, name, l)
				}
			}
			if l := level(name, verb, "authentication.k8s.io", "tokenreviews", "", "", ""); audit.LevelMetadata.Less(l) {
				t.Errorf("%s of a token review by %s is logged at %s", verb, name, l)
			}
		}
	}
}

// What is frequent and of no use to any rule is not logged at all.
func TestAuditPolicyIsQuiet(t *testing.T) {
	level := auditLevel(t)
	for _, r := range [][6]string{
		{"system:kube-scheduler", "update", "coordination.k8s.io", "leases", "", "kube-system"},
		{"system:node:a", "update", "coordination.k8s.io", "leases", "", "kube-node-lease"},
		{"system:node:a", "patch", "", "nodes", "status", ""},
		{"system:node:a", "create", "", "events", "", "shop"},
		{"system:kube-controller-manager", "watch", "apps", "deployments", "", ""},
		{"system:serviceaccount:kube-system:endpointslice-controller", "update", "discovery.k8s.io", "endpointslices", "", "shop"},
	} {
		if l := level(r[0], r[1], r[2], r[3], r[4], r[5], "x"); l != audit.LevelNone {
			t.Errorf("%v is logged at %s", r, l)
		}
	}
}
