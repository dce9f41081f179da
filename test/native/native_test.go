package native

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/yaml"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/source"
)

var seed = flag.Uint64("seed", 1, "`number` that the cases follow from; 0: of this moment")

// How much is compared. A policy is judged with several requests.
const (
	validatingPolicies = 90
	mutatingPolicies   = 60
	requestsOfEach     = 3
)

// A suite is one run: the policies that are in force, and our sources.
type suite struct {
	*cluster
	generator
	policies []generated
	set      *policy.Set
	known    *source.Objects
	reviews  policy.Authorizer                     // of the cluster, instead of known
	live     policy.Params                         // the same
	doomed   map[string]*unstructured.Unstructured // what may be deleted, by policy
	old      map[string]*unstructured.Unstructured // what may be updated, by resource and namespace
	cases    []*comparison
}

// A comparison is one request with what both sides made of it.
type comparison struct {
	policy    generated
	selecting []string // the policies that select the object, by their labels
	request   policy.Request
	theirs    answer
	ours      policy.Verdict
	patched   *unstructured.Unstructured // by our policies, defaulted by the API server
	refused   error                      // of the API server, which validates what policies made
	err       error
}

// TestAgainstAPIServer asks the lab's API server and our evaluator about the
// same requests under the same policies.
func TestAgainstAPIServer(t *testing.T) {
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	c := start(t)
	t.Logf("repeat by: go test ./test/native -seed %d", *seed)
	began := time.Now()
	s := &suite{cluster: c, generator: newGenerator(*seed), doomed: map[string]*unstructured.Unstructured{}, old: map[string]*unstructured.Unstructured{}}
	s.generate()
	known := s.populate(t)
	s.stock(t)
	s.install(t)
	s.load(t, known)
	for _, p := range s.policies {
		for range requestsOfEach {
			s.compare(t, p)
		}
	}
	s.report(t)
	t.Logf("%d policies and %d requests in %s", len(s.policies), len(s.cases), time.Since(began).Round(time.Second))
}

func (s *suite) generate() {
	for i := range validatingPolicies {
		resource := pick(s.generator, "configmaps", "pods", "deployments", "things", "clusterroles", "horizontalpodautoscalers", "pods/exec", "deployments/scale")
		s.policies = append(s.policies, s.validating(fmt.Sprintf("vap-%d", i), resource))
	}
	for i := range mutatingPolicies {
		resource := pick(s.generator, "configmaps", "pods", "deployments", "things")
		s.policies = append(s.policies, s.mutating(fmt.Sprintf("map-%d", i), resource))
	}
	counts, adds := pair("configmaps")
	s.policies = append(s.policies, counts, adds)
}

// sample returns an object as a user would write it.
func sample(t *testing.T, resource, namespace, name string) *unstructured.Unstructured {
	t.Helper()
	u := documents(t, objectsOf[resource])[0]
	u.SetName(name)
	if resource != "clusterroles" {
		u.SetNamespace(namespace)
	}
	return u
}

// stock creates the objects that are updated and deleted later, before policies
// are in force.
func (s *suite) stock(t *testing.T) {
	for resource, r := range resources {
		for _, ns := range []string{"ns-a", "ns-b"} {
			if resource == "clusterroles" && ns == "ns-b" {
				continue
			}
			s.old[resource+" "+ns] = s.create(t, r, sample(t, resource, ns, "obj-old"))
		}
	}
	for _, p := range s.policies {
		if p.policy.GetKind() != "ValidatingAdmissionPolicy" {
			continue
		}
		u := sample(t, p.base(), pick(s.generator, "ns-a", "ns-b"), "obj-"+p.name)
		if !p.named() {
			u.SetLabels(map[string]string{p.name: "1"})
		}
		s.doomed[p.name] = s.create(t, resources[p.base()], u)
	}
}

