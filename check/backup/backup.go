// Package backup says whether what applications store is backed up: by
// snapshots, by a backup operator, or by a task of their own.
//
// Files do not prove that there is no backup: the schedules of a backup operator
// stand in its own namespace.
package backup

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// A volume is a claim, or the claims of one StatefulSet.
type volume struct {
	*inventory.Object
	namespace string
	labels    map[string]string
	owner     *inventory.Workload // the StatefulSet
}

// claims reports whether a name is that of the volume, or of one of its claims.
func (v volume) claims(name string) bool {
	if v.owner == nil {
		return name == v.GetName()
	}
	for _, template := range templates(v.owner.Object) {
		if number, ok := strings.CutPrefix(name, template+"-"+v.GetName()+"-"); ok && number != "" && strings.Trim(number, "0123456789") == "" {
			return true
		}
	}
	return false
}

// templates returns the names of the claims that a StatefulSet makes.
func templates(o *inventory.Object) []string {
	list, _, _ := unstructured.NestedSlice(o.Object, "spec", "volumeClaimTemplates")
	var out []string
	for _, t := range list {
		t, _ := t.(map[string]any)
		if name, _, _ := unstructured.NestedString(t, "metadata", "name"); name != "" {
			out = append(out, name)
		}
	}
	return out
}

// Volumes says for each StatefulSet with claims, and for each other claim,
// whether something backs it up.
func Volumes(inv *inventory.Inventory) []finding.Verdict {
	var out []finding.Verdict
	for _, v := range volumes(inv) {
		f := judge(inv, v)
		f.Subject = v.Subject()
		out = append(out, f)
	}
	return out
}

func volumes(inv *inventory.Inventory) []volume {
	var sets, out []volume
	for _, w := range inv.Workloads() {
		if w.GetKind() == "StatefulSet" && len(templates(w.Object)) > 0 {
			sets = append(sets, volume{w.Object, inv.NamespaceOf(w.Object), w.Template.Labels, w})
		}
	}
	for _, o := range inv.Kind("", "PersistentVolumeClaim") {
		v := volume{o, inv.NamespaceOf(o), o.GetLabels(), nil}
		if !slices.ContainsFunc(sets, func(s volume) bool { return s.namespace == v.namespace && s.claims(o.GetName()) }) {
			out = append(out, v)
		}
	}
	return append(sets, out...)
}

// readers find what backs up a volume, each in one way.
var readers = []func(inv *inventory.Inventory, v volume) *inventory.Object{snapshot, replication, velero, cloudNativePG, task}

// kinds are read by them.
var kinds = []struct{ group, kind string }{
	{"snapshot.storage.k8s.io", "VolumeSnapshot"}, {"velero.io", "Schedule"}, {"postgresql.cnpg.io", "ScheduledBackup"}, {"batch", "CronJob"},
}

func judge(inv *inventory.Inventory, v volume) finding.Verdict {
	for _, read := range readers {
		if by := read(inv, v); by != nil {
			return finding.Verdict{Status: finding.Pass, Evidence: "backed up by " + by.Subject().String()}
		}
	}
	if inv.Origin == inventory.Files {
		return finding.Verdict{Status: finding.Unknown, Reason: "no backup is among the files; a schedule may be elsewhere: scan the cluster, or attest it"}
	}
	for _, k := range kinds {
		if reason := inv.Gap(k.group, k.kind); reason != "" {
			return finding.Verdict{Status: finding.Unknown, Reason: k.kind + " objects could not be read: " + reason}
		}
	}
	return finding.Verdict{Status: finding.Fail, Message: "no snapshot and no backup schedule is seen for its data"}
}

func snapshot(inv *inventory.Inventory, v volume) *inventory.Object {
	for _, o := range inv.Kind("snapshot.storage.k8s.io", "VolumeSnapshot") {
		claim, _, _ := unstructured.NestedString(o.Object, "spec", "source", "persistentVolumeClaimName")
		if inv.NamespaceOf(o) == v.namespace && v.claims(claim) {
			return o
		}
	}
	return nil
}

// replication looks for VolSync.
func replication(inv *inventory.Inventory, v volume) *inventory.Object {
	for _, o := range inv.Kind("volsync.backube", "ReplicationSource") {
		claim, _, _ := unstructured.NestedString(o.Object, "spec", "sourcePVC")
		if inv.NamespaceOf(o) == v.namespace && v.claims(claim) {
			return o
		}
	}
	return nil
}

