package cloud

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/fact"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// A run is one backup that was made.
type run struct {
	what string
	at   time.Time
}

// Backups says whether a backup of the cluster's state succeeded lately. Only a
// run shows that: a schedule, in the cluster or in a plan, does not.
func Backups(inv *inventory.Inventory, set *evidence.Set, now time.Time) []finding.Verdict {
	runs := slices.Concat(veleroRuns(inv), cronRuns(inv))
	slices.SortStableFunc(runs, func(a, b run) int { return cmp.Or(b.at.Compare(a.at), strings.Compare(a.what, b.what)) })
	f := finding.Verdict{Status: finding.Unknown, Subject: finding.Subject{Kind: "Cluster"}, Exposure: finding.System}
	switch planned := scheduled(inv, set); {
	case len(runs) > 0 && now.Sub(runs[0].at) <= evidence.BackupAge:
		f.Status, f.Evidence = finding.Pass, fmt.Sprintf("%s succeeded at %s", runs[0].what, runs[0].at.UTC().Format(time.RFC3339))
	case len(runs) > 0:
		f.Status, f.Message = finding.Fail, fmt.Sprintf("no backup succeeded within %d days", evidence.BackupAge/(24*time.Hour))
		f.Evidence = fmt.Sprintf("the last is %s, of %s", runs[0].what, runs[0].at.UTC().Format(time.RFC3339))
	case failedRun(inv) != "":
		f.Status, f.Message, f.Evidence = finding.Fail, "backups are made, but none succeeded", failedRun(inv)
	case planned != "":
		f.Reason = planned + " makes backups; whether one succeeded is not seen: scan the cluster, or attest it"
	default:
		return nil
	}
	return []finding.Verdict{f}
}

// veleroRuns are the backups of Velero that completed.
func veleroRuns(inv *inventory.Inventory) []run {
	var out []run
	for _, o := range inv.Kind("velero.io", "Backup") {
		phase, _, _ := unstructured.NestedString(o.Object, "status", "phase")
		at, _, _ := unstructured.NestedString(o.Object, "status", "completionTimestamp")
		if t, err := time.Parse(time.RFC3339, at); err == nil && phase == "Completed" {
			out = append(out, run{o.Subject().String(), t})
		}
	}
	return out
}

// failedRun returns a backup of Velero that did not complete.
func failedRun(inv *inventory.Inventory) string {
	for _, o := range inv.Kind("velero.io", "Backup") {
		phase, _, _ := unstructured.NestedString(o.Object, "status", "phase")
		if slices.Contains([]string{"Failed", "PartiallyFailed", "FailedValidation"}, phase) {
			return o.Subject().String() + " is " + phase
		}
	}
	return ""
}

// cronRuns are the runs of jobs that save etcd.
func cronRuns(inv *inventory.Inventory) []run {
	var out []run
	for _, w := range inv.Workloads() {
		at, _, _ := unstructured.NestedString(w.Object.Object, "status", "lastSuccessfulTime")
		if t, err := time.Parse(time.RFC3339, at); err == nil && savesEtcd(w) {
			out = append(out, run{w.Subject().String(), t})
		}
	}
	return out
}

// savesEtcd reports whether a CronJob takes a snapshot of etcd.
func savesEtcd(w *inventory.Workload) bool {
	if w.GetKind() != "CronJob" {
		return false
	}
	for _, c := range slices.Concat(w.Template.Spec.InitContainers, w.Template.Spec.Containers) {
		words := strings.Fields(strings.Join(append(slices.Clone(c.Command), c.Args...), " "))
		if i := slices.Index(words, "snapshot"); i >= 0 && slices.Contains(words[i:], "save") && strings.Contains(strings.Join(words[:i], " ")+c.Image, "etcd") {
			return true
		}
	}
	return false
}

// scheduled returns what makes backups, without saying whether they succeed.
func scheduled(inv *inventory.Inventory, set *evidence.Set) string {
	for _, o := range inv.Kind("velero.io", "Schedule") {
		if paused, _, _ := unstructured.NestedBool(o.Object, "spec", "paused"); !paused {
			return o.Subject().String()
		}
	}
	for _, w := range inv.Workloads() {
		if savesEtcd(w) {
			return w.Subject().String()
		}
	}
	all := of(set)
	for i := range all {
		for _, b := range all[i].Backups {
			if b.Paused != fact.Yes {
				return all[i].Place(b.Address)
			}
		}
	}
	return ""
}
