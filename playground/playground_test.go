package playground_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/playground"
	"github.com/kubeguardian/kubeguardian/rule"
)

const loaded = `
- list: readers
  items: [get, list]
- macro: reads
  condition: ka.verb in (readers)
`

// TestMain makes the test a program in which policies are tried, as the product is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == playground.ProcessName {
		if err := playground.Process(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// apart returns a playground that tries policies in a process.
func apart(t *testing.T) *playground.Playground {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return playground.New(playground.Options{Program: program})
}

func bench() *playground.Playground {
	return playground.New(playground.Options{Rules: func() ([]rule.File, error) { return []rule.File{{Name: "loaded.yaml", Data: []byte(loaded)}}, nil }})
}

const secretsListed = `{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a-1","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/shop/secrets",
"verb":"list","user":{"username":"ada"},"objectRef":{"resource":"secrets","namespace":"shop","apiVersion":"v1"},"stageTimestamp":"2026-03-01T12:00:00.000000Z","requestReceivedTimestamp":"2026-03-01T12:00:00.000000Z"}`

func stored() *alert.Alert {
	return &alert.Alert{
		Source: "syscall", Hostname: "node-a", Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
		OutputFields: map[string]any{"proc.name": "bash", "proc.aname[2]": "runc", "proc.tty": 34816, "fd.sport": "443", "fd.sip": "192.0.2.7", "user.name": "<NA>"},
	}
}

func TestRule(t *testing.T) {
	const whole = "- rule: Secrets read\n  desc: x\n  condition: reads and ka.target.resource = secrets\n  output: \"%ka.user.name reads\"\n  priority: NOTICE\n  source: k8s_audit\n"
	for _, tt := range []struct {
		name    string
		trial   playground.RuleTrial
		matches bool
		want    []string
	}{
		{"a rule with a macro of the loaded ones", playground.RuleTrial{Rule: whole, Event: secretsListed}, true, []string{"Secrets read", "ada reads", "ka.verb in", "loaded.yaml", "list true true"}},
		{"a condition alone", playground.RuleTrial{Rule: "ka.verb = delete and ka.user.name = ada", Event: secretsListed}, false, []string{"ka.verb = delete", "false true", "playground:3"}},
		{"the event of an alert", playground.RuleTrial{Rule: "proc.name = bash and proc.aname[2] = runc and proc.tty != 0 and fd.sport = 443 and fd.sip = 192.0.2.7 and not user.name exists", Alert: stored()}, true, []string{"<NA>", "what they do not tell"}},
		{"a rule of another source", playground.RuleTrial{Rule: whole, Alert: stored()}, false, []string{"for events of source k8s_audit"}},
		{"a disabled rule", playground.RuleTrial{Rule: whole + "  enabled: false\n", Event: secretsListed}, true, []string{"disabled"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			have, err := bench().Rule(t.Context(), "one", tt.trial)
			if err != nil || have.Matches != tt.matches {
				t.Fatalf("%+v, %v", have, err)
			}
			text := fmt.Sprintf("%+v", have)
			for _, s := range have.Steps {
				text += fmt.Sprintf("\n%s %s %v %v %s", s.Text, strings.Trim(s.Value, `"`), s.Result, s.Decided, s.Place)
			}
			for _, want := range tt.want {
				if !strings.Contains(text, want) {
					t.Errorf("%q is missing in %s", want, text)
				}
			}
		})
	}
}

func TestBadRules(t *testing.T) {
	for _, tt := range []struct {
		rule, event, want string
	}{
		{"", secretsListed, "the rule is empty"},
		{"ka.verbs = get", secretsListed, "ka.verbs"},
		{"- list: x\n  items: [a]\n", secretsListed, "defines no rule"},
		{"ka.verb = get", "", "there is no event"},
		{"ka.verb = get", "{", "read the event"},
		{"ka.verb = get", `{"kind":"Pod"}`, "read the event"},
		{"- rule: [", secretsListed, "playground"},
		{strings.Repeat("x", playground.MaxText+1), secretsListed, "bytes"},
	} {
		_, err := bench().Rule(t.Context(), "one", playground.RuleTrial{Rule: tt.rule, Event: tt.event})
		var wrong *playground.InputError
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.40q: %v, want %q", tt.rule, err, tt.want)
		}
	}
	if _, err := bench().Rule(t.Context(), "one", playground.RuleTrial{Rule: "proc.name = x", Source: "syscall", Event: "{"}); err == nil || !strings.Contains(err.Error(), "read the event") {
		t.Errorf("a system call that is none: %v", err)
	}
}

const pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop}\nspec: {containers: [{name: web, image: web, securityContext: {privileged: true}}]}\n"

const native = `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: unprivileged}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]}
  validations:
    - expression: "object.spec.containers.all(c, !c.?securityContext.?privileged.orValue(false))"
      message: a container is privileged
`

const template = `
apiVersion: templates.gatekeeper.sh/v1
kind: ConstraintTemplate
metadata: {name: k8snopods}
spec:
  crd: {spec: {names: {kind: K8sNoPods}}}
  targets:
    - target: admission.k8s.gatekeeper.sh
      rego: |
        package k8snopods
        violation[{"msg": "no pods"}] { input.review.kind.kind == "Pod" }
`

func TestPolicy(t *testing.T) {
	for name, tt := range map[string]struct{ policy, object, want string }{
		"native":            {native, pod, "a container is privileged"},
		"native, allowed":   {native, strings.Replace(pod, "true", "false", 1), "allowed"},
		"noted alone":       {native + "---\napiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicyBinding\nmetadata: {name: b}\nspec: {policyName: unprivileged, validationActions: [Audit]}\n", pod, "allowed"},
		"template":          {template, pod, "no pods"},
		"with a constraint": {template + "---\napiVersion: constraints.gatekeeper.sh/v1beta1\nkind: K8sNoPods\nmetadata: {name: b}\nspec: {enforcementAction: warn}\n", pod, "allowed"},
		"parameters that are not there": {strings.Replace(native, "spec:\n", "spec:\n  paramKind: {apiVersion: v1, kind: ConfigMap}\n", 1) +
			"---\napiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicyBinding\nmetadata: {name: b}\nspec: {policyName: unprivileged, validationActions: [Deny], paramRef: {name: x, namespace: shop, parameterNotFoundAction: Deny}}\n", pod, "unjudged"},
	} {
		t.Run(name, func(t *testing.T) {
			trial := playground.PolicyTrial{Policy: tt.policy, Object: tt.object}
			have, err := bench().Policy(t.Context(), "one", trial)
			if err != nil {
				t.Fatal(err)
			}
			if other, err := apart(t).Policy(t.Context(), "one", trial); err != nil || !reflect.DeepEqual(other, have) {
				t.Errorf("in a process: %+v, %v, want %+v", other, err, have)
			}
			switch tt.want {
			case "allowed":
				if !have.Allowed {
					t.Errorf("denied: %+v", have)
				}
			case "unjudged":
				if have.Allowed || len(have.Unjudged) == 0 {
					t.Errorf("judged: %+v", have)
				}
			default:
				if have.Allowed || len(have.Violations) != 1 || have.Violations[0].Message != tt.want {
					t.Errorf("have %+v", have)
				}
			}
		})
	}
	for _, tt := range []struct{ policy, object, want string }{
		{"", pod, "empty"}, {native, "", "empty"}, {native, "kind: Pod", "apiVersion"}, {native, "{", "read the object"},
		{strings.Replace(native, "object.spec", "objekt.spec", 1), pod, "objekt"}, {"apiVersion: v1\nkind: Secret\nmetadata: {name: x}\n", pod, "Secret"},
		{"apiVersion: kubeguardian.dev/v1alpha1\nkind: ImagePolicy\nmetadata: {name: x}\n", pod, "cannot be tried here"},
	} {
		_, err := bench().Policy(t.Context(), "one", playground.PolicyTrial{Policy: tt.policy, Object: tt.object})
		_, other := apart(t).Policy(t.Context(), "one", playground.PolicyTrial{Policy: tt.policy, Object: tt.object})
		var wrong *playground.InputError
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), tt.want) || !errors.As(other, &wrong) || other.Error() != err.Error() {
			t.Errorf("%.60q: %v, in a process %v, want %q", tt.policy, err, other, tt.want)
		}
	}
}

