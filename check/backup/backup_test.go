package backup

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

func read(t *testing.T, origin inventory.Origin, gaps []inventory.Gap, documents ...string) *inventory.Inventory {
	t.Helper()
	inv, err := inventory.FromFiles(context.Background(), []string{"-"}, strings.NewReader(strings.Join(documents, "\n---\n")))
	if err != nil {
		t.Fatal(err)
	}
	inv, err = inventory.New(origin, inv.Objects(), gaps)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

const claimSpec = "{accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}"

func set(name, labels string) string {
	return fmt.Sprintf("{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: %s, namespace: shop}, spec: {serviceName: %s-headless, selector: {matchLabels: {app: %s}}, template: {metadata: {labels: {app: %s%s}}, spec: {containers: [{name: c, image: postgres}]}}, volumeClaimTemplates: [{metadata: {name: data}, spec: %s}]}}",
		name, name, name, name, labels, claimSpec)
}

func claim(name, labels string) string {
	return fmt.Sprintf("{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: %s, namespace: shop, labels: {%s}}, spec: %s}", name, labels, claimSpec)
}

func cron(command, env, more string) string {
	return fmt.Sprintf("{apiVersion: batch/v1, kind: CronJob, metadata: {name: task, namespace: shop}, spec: {schedule: '@daily', jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: tools, command: [sh, -c, %q], env: [%s]}]%s}}}}}}", command, env, more)
}

// Claims of a StatefulSet are judged with it, others for themselves.
func TestSubjects(t *testing.T) {
	got := Volumes(read(t, inventory.Cluster, nil, set("db", ""), claim("data-db-0", ""), claim("data-db-1", ""), claim("data-db-x", ""), claim("data-db-", ""), claim("data-other-0", "")))
	var names []string
	for _, f := range got {
		names = append(names, f.Subject.String())
	}
	want := "StatefulSet/shop/db PersistentVolumeClaim/shop/data-db- PersistentVolumeClaim/shop/data-db-x PersistentVolumeClaim/shop/data-other-0"
	if strings.Join(names, " ") != want {
		t.Errorf("subjects %v, want %s", names, want)
	}
}

func TestTasks(t *testing.T) {
	host := "{name: PGHOST, value: db}"
	mounts := ", volumes: [{name: d, persistentVolumeClaim: {claimName: data-db-0}}]"
	tests := []struct {
		name, task string
		want       finding.Status
	}{
		{"by variable", cron("pg_dump shop > /out/dump", host, ""), finding.Pass},
		{"by flag", cron("pg_dump --host=db shop", "", ""), finding.Pass},
		{"by short flag", cron("pg_dump -h db shop", "", ""), finding.Pass},
		{"by address", cron("pg_dump postgres://db.shop.svc/shop", "", ""), finding.Pass},
		{"by its Service", cron("pg_dump -h db-headless shop", "", ""), finding.Pass},
		{"by its pod", cron("pg_dump -h db-0.db-headless shop", "", ""), finding.Pass},
		{"of another", cron("pg_dump -h other-db shop", "", ""), finding.Fail},
		{"of a longer name", cron("pg_dump -h db-old shop", "", ""), finding.Fail},
		{"no dump", cron("psql -h db -c vacuum", "", ""), finding.Fail},
		{"a word with the tool in it", cron("./my_pg_dumper -h db", "", ""), finding.Fail},
		{"copies the volume", cron("restic backup /data", "", mounts), finding.Pass},
		{"reads the volume", cron("du /data", "", mounts), finding.Fail},
		{"snapshot of Redis", cron("redis-cli -h db --rdb /out/dump", "", ""), finding.Pass},
		{"ping of Redis", cron("redis-cli -h db ping", "", ""), finding.Fail},
		{"suspended", strings.Replace(cron("pg_dump -h db shop", "", ""), "schedule:", "suspend: true, schedule:", 1), finding.Fail},
		{"in another namespace", strings.Replace(cron("pg_dump -h db shop", "", ""), "namespace: shop", "namespace: ops", 1), finding.Fail},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Volumes(read(t, inventory.Cluster, nil, set("db", ""), tt.task))
			if len(got) != 1 || got[0].Status != tt.want {
				t.Errorf("%+v, want %s", got, tt.want)
			}
		})
	}
}

