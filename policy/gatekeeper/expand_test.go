package gatekeeper_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/gatekeeper"
)

const expansions = `---
apiVersion: expansion.gatekeeper.sh/v1beta1
kind: ExpansionTemplate
metadata: {name: pods}
spec:
  applyTo: [{groups: [apps], versions: [v1], kinds: [Deployment, StatefulSet]}, {groups: [batch], versions: [v1], kinds: [Job]}]
  templateSource: spec.template
  generatedGVK: {group: "", version: v1, kind: Pod}
---
apiVersion: expansion.gatekeeper.sh/v1beta1
kind: ExpansionTemplate
metadata: {name: jobs}
spec:
  applyTo: [{groups: [batch], versions: [v1], kinds: [CronJob]}]
  templateSource: spec.jobTemplate
  generatedGVK: {group: batch, version: v1, kind: Job}
  enforcementAction: warn
`

const names = `package x
violation[{"msg": msg}] {
  o := input.review.object
  msg := sprintf("%v %v/%v of %v, %v", [o.kind, o.metadata.namespace, o.metadata.name, o.metadata.ownerReferences[_].name, input.review.operation])
}
violation[{"msg": "an original"}] { not input.review.object.metadata.ownerReferences }`

func TestExpansion(t *testing.T) {
	text := template("X", "{type: object}", names) + constraint("X", "{match: {kinds: [{kinds: [Pod, Job]}]}}") +
		strings.Replace(constraint("X", "{enforcementAction: dryrun, match: {source: Original}}"), "name: c", "name: o", 1) + expansions
	set := load(t, text)
	deployment := create(t, "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop}, spec: {template: {metadata: {labels: {a: b}}, spec: {}}}}")
	deleted := deployment
	deleted.Operation, deleted.Object, deleted.OldObject = admissionv1.Delete, nil, deployment.Object
	cron := create(t, "{apiVersion: batch/v1, kind: CronJob, metadata: {name: c, namespace: shop}, spec: {jobTemplate: {spec: {template: {spec: {}}}}}}")
	for _, test := range []struct {
		req  policy.Request
		want []string
	}{
		{deployment, []string{"X/c deny: [Implied by pods] Pod shop/web-pod of web, CREATE", "X/o dryrun: an original"}},
		{deleted, []string{"X/c deny: [Implied by pods] Pod shop/web-pod of web, DELETE", "X/o dryrun: an original"}},
		{cron, []string{"X/c deny: [Implied by pods] Pod shop/c-job-pod of c-job, CREATE", "X/c warn: [Implied by jobs] Job shop/c-job of c, CREATE", "X/o dryrun: an original"}},
		{create(t, "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: shop}}"), []string{"X/c deny: an original", "X/o dryrun: an original"}},
	} {
		if got := evaluate(t, set, test.req); !slices.Equal(got, test.want) {
			t.Errorf("violations are %q, want %q", got, test.want)
		}
	}
	broken := create(t, "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop}}")
	if _, err := set.Evaluate(t.Context(), broken); err == nil || !strings.Contains(err.Error(), `expand Deployment "web" by "pods": read spec.template: it is missing`) {
		t.Errorf("error is %v", err)
	}
}

// TestExpansionCircle wants a circle of two templates to be refused.
func TestExpansionCircle(t *testing.T) {
	text := expansions + strings.ReplaceAll(expansions[strings.LastIndex(expansions, "---"):], "jobs}", "back}")
	text = strings.Replace(text, "name: back}\nspec:\n  applyTo: [{groups: [batch], versions: [v1], kinds: [CronJob]}]", "name: back}\nspec:\n  applyTo: [{groups: [''], versions: [v1], kinds: [Pod]}]", 1)
	text = text[:strings.LastIndex(text, "kind: Job}")] + "kind: CronJob}\n"
	_, err := gatekeeper.Load(policy.File{Name: "f.yaml", Data: []byte(text)})
	if err == nil || !strings.Contains(err.Error(), "without an end") {
		t.Errorf("error is %v", err)
	}
}

// TestExpansionDeadline wants nothing to be decided while an implied object may
// yet deny.
func TestExpansionDeadline(t *testing.T) {
	endless := "package x\nviolation[{\"msg\": \"m\"}] { x := numbers.range(1, 100000); x[i] + x[j] + x[k] == -1 }"
	set := load(t, template("X", "{type: object}", endless)+constraint("X", "{enforcementAction: warn}")+
		"---\n"+template("Z", "{type: object}", always)+constraint("Z", "{match: {kinds: [{kinds: [Pod]}]}}")+expansions)
	ctx, cancel := context.WithTimeout(t.Context(), 200_000_000)
	defer cancel()
	_, err := set.Evaluate(ctx, create(t, "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop}, spec: {template: {spec: {}}}}"))
	var incomplete *policy.IncompleteError
	if !errors.As(err, &incomplete) || incomplete.Decided {
		t.Errorf("error is %+v", err)
	}
}
