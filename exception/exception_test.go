package exception

import (
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/finding"
)

var now = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// resolver knows two families and the labels of one object.
var resolver = Resolver{
	Covers:   func(name, control string) bool { return name == control || name == "paths" && control == "CON-SEC-13" },
	Critical: func(name string) bool { return name == "CON-SEC-01" },
	Labels: func(s finding.Subject) map[string]string {
		if s.Name == "agent" {
			return map[string]string{"app": "agent"}
		}
		return nil
	},
	Now: now,
}

func failure(control, containers string) finding.Finding {
	return finding.Finding{
		Definition: &finding.Definition{Control: control},
		Detail:     &finding.Detail{},
		Status:     finding.Fail, Subject: &finding.Subject{
			Kind: "DaemonSet", Namespace: "logging", Name: "agent", Container: containers, Source: "deploy/agent.yaml:3",
		},
	}
}

// read makes exceptions of the text of their specs.
func read(t *testing.T, specs ...string) []Exception {
	t.Helper()
	var docs []string
	for _, spec := range specs {
		for key, usual := range map[string]string{"created": "2026-11-01", "expires": "2026-12-01", "approvedBy": "[a]"} {
			if !strings.Contains(spec, key+":") {
				spec += ", " + key + ": " + usual
			}
		}
		docs = append(docs, "apiVersion: kubeguardian.dev/v1alpha1\nkind: SecurityException\nmetadata: {name: x}\nspec: {owner: o, reason: r, "+spec+"}\n")
	}
	out, err := Read("f.yaml", []byte(strings.Join(docs, "---\n")))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestResolve(t *testing.T) {
	const named = "controls: [CON-SEC-13], scope: {namespace: logging, name: 'agent*'"
	tests := []struct {
		name    string
		failure finding.Finding
		specs   []string
		want    finding.Status
		problem string // of the first exception
	}{
		{"named", failure("CON-SEC-13", ""), []string{named + "}"}, finding.Excepted, ""},
		{"family", failure("CON-SEC-13", ""), []string{"controls: [paths], scope: {name: agent}"}, finding.Excepted, ""},
		{"labels", failure("CON-SEC-13", ""), []string{"controls: [paths], scope: {labels: {app: agent}}"}, finding.Excepted, ""},
		{"file", failure("CON-SEC-13", ""), []string{"controls: [paths], scope: {file: 'deploy/*.yaml'}"}, finding.Excepted, ""},
		{"container", failure("CON-SEC-13", "a"), []string{named + ", container: a}"}, finding.Excepted, ""},
		{"each container by another", failure("CON-SEC-13", "a,b"), []string{named + ", container: a}", named + ", container: b}"}, finding.Excepted, ""},
		{"other container too", failure("CON-SEC-13", "a,b"), []string{named + ", container: a}"}, finding.Fail, "CON-SEC-13 DaemonSet/logging/agent: containers b fail too"},
		{"other container", failure("CON-SEC-13", "b"), []string{named + ", container: a}"}, finding.Fail, `container is "b", not "a"`},
		{"other name", failure("CON-SEC-13", ""), []string{"controls: [CON-SEC-13], scope: {name: agents}"}, finding.Fail, `CON-SEC-13 DaemonSet/logging/agent: name is "agent", not "agents"`},
		{"other kind", failure("CON-SEC-13", ""), []string{named + ", kind: Pod}"}, finding.Fail, `kind is "DaemonSet", not "Pod"`},
		{"other label", failure("CON-SEC-13", ""), []string{"controls: [paths], scope: {labels: {app: web}}"}, finding.Fail, `label app is "agent", not "web"`},
		{"other file", failure("CON-SEC-13", ""), []string{"controls: [paths], scope: {file: '*.yaml'}"}, finding.Fail, `file is "deploy/agent.yaml"`},
		{"other control", failure("CON-SEC-02", ""), []string{named + "}"}, finding.Fail, "accepts nothing; nearest: no failure of CON-SEC-13"},
		{"expired", failure("CON-SEC-13", ""), []string{named + "}, expires: 2026-11-24"}, finding.Fail, "expired on 2026-11-24"},
		{"dated tomorrow", failure("CON-SEC-13", ""), []string{strings.Replace(named, "controls:", "created: 2026-11-27, controls:", 1) + "}"}, finding.Excepted, ""},
		{"dated the day after", failure("CON-SEC-13", ""), []string{strings.Replace(named, "controls:", "created: 2026-11-28, controls:", 1) + "}"}, finding.Fail, "in the future"},
		{"last day", failure("CON-SEC-13", ""), []string{named + "}, expires: 2026-11-26"}, finding.Excepted, ""},
		{"critical without second approver", failure("CON-SEC-01", ""), []string{"controls: [CON-SEC-01], scope: {name: agent}"}, finding.Fail, "needs 2 approvers"},
		{"critical, approved twice", failure("CON-SEC-01", ""), []string{"controls: [CON-SEC-01], scope: {name: agent}, approvedBy: [a, b]"}, finding.Excepted, ""},
		{"same approver twice", failure("CON-SEC-01", ""), []string{"controls: [CON-SEC-01], scope: {name: agent}, approvedBy: [a, a, o]"}, finding.Fail, "needs 2 approvers other than its owner, has 1"},
		{"everything", failure("CON-SEC-13", ""), []string{"controls: [CON-SEC-13]"}, finding.Fail, "needs 2 approvers"},
		{"everything for long", failure("CON-SEC-13", ""), []string{"controls: [CON-SEC-13], approvedBy: [a, b], expires: 2027-03-01"}, finding.Fail, "runs for more than 90 days"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			found, outcomes := resolver.Resolve(read(t, tt.specs...), []finding.Finding{tt.failure})
			if found[0].Status != tt.want {
				t.Errorf("%s: %+v", found[0].Status, outcomes)
			}
			if have := outcomes[0].Problem; (have == "") != (tt.problem == "") || !strings.Contains(have, tt.problem) {
				t.Errorf("problem %q, want %q", have, tt.problem)
			}
			again, repeated := resolver.Resolve(read(t, tt.specs...), found)
			if again[0].Status != tt.want || repeated[0] != outcomes[0] {
				t.Errorf("a second time: %s, %+v", again[0].Status, repeated)
			}
		})
	}
}

