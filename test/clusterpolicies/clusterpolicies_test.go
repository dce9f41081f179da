package clusterpolicies

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/server"
	"github.com/kubeguardian/kubeguardian/web"
)

const (
	templates   = "templates.gatekeeper.sh/v1"
	constraints = "constraints.gatekeeper.sh/v1beta1"
)

// template is a template that wants a label, whose Rego ends with more.
func template(kind, more string) string {
	return fmt.Sprintf(`apiVersion: %[1]s
kind: ConstraintTemplate
metadata: {name: %[2]s}
spec:
  crd:
    spec:
      names: {kind: %[3]s}
      validation:
        openAPIV3Schema: {type: object, properties: {label: {type: string}}}
  targets:
  - target: admission.k8s.gatekeeper.sh
    rego: |
      package labelled

      violation[{"msg": msg}] {
        not input.review.object.metadata.labels[input.parameters.label]
        msg := sprintf("the label %%s is missing", [input.parameters.label])
      }
      %[4]s
`, templates, strings.ToLower(kind), kind, more)
}

func constraint(kind, name, label string) string {
	return fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: %s}\nspec: {match: {kinds: [{apiGroups: [''], kinds: [ConfigMap]}], namespaces: [default]}, parameters: {label: %s}}\n",
		constraints, kind, name, label)
}

// A guard is a server that runs.
type guard struct {
	*world
	url, token string
	kill       func() // ends it
}

func free(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// serve runs the server with the rights that are published, and waits until it is
// ready.
func (w *world) serve(dir, admission string) *guard {
	w.Helper()
	cfg, err := config.Parse("config.yaml", fmt.Appendf(nil, "cluster: test\ndataDir: %s\nweb: {listen: %q}\nwebhook: {listen: %q}\nadmission: {fromCluster: true, builtIn: false, %s}\n", dir, free(w.T), free(w.T), admission))
	if err != nil {
		w.Fatal(err)
	}
	account := rest.CopyConfig(w.admin)
	account.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:kubeguardian:kubeguardian", Groups: []string{"system:serviceaccounts", "system:authenticated"}}
	s, err := server.New(w.Context(), server.Options{Config: cfg, Cluster: account, Log: slog.New(slog.NewTextHandler(w.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})), Version: "test"})
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	token, err := os.ReadFile(filepath.Join(dir, "token"))
	if err != nil {
		w.Fatal(err)
	}
	g := &guard{world: w, url: s.WebURL(), token: strings.TrimSpace(string(token))}
	ended := false
	g.kill = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := errors.Join(<-done, s.Stop()); err != nil {
			w.Error(err)
		}
	}
	w.Cleanup(g.kill)
	w.eventually("the server is ready", func() error { _, err := g.read("/readyz"); return err })
	return g
}

func (g *guard) read(path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(g.Context(), http.MethodGet, g.url+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+g.token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return body, err
}

// policy returns what the server says of a policy.
func (g *guard) policy(kind, name string) (web.Policy, error) {
	body, err := g.read("/api/v1/policies")
	if err != nil {
		return web.Policy{}, err
	}
	var all web.Policies
	if err := json.Unmarshal(body, &all); err != nil {
		return web.Policy{}, err
	}
	for _, p := range all.Items {
		if p.Kind == kind && p.Name == name {
			return p, nil
		}
	}
	return web.Policy{}, fmt.Errorf("%s %s is not listed: %s", kind, name, body)
}

// create creates a ConfigMap as a dry run, and returns why that was denied.
func (w *world) create(labels map[string]string) (denied string, err error) {
	_, err = w.client.CoreV1().ConfigMaps("default").Create(w.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "tried", Labels: labels}}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if apierrors.IsForbidden(err) && strings.Contains(err.Error(), "kubeguardian.dev") {
		return err.Error(), nil
	}
	return "", err
}

// verdict waits until the creation is denied with a text, or with "" admitted.
func (w *world) verdict(want string) {
	w.Helper()
	w.eventually(fmt.Sprintf("the verdict is %q", want), func() error {
		denied, err := w.create(nil)
		if err == nil && (denied == "") != (want == "") || !strings.Contains(denied, want) {
			err = fmt.Errorf("denied: %q", denied)
		}
		return err
	})
}

// entries returns byPod of the status of an object.
func entries(o *unstructured.Unstructured) (out []map[string]any) {
	list, _, _ := unstructured.NestedSlice(o.Object, "status", "byPod")
	for _, e := range list {
		out = append(out, e.(map[string]any))
	}
	return out
}

// status waits until the status of an object is as wanted.
func (w *world) status(apiVersion, kind, name string, want func(entries []map[string]any) error) {
	w.Helper()
	w.eventually("the status of "+kind+" "+name, func() error {
		o, err := w.get(apiVersion, kind, name)
		if err != nil {
			return err
		}
		found := entries(o)
		if len(found) != 1 || found[0]["observedGeneration"] != o.GetGeneration() {
			return fmt.Errorf("status = %v of generation %d", o.Object["status"], o.GetGeneration())
		}
		return want(found)
	})
}

