// Package drift says whether live objects are what the repository holds: by the
// status of Argo CD and Flux, which compare them, and by what kubectl applied
// last.
package drift

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// Live judges the applications of Argo CD, the kustomizations and releases of
// Flux, and workloads that kubectl applied. Of files it says nothing: they are
// what live objects are compared with.
func Live(inv *inventory.Inventory) []finding.Verdict {
	if inv.Origin != inventory.Cluster {
		return nil
	}
	var out []finding.Verdict
	judge := func(objects []*inventory.Object, how func(*inventory.Object) finding.Verdict) {
		for _, o := range objects {
			f := how(o)
			f.Subject = o.Subject()
			out = append(out, f)
		}
	}
	judge(inv.Kind("argoproj.io", "Application"), application)
	judge(inv.Kind("kustomize.toolkit.fluxcd.io", "Kustomization"), reconciled)
	judge(inv.Kind("helm.toolkit.fluxcd.io", "HelmRelease"), reconciled)
	synced := len(out) > 0
	for _, w := range inv.Workloads() {
		f, known := edited(w.Object)
		switch {
		case !known && (synced || strings.HasPrefix(inv.NamespaceOf(w.Object), "kube-")):
			continue // Argo CD and Flux speak for what they apply
		case !known:
			f = finding.Verdict{Status: finding.Unknown, Reason: "nothing in the cluster shows what the repository holds"}
		}
		f.Subject = w.Subject()
		out = append(out, f)
	}
	return out
}

func application(o *inventory.Object) finding.Verdict {
	status, _, _ := unstructured.NestedString(o.Object, "status", "sync", "status")
	switch status {
	case "Synced":
		return finding.Verdict{Status: finding.Pass, Evidence: "status.sync.status: Synced"}
	case "OutOfSync":
		return finding.Verdict{Status: finding.Fail, Message: "live objects differ from git", Evidence: "OutOfSync: " + strings.Join(outOfSync(o), ", ")}
	}
	return finding.Verdict{Status: finding.Unknown, Reason: "Argo CD has not compared it"}
}

// maxShown bounds the places that one finding lists.
const maxShown = 5

func outOfSync(o *inventory.Object) []string {
	resources, _, _ := unstructured.NestedSlice(o.Object, "status", "resources")
	var out []string
	for _, item := range resources {
		r, _ := item.(map[string]any)
		if r["status"] == "OutOfSync" && len(out) < maxShown {
			out = append(out, strings.ReplaceAll(fmt.Sprintf("%v/%v/%v", r["kind"], r["namespace"], r["name"]), "/<nil>", ""))
		}
	}
	return out
}

// reconciled judges an object of Flux by its condition Ready, as of its newest
// generation.
func reconciled(o *inventory.Object) finding.Verdict {
	if suspended, _, _ := unstructured.NestedBool(o.Object, "spec", "suspend"); suspended {
		return finding.Verdict{Status: finding.Fail, Message: "reconciliation is suspended, so that live objects may differ from git", Evidence: "spec.suspend: true"}
	}
	observed, _, _ := unstructured.NestedInt64(o.Object, "status", "observedGeneration")
	conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, item := range conditions {
		c, _ := item.(map[string]any)
		if c["type"] != "Ready" || observed < o.GetGeneration() {
			continue
		}
		switch c["status"] {
		case "True":
			return finding.Verdict{Status: finding.Pass, Evidence: "condition Ready"}
		case "False":
			return finding.Verdict{Status: finding.Fail, Message: "Flux could not make live objects what git holds", Evidence: fmt.Sprintf("not Ready: %v", c["reason"])}
		}
	}
	return finding.Verdict{Status: finding.Unknown, Reason: "Flux has not reconciled it"}
}

// lastApplied is the annotation in which kubectl keeps what was applied.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// edited compares the specification that kubectl applied last with the live
// one. What only the live one has was filled in. The number of replicas is left
// out: autoscalers change it.
func edited(o *inventory.Object) (f finding.Verdict, known bool) {
	text := o.GetAnnotations()[lastApplied]
	if text == "" {
		return f, false
	}
	var applied struct{ Spec map[string]any }
	if err := json.Unmarshal([]byte(text), &applied); err != nil {
		return finding.Verdict{Status: finding.Unknown, Reason: "the annotation " + lastApplied + " is not JSON"}, true
	}
	delete(applied.Spec, "replicas")
	spec, _ := o.Object["spec"].(map[string]any)
	var places []string
	differ("spec", applied.Spec, spec, &places)
	if len(places) == 0 {
		return finding.Verdict{Status: finding.Pass, Evidence: "the specification is what kubectl applied"}, true
	}
	slices.Sort(places)
	return finding.Verdict{
		Status: finding.Fail, Message: "was edited in the cluster after it was applied",
		Evidence: "differs at " + strings.Join(places[:min(len(places), maxShown)], ", ") + " (values not shown)",
	}, true
}

// differ adds the places where a live value is not what was applied.
func differ(path string, applied, live any, places *[]string) {
	switch want := applied.(type) {
	case nil:
		return
	case map[string]any:
		have, ok := live.(map[string]any)
		if !ok && len(want) > 0 {
			*places = append(*places, path)
			return
		}
		for key, value := range want {
			differ(path+"."+key, value, have[key], places)
		}
	case []any:
		have, ok := live.([]any)
		if (!ok || len(have) != len(want)) && len(want) > 0 {
			*places = append(*places, path)
			return
		}
		for i, value := range want {
			differ(fmt.Sprintf("%s[%d]", path, i), value, have[i], places)
		}
	default:
		if !same(applied, live) {
			*places = append(*places, path)
		}
	}
}

// same compares scalars. What is empty and what is absent are one, and so are
// two ways to write a quantity.
func same(applied, live any) bool {
	if live == nil {
		return reflect.ValueOf(applied).IsZero()
	}
	a, b := fmt.Sprint(applied), fmt.Sprint(live)
	if a == b {
		return true
	}
	x, err1 := resource.ParseQuantity(a)
	y, err2 := resource.ParseQuantity(b)
	return err1 == nil && err2 == nil && x.Cmp(y) == 0
}