// bound is a failure of a binding that is about some of its subjects.
func bound(grantees ...finding.Grantee) finding.Finding {
	return finding.Finding{Definition: &finding.Definition{Control: "CLU-RBA-15"}, Detail: &finding.Detail{Grantees: grantees}, Status: finding.Fail, Subject: &finding.Subject{
		Kind: "ClusterRoleBinding", Name: "view", Source: "deploy/access.yaml:9",
	}}
}

func TestResolveSubjectOfBinding(t *testing.T) {
	account, group := finding.Grantee{Kind: "ServiceAccount", Namespace: "ci", Name: "runner"}, finding.Grantee{Kind: "Group", Name: "devs"}
	const head, ci, devs = "controls: [CLU-RBA-15], scope: {name: view", ", subject: {kind: ServiceAccount, namespace: ci, name: 'run*'}}", ", subject: {kind: Group, name: devs}}"
	tests := []struct {
		name    string
		failure finding.Finding
		specs   []string
		want    finding.Status
		problem string // of the first exception
	}{
		{"it", bound(account), []string{head + ci}, finding.Excepted, ""},
		{"it, in any binding", bound(account), []string{"controls: [CLU-RBA-15], scope: {subject: {kind: ServiceAccount, namespace: ci, name: runner}}"}, finding.Excepted, ""},
		{"without a subject the whole binding", bound(account, group), []string{head + "}"}, finding.Excepted, ""},
		{"another fails too", bound(account, group), []string{head + ci}, finding.Fail, "CLU-RBA-15 ClusterRoleBinding/view: subjects Group/devs fail too"},
		{"each by its own", bound(account, group), []string{head + ci, head + devs}, finding.Excepted, ""},
		{"each by its own, twice", bound(account, group), []string{head + ci, head + devs, head + ci}, finding.Excepted, ""},
		{"another kind", bound(group), []string{head + ", subject: {kind: User, name: devs}}"}, finding.Fail, `subject Group/devs: kind is "Group", not "User"`},
		{"another namespace", bound(account), []string{head + ", subject: {namespace: cd, name: runner}}"}, finding.Fail, `subject ServiceAccount/ci/runner: namespace is "ci", not "cd"`},
		{"the nearest of two", bound(group, account), []string{head + ", subject: {kind: ServiceAccount, namespace: ci, name: bot}}"}, finding.Fail, `subject ServiceAccount/ci/runner: name is "runner", not "bot"`},
		{"an account is no user", bound(account), []string{head + ", subject: {kind: User, name: runner}}"}, finding.Fail, `kind is "ServiceAccount", not "User"`},
		{"another binding", bound(account), []string{strings.Replace(head, "view", "edit", 1) + ci}, finding.Fail, `name is "view", not "edit"`},
		{"a failure of no subject", bound(), []string{head + ci}, finding.Fail, "CLU-RBA-15 ClusterRoleBinding/view: it is about no subject of a binding"},
		{"a container too", bound(account), []string{strings.Replace(head, "name: view", "container: a", 1) + ci}, finding.Fail, `it is about no container, not "a"`},
		{"any group of any binding", bound(group), []string{"controls: [CLU-RBA-15], scope: {subject: {kind: Group}}"}, finding.Fail, "needs 2 approvers"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			found, outcomes := resolver.Resolve(read(t, tt.specs...), []finding.Finding{tt.failure})
			if have := outcomes[0].Problem; found[0].Status != tt.want || (have == "") != (tt.problem == "") || !strings.Contains(have, tt.problem) {
				t.Errorf("%s, problem %q, want %s, %q", found[0].Status, have, tt.want, tt.problem)
			}
			again, repeated := resolver.Resolve(read(t, tt.specs...), found)
			if again[0].Status != tt.want || repeated[0] != outcomes[0] {
				t.Errorf("a second time: %s, %+v", again[0].Status, repeated)
			}
		})
	}
}