func good(found []map[string]any) error {
	if found[0]["errors"] != nil {
		return fmt.Errorf("errors = %v", found[0]["errors"])
	}
	return nil
}

// TestWithoutGatekeeper is the life of a template and its constraint in a cluster
// that has no Gatekeeper.
func TestWithoutGatekeeper(t *testing.T) {
	w := newWorld(t)
	w.apply(string(content.RBAC()))
	dir := t.TempDir()
	g := w.serve(dir, "")
	w.apply(string(content.Gatekeeper())) // while the server runs
	w.apply(template("Labelled", ""))
	w.apply(constraint("Labelled", "team", "owner")) // its definition appears
	w.verdict("[Labelled] the label owner is missing")
	w.status(templates, "ConstraintTemplate", "labelled", good)
	w.status(constraints, "Labelled", "team", func(found []map[string]any) error {
		if found[0]["enforced"] != true {
			return fmt.Errorf("enforced = %v", found[0]["enforced"])
		}
		return good(found)
	})
	crd, err := w.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", "labelled.constraints.gatekeeper.sh")
	if err != nil || crd.GetLabels()["gatekeeper.sh/constraint"] != "yes" || len(crd.GetOwnerReferences()) != 1 {
		t.Errorf("definition = %v, %v", crd, err)
	}
	wrong := strings.Replace(constraint("Labelled", "wrong", "owner"), "label: owner", "label: 3", 1)
	w.rejected(wrong)

	// What is there already is in the summary of the audit.
	w.apply(strings.Replace(constraint("Labelled", "services", "owner"), "ConfigMap", "Service", 1))
	w.eventually("the audit is in the status", func() error {
		found, err := w.get(constraints, "Labelled", "services")
		if err != nil {
			return err
		}
		status, _, _ := unstructured.NestedMap(found.Object, "status")
		listed, _ := status["violations"].([]any)
		if status["totalViolations"] != int64(1) || len(listed) != 1 || listed[0].(map[string]any)["name"] != "kubernetes" || status["auditTimestamp"] == nil || status["byPod"] == nil {
			return fmt.Errorf("status = %v", status)
		}
		return nil
	})

	// A mistake: the version before stays in force, and the status has the line.
	broken := template("Labelled", "wrong {")
	w.apply(broken)
	isBroken := func(found []map[string]any) error {
		errs, _ := found[0]["errors"].([]any)
		if len(errs) == 0 {
			return errors.New("no errors")
		}
		e := errs[0].(map[string]any)
		if e["code"] != "rego_parse_error" || !strings.HasPrefix(fmt.Sprint(e["location"]), "spec.targets[0].rego:") || !strings.Contains(fmt.Sprint(e["message"]), "spec.targets[0].rego, line ") {
			return fmt.Errorf("error = %v", e)
		}
		t.Logf("%v %v: %v", e["code"], e["location"], e["message"])
		return nil
	}
	w.status(templates, "ConstraintTemplate", "labelled", isBroken)
	w.verdict("[Labelled] the label owner is missing")
	if p, err := g.policy("ConstraintTemplate", "labelled"); err != nil || !p.Stale || p.Enforced != "admission" || len(p.Errors) == 0 {
		t.Errorf("listed as %+v, %v", p, err)
	}

	// A restart knows the good version still.
	g.kill()
	w.serve(dir, "")
	w.verdict("[Labelled] the label owner is missing")
	w.status(templates, "ConstraintTemplate", "labelled", isBroken)

	// The next version is taken.
	w.apply(strings.Replace(template("Labelled", ""), "is missing", "is absent", 1))
	w.verdict("[Labelled] the label owner is absent")
	w.status(templates, "ConstraintTemplate", "labelled", good)

	w.eventually("the audit has caught up", func() error {
		before := w.writes()
		if time.Sleep(2 * time.Second); w.writes() != before {
			return errors.New("objects are still written")
		}
		return nil
	})
	before := w.writes()
	time.Sleep(3 * time.Second)
	if after := w.writes(); after != before {
		t.Errorf("objects are written although nothing changes: %s, then %s", before, after)
	}
	w.remove(constraints, "Labelled", "team")
	w.verdict("")
	w.apply(constraint("Labelled", "again", "owner"))
	w.verdict("[Labelled] the label owner is absent")
	w.remove(templates, "ConstraintTemplate", "labelled")
	w.verdict("")
	w.eventually("the definition is removed", func() error {
		_, err := w.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", "labelled.constraints.gatekeeper.sh")
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("get: %v", err)
	})
}

// rejected expects the API server to refuse an object by its schema.
func (w *world) rejected(text string) {
	w.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
		w.Fatal(err)
	}
	if _, err := w.at(o).Create(w.Context(), o, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		w.Errorf("create = %v, want it invalid", err)
	}
}