// TestExhaustion: what one step of a policy takes, which nothing can stop, is taken
// from a process of its own.
func TestExhaustion(t *testing.T) {
	for name, body := range map[string]string{
		"a number":   `x := bits.lsh(1, 100000000000); m := sprintf("%v", [x])`,
		"a text":     `a := sprintf("%1000000d", [1]); m := replace(a, " ", a)`,
		"texts":      `a := sprintf("%1000000d", [1]); m := concat("", [a | numbers.range(1, 100000)[_]])`,
		"for ever":   `m := sprintf("%v", [count(net.cidr_expand("10.0.0.0/4"))])`,
		"everything": `a := numbers.range(1, 100000); m := sprintf("%v", [count([x | a[_]; a[_]; x := 1])])`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			policy := strings.Replace(template, `violation[{"msg": "no pods"}] { input.review.kind.kind == "Pod" }`, `violation[{"msg": m}] { `+body+" }", 1)
			have, err := apart(t).Policy(t.Context(), "one", playground.PolicyTrial{Policy: policy, Object: pod})
			if !errors.Is(err, playground.ErrMemory) && !errors.Is(err, playground.ErrTooLong) {
				t.Errorf("%.200v, %v", have, err)
			}
		})
	}
}

// TestNoProgram: a program that is not there, or is another one, is an error that
// says so.
func TestNoProgram(t *testing.T) {
	for program, want := range map[string]string{"/none": "no such file", "/bin/false": "exit status 1", "/bin/true": "read what came of the trial"} {
		_, err := playground.New(playground.Options{Program: program}).Policy(t.Context(), "one", playground.PolicyTrial{Policy: native, Object: pod})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", program, err, want)
		}
	}
}

// TestOneAtATime: while a trial of a session runs there is no second one of it.
func TestOneAtATime(t *testing.T) {
	started, finish := make(chan struct{}), make(chan struct{})
	var calls atomic.Int32
	p := playground.New(playground.Options{Rules: func() ([]rule.File, error) {
		if calls.Add(1) == 1 {
			close(started)
			<-finish
		}
		return nil, nil
	}})
	trial := playground.RuleTrial{Rule: "ka.verb = list", Event: secretsListed}
	first := make(chan error, 1)
	go func() {
		_, err := p.Rule(context.Background(), "one", trial)
		first <- err
	}()
	<-started
	if _, err := p.Rule(t.Context(), "one", trial); !errors.Is(err, playground.ErrBusy) {
		t.Errorf("a second trial of the session: %v", err)
	}
	if _, err := p.Rule(t.Context(), "two", trial); err != nil {
		t.Errorf("a trial of another session: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	close(finish)
	if err := <-first; err != nil {
		t.Errorf("the first trial: %v", err)
	}
	if _, err := p.Rule(ended, "three", trial); err != nil && !errors.Is(err, playground.ErrTooLong) {
		t.Errorf("a trial that nobody waits for: %v", err)
	}
}

// TestOneAfterAnother: whoever has a result may try the next at once.
func TestOneAfterAnother(t *testing.T) {
	p := playground.New(playground.Options{Rules: func() ([]rule.File, error) { return nil, nil }})
	for range 1000 {
		if _, err := p.Rule(t.Context(), "one", playground.RuleTrial{Rule: "ka.verb = list", Event: secretsListed}); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzRule(f *testing.F) {
	f.Add("ka.verb = list", secretsListed)
	f.Add("- rule: x", "[]")
	f.Fuzz(func(t *testing.T, text, event string) {
		_, err := bench().Rule(t.Context(), "one", playground.RuleTrial{Rule: text, Event: event})
		var wrong *playground.InputError
		if err != nil && !errors.As(err, &wrong) && !errors.Is(err, playground.ErrTooLong) {
			t.Error(err)
		}
	})
}