func TestOperators(t *testing.T) {
	velero := func(spec string) string {
		return "{apiVersion: velero.io/v1, kind: Schedule, metadata: {name: s, namespace: velero}, spec: {schedule: '@daily', " + spec + "}}"
	}
	snapshot := func(ns, name string) string {
		return fmt.Sprintf("{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshot, metadata: {name: s, namespace: %s}, spec: {source: {persistentVolumeClaimName: %s}}}", ns, name)
	}
	cnpg := func(spec string) string {
		return "{apiVersion: postgresql.cnpg.io/v1, kind: ScheduledBackup, metadata: {name: s, namespace: shop}, spec: {schedule: '@daily', " + spec + "}}"
	}
	volsync := "{apiVersion: volsync.backube/v1alpha1, kind: ReplicationSource, metadata: {name: s, namespace: shop}, spec: {sourcePVC: data}}"
	tests := []struct {
		name, volume, by string
		want             finding.Status
	}{
		{"everything", claim("data", ""), velero("template: {}"), finding.Pass},
		{"star", claim("data", ""), velero("template: {includedNamespaces: ['*']}"), finding.Pass},
		{"our namespace", claim("data", ""), velero("template: {includedNamespaces: [blog, shop]}"), finding.Pass},
		{"another namespace", claim("data", ""), velero("template: {includedNamespaces: [blog]}"), finding.Fail},
		{"but ours", claim("data", ""), velero("template: {includedNamespaces: ['*'], excludedNamespaces: [shop]}"), finding.Fail},
		{"without volumes", claim("data", ""), velero("template: {snapshotVolumes: false}"), finding.Fail},
		{"paused", claim("data", ""), velero("paused: true, template: {}"), finding.Fail},
		{"selected", claim("data", "tier: gold"), velero("template: {labelSelector: {matchLabels: {tier: gold}}}"), finding.Pass},
		{"not selected", claim("data", "tier: tin"), velero("template: {labelSelector: {matchLabels: {tier: gold}}}"), finding.Fail},
		{"exempted", claim("data", "velero.io/exclude-from-backup: 'true'"), velero("template: {}"), finding.Fail},
		{"selector that is none", claim("data", ""), velero("template: {labelSelector: {matchExpressions: [{key: a, operator: Near}]}}"), finding.Fail},
		{"snapshot", claim("data", ""), snapshot("shop", "data"), finding.Pass},
		{"snapshot of another", claim("data", ""), snapshot("shop", "data2"), finding.Fail},
		{"snapshot in another namespace", claim("data", ""), snapshot("blog", "data"), finding.Fail},
		{"snapshot of a claim of a StatefulSet", set("db", ""), snapshot("shop", "data-db-0"), finding.Pass},
		{"VolSync", claim("data", ""), volsync, finding.Pass},
		{"CloudNativePG", claim("shop-1", "cnpg.io/cluster: main"), cnpg("cluster: {name: main}"), finding.Pass},
		{"another cluster", claim("shop-1", "cnpg.io/cluster: main"), cnpg("cluster: {name: test}"), finding.Fail},
		{"no cluster", claim("shop-1", ""), cnpg("cluster: {}"), finding.Fail},
		{"suspended", claim("shop-1", "cnpg.io/cluster: main"), cnpg("suspend: true, cluster: {name: main}"), finding.Fail},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Volumes(read(t, inventory.Cluster, nil, tt.volume, tt.by))
			if len(got) != 1 || got[0].Status != tt.want {
				t.Errorf("%+v, want %s", got, tt.want)
			}
		})
	}
}

func TestSilence(t *testing.T) {
	gap := []inventory.Gap{{Kind: schema.GroupKind{Group: "velero.io", Kind: "Schedule"}, Reason: "forbidden"}}
	for name, tt := range map[string]struct {
		origin inventory.Origin
		gaps   []inventory.Gap
		want   finding.Status
	}{
		"files":                  {inventory.Files, nil, finding.Unknown},
		"cluster":                {inventory.Cluster, nil, finding.Fail},
		"cluster without rights": {inventory.Cluster, gap, finding.Unknown},
	} {
		got := Volumes(read(t, tt.origin, tt.gaps, claim("data", "")))
		if len(got) != 1 || got[0].Status != tt.want || (got[0].Status == finding.Unknown) != (got[0].Reason != "") {
			t.Errorf("%s: %+v, want %s", name, got, tt.want)
		}
	}
}