func registration(kind string) schema.GroupVersionResource {
	plural := map[string]string{
		"ValidatingAdmissionPolicy": "validatingadmissionpolicies", "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
		"MutatingAdmissionPolicy": "mutatingadmissionpolicies", "MutatingAdmissionPolicyBinding": "mutatingadmissionpolicybindings",
	}
	return schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: plural[kind]}
}

// install creates all policies, and last some whose effect shows that the API
// server has heard of all before them.
func (s *suite) install(t *testing.T) {
	for _, p := range append(slices.Clone(s.policies), sentinels...) {
		s.create(t, registration(p.policy.GetKind()), p.policy.DeepCopy())
		for _, b := range p.bindings {
			s.create(t, registration(b.GetKind()), b.DeepCopy())
		}
	}
	for _, p := range sentinels {
		await(t, p.name+" is in force", func() error { return s.inForce(t, p) })
	}
}

// sentinel returns a policy for one resource with one parameter, whose word it
// says or writes.
func sentinel(kind, resource, paramKind, paramVersion, param string) generated {
	name := "sentinel-" + strings.ToLower(kind[:3]) + "-" + resource
	r := resources[resource]
	spec := map[string]any{
		"paramKind": map[string]any{"apiVersion": paramVersion, "kind": paramKind},
		"matchConstraints": map[string]any{
			"objectSelector": map[string]any{"matchLabels": map[string]any{name: "1"}},
			"resourceRules":  []any{map[string]any{"apiGroups": []any{r.Group}, "apiVersions": []any{"*"}, "resources": []any{resource}, "operations": []any{"CREATE"}}},
		},
	}
	binding := map[string]any{"policyName": name, "paramRef": map[string]any{"name": param, "parameterNotFoundAction": "Deny"}}
	if kind == "ValidatingAdmissionPolicy" {
		spec["validations"] = []any{map[string]any{"expression": "false", "messageExpression": "'word ' + params.data.word"}}
		binding["validationActions"] = []any{"Deny"}
	} else {
		spec["reinvocationPolicy"] = "Never"
		spec["mutations"] = []any{map[string]any{"patchType": "ApplyConfiguration", "applyConfiguration": map[string]any{
			"expression": "Object{metadata: Object.metadata{annotations: {'word': 'word ' + params.data.word}}}"}}}
	}
	return generated{name, resource, document(kind, name, spec), []*unstructured.Unstructured{document(kind+"Binding", name, binding)}}
}

var sentinels = []generated{
	sentinel("ValidatingAdmissionPolicy", "configmaps", "ConfigMap", "v1", "limits"),
	sentinel("ValidatingAdmissionPolicy", "things", "Limit", "example.org/v1", "all"),
	sentinel("MutatingAdmissionPolicy", "configmaps", "ConfigMap", "v1", "limits"),
	sentinel("MutatingAdmissionPolicy", "things", "Limit", "example.org/v1", "all"),
	sentinel("MutatingAdmissionPolicy", "deployments", "ConfigMap", "v1", "limits"),
}

func (s *suite) inForce(t *testing.T, p generated) error {
	u := sample(t, p.resource, "ns-a", "obj-"+p.name)
	u.SetLabels(map[string]string{p.name: "1"})
	out, err := at(s.user, resources[p.resource], "ns-a").Create(t.Context(), u, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	seen := fmt.Sprint(err)
	if err == nil {
		seen = out.GetAnnotations()["word"]
	}
	if !strings.Contains(seen, "word alpha") && !strings.Contains(seen, "word epsilon") {
		return errors.New(seen)
	}
	s.answer.take()
	return nil
}

// load gives the same policies to our evaluator.
func (s *suite) load(t *testing.T, known []*unstructured.Unstructured) {
	var files []policy.File
	for _, p := range s.policies {
		for _, u := range append([]*unstructured.Unstructured{p.policy}, p.bindings...) {
			data, err := yaml.Marshal(u.Object)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, policy.File{Name: u.GetName() + ".yaml", Data: data})
		}
	}
	var err error
	if s.set, err = policy.Load(files...); err != nil {
		t.Fatal(err)
	}
	if s.known, err = source.NewObjects(known...); err != nil {
		t.Fatal(err)
	}
	s.reviews = source.NewAccessReviews(s.kube.AuthorizationV1().SubjectAccessReviews())
	s.live = source.NewClusterParams(s.admin, restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(s.kube.Discovery())))
}