// writes tells the versions of the template, the constraint and the definition.
func (w *world) writes() (out string) {
	for _, o := range [][3]string{{templates, "ConstraintTemplate", "labelled"}, {constraints, "Labelled", "team"}, {"apiextensions.k8s.io/v1", "CustomResourceDefinition", "labelled.constraints.gatekeeper.sh"}} {
		found, err := w.get(o[0], o[1], o[2])
		if err != nil {
			w.Fatal(err)
		}
		out += found.GetResourceVersion() + " "
	}
	return out
}

// TestBesideGatekeeper reads what Gatekeeper owns and writes nothing.
func TestBesideGatekeeper(t *testing.T) {
	w := newWorld(t)
	w.apply(string(content.RBAC()))
	foreign := strings.ReplaceAll(string(content.Gatekeeper()), "  labels: {app.kubernetes.io/managed-by: kubeguardian}\n", "")
	w.apply(foreign)
	w.apply(template("Labelled", ""))
	w.apply(`apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: labelled.constraints.gatekeeper.sh, labels: {gatekeeper.sh/constraint: "yes"}}
spec:
  group: constraints.gatekeeper.sh
  scope: Cluster
  names: {kind: Labelled, plural: labelled, singular: labelled}
  versions: [{name: v1beta1, served: true, storage: true, subresources: {status: {}}, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
`)
	w.apply(constraint("Labelled", "team", "owner"))
	w.apply(template("Undefined", ""))
	before := w.writes()
	g := w.serve(t.TempDir(), "")
	w.verdict("[Labelled] the label owner is missing")
	unwritten := func() {
		t.Helper()
		time.Sleep(2 * time.Second)
		if after := w.writes(); after != before {
			t.Errorf("objects of Gatekeeper are written: %s, then %s", before, after)
		}
		if _, err := w.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", "undefined.constraints.gatekeeper.sh"); !apierrors.IsNotFound(err) {
			t.Errorf("a definition is written: %v", err)
		}
	}
	unwritten()

	// Its definitions are ours, but its webhook is there still.
	_, err := w.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(t.Context(), &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "gatekeeper-validating-webhook-configuration", Labels: map[string]string{"gatekeeper.sh/system": "yes"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	g.kill()
	w.apply(string(content.Gatekeeper()))
	before = w.writes()
	g = w.serve(t.TempDir(), "")
	w.verdict("[Labelled] the label owner is missing")
	unwritten()
	if body, err := g.read("/api/v1/policies"); err != nil || !strings.Contains(string(body), "Gatekeeper's webhook gatekeeper-validating-webhook-configuration is registered") {
		t.Errorf("policies = %s, %v", body, err)
	}

	// Gatekeeper is gone: its objects are taken over.
	if err := w.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Delete(t.Context(), "gatekeeper-validating-webhook-configuration", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.eventually("its objects are ours", func() error {
		crd, err := w.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", "undefined.constraints.gatekeeper.sh")
		if err == nil && crd.GetLabels()["app.kubernetes.io/managed-by"] == "" {
			err = errors.New("no label")
		}
		return err
	})
	w.status(constraints, "Labelled", "team", good)
}

// TestManyConstraints has 300 constraints of 30 templates in force, and changes one.
func TestManyConstraints(t *testing.T) {
	w := newWorld(t)
	w.apply(string(content.RBAC()))
	w.apply(string(content.Gatekeeper()))
	for i := range 30 {
		w.apply(template(fmt.Sprintf("Labelled%c%c", 'a'+i/26, 'a'+i%26), ""))
	}
	g := w.serve(t.TempDir(), "")
	start := time.Now()
	for i := range 300 {
		w.apply(strings.Replace(constraint(fmt.Sprintf("Labelled%c%c", 'a'+i%30/26, 'a'+i%30%26), fmt.Sprint("c-", i), "owner"), "namespaces: [default]", "namespaces: [other]", 1))
	}
	t.Logf("300 constraints are created in %s", time.Since(start))
	w.eventually("all are in force", func() error {
		body, err := g.read("/api/v1/policies")
		if n := strings.Count(string(body), `"enforced": "admission"`) + strings.Count(string(body), `"enforced":"admission"`); err == nil && n != 330 {
			err = fmt.Errorf("%d are", n)
		}
		return err
	})
	w.verdict("")
	w.apply(constraint("Labelledaa", "c-0", "owner"))
	w.verdict("[Labelledaa] the label owner is missing")
	w.remove(constraints, "Labelledaa", "c-0")
	w.verdict("")
	w.eventually("all have a status", func() error {
		for i := 1; i < 300; i += 7 {
			o, err := w.get(constraints, fmt.Sprintf("Labelled%c%c", 'a'+i%30/26, 'a'+i%30%26), fmt.Sprint("c-", i))
			if err != nil || len(entries(o)) != 1 {
				return fmt.Errorf("%v: %v", o, err)
			}
		}
		return nil
	})
}