func TestPassIsLeftAlone(t *testing.T) {
	f := failure("CON-SEC-13", "")
	f.Status = finding.Unknown
	found, outcomes := resolver.Resolve(read(t, "controls: [CON-SEC-13], scope: {name: agent}"), []finding.Finding{f})
	if found[0].Status != finding.Unknown || outcomes[0].Problem != "accepts nothing: nothing fails" {
		t.Errorf("%s, %+v", found[0].Status, outcomes)
	}
}

func TestReadBadInput(t *testing.T) {
	const head = "apiVersion: kubeguardian.dev/v1alpha1\nkind: SecurityException\nmetadata: {name: x}\n"
	for text, want := range map[string]string{
		"":                            "f: no exceptions",
		"# nothing\n":                 "f: no exceptions",
		"a: b":                        "f:1: unknown key a",
		"kind: SecurityException":     "f:1: want apiVersion",
		head:                          "f:1: spec.controls names no control",
		head + "spec: {until: 1}":     "f:4: unknown key until",
		head + "spec: {expires: 1.1}": "f:4: ",
		head + "spec: {controls: [A], scope: {subject: {nmae: a}}}":                                                   "f:4: unknown key nmae",
		head + "spec: {controls: [A], scope: {subject: {name: '['}}}":                                                 "f:1: scope \"[\": syntax error in pattern",
		head + "spec: {controls: [A], scope: {name: '['}}":                                                            "f:1: scope \"[\": syntax error in pattern",
		strings.Replace(head, "name: x", "namespace: a", 1) + "spec: {controls: [A]}":                                 "f:1: metadata.name is missing",
		strings.Replace(head, "name: x", "name: x, namespace: a", 1) + "spec: {controls: [A], scope: {namespace: b}}": "f:1: spec.scope.namespace",
	} {
		if _, err := Read("f", []byte(text)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("apiVersion: kubeguardian.dev/v1alpha1\nkind: SecurityException\nmetadata: {name: x}\nspec: {controls: [A], expires: 2026-12-01}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		exceptions, err := Read("f", data)
		if err != nil {
			return
		}
		found, _ := resolver.Resolve(exceptions, []finding.Finding{failure("CON-SEC-13", "a,b")})
		if s := found[0].Status; s != finding.Fail && s != finding.Excepted {
			t.Errorf("a failure became %s", s)
		}
	})
}