// request returns a request of the user without its objects.
func (s *suite) request(operation admissionv1.Operation, p generated, u *unstructured.Unstructured) policy.Request {
	req := policy.Request{
		Operation: operation, Kind: u.GroupVersionKind(), Resource: resources[p.base()], Namespace: u.GetNamespace(), Name: u.GetName(),
		User:   authenticationv1.UserInfo{Username: userName, Groups: []string{userGroup, "system:authenticated"}},
		DryRun: true, Namespaces: s.known, Params: s.known, Authorizer: s.known, Schemas: s.known,
	}
	_, req.Subresource, _ = strings.Cut(p.resource, "/")
	if s.chance(2) {
		req.Authorizer, req.Params = s.reviews, s.live
	}
	return req
}

// compare makes one request that the policy is about, and asks both sides.
func (s *suite) compare(t *testing.T, p generated) {
	t.Helper()
	c := &comparison{policy: p}
	switch n := s.IntN(4); {
	case p.resource == "pods/exec":
		s.connect(t, c)
	case p.resource == "deployments/scale":
		s.scale(t, c)
	case n == 0:
		s.update(t, c)
	case n == 1 && s.doomed[p.name] != nil:
		s.delete(t, c)
	default:
		s.insert(t, c)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	before := c.request
	if p.policy.GetKind() == "ValidatingAdmissionPolicy" {
		if c.ours, c.err = s.set.Review(ctx, c.request); c.err == nil {
			s.same(ctx, t, c)
		}
	} else if c.patched, _, c.err = s.set.Mutate(ctx, c.request); c.err == nil {
		c.refused = s.settle(t, c)
	}
	if !reflect.DeepEqual(before.Object, c.request.Object) {
		t.Errorf("%s: the object of the request is changed", p.name)
	}
	s.cases = append(s.cases, c)
}

// same wants the webhook, which evaluates, to say all that a review says: also
// the warnings that come with a denial.
func (s *suite) same(ctx context.Context, t *testing.T, c *comparison) {
	t.Helper()
	found, err := s.set.Evaluate(ctx, c.request)
	if err != nil || !reflect.DeepEqual(found, c.ours.Violations) {
		t.Errorf("%s: Evaluate = %v, %v; Review = %v", c.policy.name, found, err, c.ours.Violations)
	}
}

// labels returns those of an object that a policy selects, and now and then
// another one.
func (s *suite) labels(c *comparison) map[string]string {
	c.selecting = []string{c.policy.name}
	for _, other := range s.policies {
		if s.beside(c.policy, other) {
			c.selecting = append(c.selecting, other.name)
		}
	}
	labels := map[string]string{}
	for _, name := range c.selecting {
		labels[name] = "1"
	}
	if color := pick(s.generator, "", "red", "blue"); color != "" {
		labels["color"] = color
	}
	return labels
}

// beside reports whether another policy may judge the same object. Mutating ones
// come in an order that is not promised, which matters to most of them.
func (s *suite) beside(p, other generated) bool {
	if strings.HasPrefix(p.name, "map-") {
		return p.name == "map-counts" && other.name == "map-adds"
	}
	return strings.HasPrefix(other.name, "vap-") && other.name != p.name && other.resource == p.resource && s.chance(20)
}

// insert asks to create an object. What our evaluator sees is the object with
// the defaults of the API server, without the label that policies select by.
func (s *suite) insert(t *testing.T, c *comparison) {
	t.Helper()
	u := sample(t, c.policy.base(), pick(s.generator, "ns-a", "ns-b"), "obj-new")
	where := at(s.user, resources[c.policy.base()], u.GetNamespace())
	dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	full, err := where.Create(t.Context(), u, dry)
	if err != nil {
		t.Fatalf("create %s without policies: %v", c.policy.base(), err)
	}
	s.answer.take()
	bare(full)
	full.SetLabels(s.labels(c))
	c.request = s.request(admissionv1.Create, c.policy, full)
	c.request.Object = full.DeepCopy()
	object, err := where.Create(t.Context(), full, dry)
	c.theirs = s.asked(t, object, err)
}

func (s *suite) update(t *testing.T, c *comparison) {
	t.Helper()
	old := s.old[c.policy.base()+" "+pick(s.generator, "ns-a", "ns-b")]
	if old == nil {
		old = s.old[c.policy.base()+" ns-a"]
	}
	stored, err := at(s.admin, resources[c.policy.base()], old.GetNamespace()).Get(t.Context(), old.GetName(), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	u := stored.DeepCopy()
	u.SetLabels(s.labels(c))
	c.request = s.request(admissionv1.Update, c.policy, u)
	c.request.Object, c.request.OldObject = u.DeepCopy(), stored
	object, err := at(s.user, resources[c.policy.base()], u.GetNamespace()).Update(t.Context(), u, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
	c.theirs = s.asked(t, object, err)
}

func (s *suite) delete(t *testing.T, c *comparison) {
	t.Helper()
	u := s.doomed[c.policy.name]
	c.request = s.request(admissionv1.Delete, c.policy, u)
	c.request.OldObject = u
	err := at(s.user, resources[c.policy.base()], u.GetNamespace()).Delete(t.Context(), u.GetName(), metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}})
	c.theirs = s.asked(t, nil, err)
}

// connect asks to execute a command. Without a node that fails after admission.
func (s *suite) connect(t *testing.T, c *comparison) {
	t.Helper()
	u := s.doomed[c.policy.name]
	c.request = s.request(admissionv1.Connect, c.policy, u)
	c.request.DryRun = false
	c.request.Kind = schema.GroupVersionKind{Version: "v1", Kind: "PodExecOptions"}
	c.request.Object = &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "PodExecOptions", "stdout": true, "stderr": true, "command": []any{"ls"}}}
	err := s.rest.Post().Namespace(u.GetNamespace()).Resource("pods").Name(u.GetName()).SubResource("exec").
		Param("command", "ls").Param("stdout", "true").Param("stderr", "true").Do(t.Context()).Error()
	if c.theirs = s.asked(t, nil, err); c.theirs.status != nil && !strings.Contains(c.theirs.status.Message, "AdmissionPolicy") {
		c.theirs.status = nil
	}
}