func velero(inv *inventory.Inventory, v volume) *inventory.Object {
	for _, o := range inv.Kind("velero.io", "Schedule") {
		var s struct {
			Spec struct {
				Paused   bool `json:"paused"`
				Template struct {
					IncludedNamespaces []string              `json:"includedNamespaces"`
					ExcludedNamespaces []string              `json:"excludedNamespaces"`
					LabelSelector      *metav1.LabelSelector `json:"labelSelector"`
					SnapshotVolumes    *bool                 `json:"snapshotVolumes"`
				} `json:"template"`
			} `json:"spec"`
		}
		if runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &s) != nil || s.Spec.Paused {
			continue
		}
		t := s.Spec.Template
		in := len(t.IncludedNamespaces) == 0 || slices.Contains(t.IncludedNamespaces, "*") || slices.Contains(t.IncludedNamespaces, v.namespace)
		if in && !slices.Contains(t.ExcludedNamespaces, v.namespace) && (t.SnapshotVolumes == nil || *t.SnapshotVolumes) &&
			v.labels["velero.io/exclude-from-backup"] != "true" && matches(t.LabelSelector, v.labels) {
			return o
		}
	}
	return nil
}

func matches(s *metav1.LabelSelector, set map[string]string) bool {
	if s == nil {
		return true
	}
	selector, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && selector.Matches(labels.Set(set))
}

// cloudNativePG looks for the backup of the cluster that a claim belongs to.
func cloudNativePG(inv *inventory.Inventory, v volume) *inventory.Object {
	for _, o := range inv.Kind("postgresql.cnpg.io", "ScheduledBackup") {
		cluster, _, _ := unstructured.NestedString(o.Object, "spec", "cluster", "name")
		suspended, _, _ := unstructured.NestedBool(o.Object, "spec", "suspend")
		if inv.NamespaceOf(o) == v.namespace && cluster != "" && cluster == v.labels["cnpg.io/cluster"] && !suspended {
			return o
		}
	}
	return nil
}

// tool matches programs that copy data out.
var tool = regexp.MustCompile(`\b(pg_dump|pg_dumpall|pg_basebackup|pgbackrest|wal-g|barman|mysqldump|mariadb-dump|mariabackup|xtrabackup|mongodump|redis-cli\s.*--rdb|restic|kopia|borg|rclone|duplicity|etcdctl\s.*snapshot)\b`)

// task looks for a CronJob that copies the data out: it runs such a tool, and
// names the StatefulSet or its Service, or mounts the claim.
func task(inv *inventory.Inventory, v volume) *inventory.Object {
	for _, w := range inv.Workloads() {
		if w.GetKind() != "CronJob" || inv.NamespaceOf(w.Object) != v.namespace {
			continue
		}
		suspended, _, _ := unstructured.NestedBool(w.Object.Object, "spec", "suspend")
		said := words(w.Template.Spec)
		if !suspended && tool.MatchString(said) && (v.names(said) || v.mounted(w.Template.Spec)) {
			return w.Object
		}
	}
	return nil
}

// words returns what a pod is told: images, commands and literal variables.
func words(spec corev1.PodSpec) string {
	var out []string
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		out = append(out, c.Image)
		out = append(out, slices.Concat(c.Command, c.Args)...)
		for _, e := range c.Env {
			out = append(out, e.Value)
		}
	}
	return strings.Join(out, "\n")
}

// names reports whether a text has the name of the volume's workload, or of its
// Service, as a word.
func (v volume) names(text string) bool {
	if v.owner == nil {
		return false
	}
	service, _, _ := unstructured.NestedString(v.Object.Object, "spec", "serviceName")
	isName := func(r rune) bool { return r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' }
	parts := strings.FieldsFunc(text, func(r rune) bool { return !isName(r) })
	return slices.ContainsFunc(parts, func(p string) bool {
		p = strings.TrimPrefix(strings.TrimPrefix(p, "--"), "host-")
		return p == v.GetName() || service != "" && p == service || p == fmt.Sprintf("%s-0", v.GetName())
	})
}

func (v volume) mounted(spec corev1.PodSpec) bool {
	return slices.ContainsFunc(spec.Volumes, func(vol corev1.Volume) bool {
		return vol.PersistentVolumeClaim != nil && v.claims(vol.PersistentVolumeClaim.ClaimName)
	})
}