func (s *suite) scale(t *testing.T, c *comparison) {
	t.Helper()
	u := s.doomed[c.policy.name]
	where := at(s.user, resources["deployments"], u.GetNamespace())
	stored, err := where.Get(t.Context(), u.GetName(), metav1.GetOptions{}, "scale")
	if err != nil {
		t.Fatal(err)
	}
	s.answer.take()
	wanted := stored.DeepCopy()
	if err := unstructured.SetNestedField(wanted.Object, int64(3+s.IntN(4)), "spec", "replicas"); err != nil {
		t.Fatal(err)
	}
	c.request = s.request(admissionv1.Update, c.policy, wanted)
	c.request.Object, c.request.OldObject = wanted.DeepCopy(), stored
	object, err := where.Update(t.Context(), wanted, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}}, "scale")
	c.theirs = s.asked(t, object, err)
}

// bare removes what the API server fills in after mutation, or anew each time.
func bare(u *unstructured.Unstructured) {
	for _, field := range []string{"uid", "creationTimestamp", "managedFields", "resourceVersion", "generation", "selfLink"} {
		unstructured.RemoveNestedField(u.Object, "metadata", field)
	}
	delete(u.Object, "status")
}

// settle lets the API server default what our policies added, as it does for
// its own: without policies, and then the label is put back.
func (s *suite) settle(t *testing.T, c *comparison) error {
	t.Helper()
	u := c.patched.DeepCopy()
	labels := u.GetLabels()
	for _, name := range c.selecting {
		delete(labels, name)
	}
	u.SetLabels(labels)
	where := at(s.user, resources[c.policy.base()], u.GetNamespace())
	var err error
	if c.request.Operation == admissionv1.Create {
		u, err = where.Create(t.Context(), u, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	} else {
		u, err = where.Update(t.Context(), u, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
	}
	if s.answer.take(); err != nil {
		return err
	}
	if labels = u.GetLabels(); labels == nil {
		labels = map[string]string{}
	}
	for _, name := range c.selecting {
		labels[name] = "1"
	}
	u.SetLabels(labels)
	c.patched = u
	return nil
}

// report says where the two sides differ, and what was compared.
func (s *suite) report(t *testing.T) {
	annotations := s.annotations(t)
	counts := map[string]int{}
	for _, c := range s.cases {
		problems := c.mutation
		if c.policy.policy.GetKind() == "ValidatingAdmissionPolicy" {
			problems = func(map[string]int) []string { return c.validation(annotations[c.theirs.auditID], counts) }
		}
		counts[string(c.request.Operation)]++
		if found := problems(counts); len(found) > 0 {
			text, _ := yaml.Marshal([]any{c.policy.policy.Object["spec"], c.policy.bindings})
			t.Errorf("%s: %s of %s in %q:\n%s\nAPI server: %s\n%s", c.policy.name, c.request.Operation, c.policy.resource, c.request.Namespace, strings.Join(found, "\n"), c.theirs, text)
		}
	}
	t.Logf("compared: %v", counts)
	if len(s.cases) < 300 {
		t.Errorf("only %d cases", len(s.cases))
	}
	for _, kind := range []string{"CREATE", "UPDATE", "DELETE", "CONNECT", "denied", "warned", "annotated", "audited", "changed", "failed", "denied with warnings"} {
		if counts[kind] == 0 {
			t.Errorf("no case is %s", kind)
		}
	}
}

// validation compares the verdicts of validating policies.
func (c *comparison) validation(annotations map[string]string, counts map[string]int) (problems []string) {
	if c.err != nil {
		return []string{"ours fails: " + c.err.Error()}
	}
	var denials, warnings []string
	for i, v := range c.ours.Violations {
		switch v.Enforcement {
		case "deny":
			where := fmt.Sprintf("ValidatingAdmissionPolicy '%s' with binding '%s' denied request: %s", v.Policy, v.Binding, v.Message)
			if v.Binding == "" {
				where = fmt.Sprintf("ValidatingAdmissionPolicy '%s' denied request: %s", v.Policy, v.Message)
			}
			denials = append(denials, string(c.ours.Reasons[i])+" "+where)
		case "warn":
			warnings = append(warnings, fmt.Sprintf("Validation failed for ValidatingAdmissionPolicy '%s' with binding '%s': %s", v.Policy, v.Binding, v.Message))
		}
	}
	if status := c.theirs.status; status != nil {
		counts["denied"]++
		matches := func(d string) bool {
			reason, message, _ := strings.Cut(d, " ")
			return string(status.Reason) == reason && strings.HasSuffix(status.Message, known(message))
		}
		if !slices.ContainsFunc(denials, matches) {
			problems = append(problems, fmt.Sprintf("ours denies by %q", denials))
		}
	} else if len(denials) > 0 {
		problems = append(problems, fmt.Sprintf("only ours denies, by %q", denials))
	}
	theirs := distinct(c.theirs.warnings)
	if counts["warned"] += len(theirs); !slices.Equal(theirs, distinct(warnings)) {
		problems = append(problems, fmt.Sprintf("ours warns %q", warnings))
	}
	if c.theirs.status != nil && len(theirs) > 0 {
		counts["denied with warnings"]++
	}
	return append(problems, c.audit(annotations, counts)...)
}

// known leaves out what ours says more than the API server: why a kind of
// parameters is not found.
func known(message string) string {
	for _, why := range []string{"': Missing is not built in", "': no matches for kind"} {
		if i := strings.Index(message, why); i >= 0 {
			return message[:i+1]
		}
	}
	return message
}

func distinct(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}

const failures = "validation.policy.admission.k8s.io/validation_failure"

// audit compares the annotations of the audit event. The order of bindings and
// parameters is not promised, and so not compared.
func (c *comparison) audit(theirs map[string]string, counts map[string]int) (problems []string) {
	if theirs == nil {
		return []string{"the audit log has no event of " + c.theirs.auditID}
	}
	theirs = maps.Clone(theirs)
	maps.DeleteFunc(theirs, func(key, _ string) bool { return !strings.HasPrefix(key, "vap-") && key != failures })
	counts["annotated"] += len(theirs)
	if theirs[failures] != "" {
		counts["audited"]++
	}
	ours := map[string]string{}
	for key, value := range c.ours.Audit {
		ours[key] = unordered(key, value)
	}
	for key, value := range theirs {
		theirs[key] = unordered(key, value)
	}
	if !maps.Equal(ours, theirs) {
		problems = append(problems, fmt.Sprintf("ours has the annotations\n%v, the API server\n%v", ours, theirs))
	}
	return problems
}

func unordered(key, value string) string {
	parts := strings.Split(value, ", ")
	if key == failures {
		var list []json.RawMessage
		if json.Unmarshal([]byte(value), &list) == nil {
			parts = nil
			for _, item := range list {
				parts = append(parts, string(item))
			}
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// mutation compares what mutating policies made of the object.
func (c *comparison) mutation(counts map[string]int) []string {
	status := c.theirs.status
	if c.err != nil {
		counts["failed"]++
		var denied *policy.DeniedError
		if !errors.As(c.err, &denied) {
			return []string{"ours fails: " + c.err.Error()}
		}
		if status == nil || !agree(status.Message, denied) {
			return []string{"ours denies: " + c.err.Error()}
		}
		return nil
	}
	if status != nil && c.refused != nil && status.Message == c.refused.Error() {
		counts["invalid"]++
		return nil
	}
	if status != nil || c.refused != nil {
		return []string{fmt.Sprintf("only the API server denies, or says of what ours makes: %v", c.refused)}
	}
	ours, theirs := c.patched.DeepCopy(), c.theirs.object.DeepCopy()
	bare(ours)
	bare(theirs)
	if !reflect.DeepEqual(c.request.Object.GetLabels(), theirs.GetLabels()) || !reflect.DeepEqual(c.request.Object.Object["spec"], theirs.Object["spec"]) {
		counts["changed"]++
	}
	if !reflect.DeepEqual(ours.Object, theirs.Object) {
		a, _ := json.Marshal(ours.Object)
		b, _ := json.Marshal(theirs.Object)
		return []string{fmt.Sprintf("ours makes\n%s, the API server\n%s", a, b)}
	}
	return nil
}

// unbound leaves out which of several bindings comes first.
var unbound = regexp.MustCompile(` with binding '[^']*'`)

// agree reports whether one of our failures is the one that the API server
// names.
func agree(message string, denied *policy.DeniedError) bool {
	for _, v := range denied.Violations {
		if internal, ok := strings.CutPrefix(v.Message, "Internal error occurred: "); ok && strings.Contains(message, internal) {
			return true
		}
		one := policy.DeniedError{Violations: denied.Violations[:0:0]}
		one.Violations = append(one.Violations, v)
		if strings.HasSuffix(unbound.ReplaceAllString(message, ""), unbound.ReplaceAllString(known(one.Error()), "")) {
			return true
		}
	}
	return false
}
