package team_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/alert/team"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

const cluster = `
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {kubeguardian.dev/owner: team-shop}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: bare}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop, uid: d1, annotations: {kubeguardian.dev/owner: " team-\tweb\u202e "}}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}}
---
{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: web-1, namespace: shop, uid: r1, ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, uid: d1, controller: true}]}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-1-x, namespace: shop, uid: p1, labels: {a: b}, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-1, uid: r1, controller: true}]}, spec: {containers: [{name: c, image: i}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: alone, namespace: shop, labels: {team: payments}, annotations: {kubeguardian.dev/owner: team-alone}}, spec: {containers: [{name: c, image: i}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: nobody, namespace: bare, annotations: {kubeguardian.dev/owner: "\n"}}, spec: {containers: [{name: c, image: i}]}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: view-all, labels: {kubeguardian.dev/owner: platform}}, rules: []}
`

func read(t *testing.T) *inventory.Inventory {
	t.Helper()
	file := filepath.Join(t.TempDir(), "cluster.yaml")
	if err := os.WriteFile(file, []byte(cluster), 0o600); err != nil {
		t.Fatal(err)
	}
	inv, err := inventory.FromFiles(t.Context(), []string{file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func TestOwn(t *testing.T) {
	inv := read(t)
	subject := func(version, kind, namespace, name string) alert.Alert {
		return alert.Alert{Subject: finding.Subject{APIVersion: version, Kind: kind, Namespace: namespace, Name: name}}
	}
	gone := subject("v1", "Pod", "bare", "gone")
	gone.Entities = []alert.Entity{{Kind: alert.User, Name: "eve"}, {Kind: alert.Workload, Name: "Deployment/shop/web"}, {Kind: alert.Workload, Name: "odd"}}
	owned := subject("v1", "Pod", "shop", "alone")
	owned.Owner = "known before"
	for name, c := range map[string]struct {
		alert alert.Alert
		want  string
	}{
		"by its own annotation":               {subject("v1", "Pod", "shop", "alone"), "team-alone"},
		"by what made it":                     {subject("v1", "Pod", "shop", "web-1-x"), "team- web"},
		"by its workload, when it is gone":    {gone, "team- web"},
		"by its namespace":                    {subject("v1", "Secret", "shop", "db"), "team-shop"},
		"of the cluster":                      {subject("rbac.authorization.k8s.io/v1", "ClusterRole", "", "view-all"), "platform"},
		"the namespace itself":                {subject("v1", "Namespace", "", "shop"), "team-shop"},
		"of nobody, with an empty annotation": {subject("v1", "Pod", "bare", "nobody"), ""},
		"of a namespace that is not there":    {subject("v1", "Pod", "none", "x"), ""},
		"of nothing":                          {alert.Alert{}, ""},
		"known before":                        {owned, "known before"},
	} {
		alerts := []alert.Alert{c.alert}
		if team.Keys([]string{"kubeguardian.dev/owner"}).Own(inv, alerts); alerts[0].Owner != c.want {
			t.Errorf("%s: %q, want %q", name, alerts[0].Owner, c.want)
		}
	}
	alerts := []alert.Alert{subject("v1", "Pod", "shop", "alone")}
	if team.Keys(nil).Own(inv, alerts); alerts[0].Owner != "" {
		t.Errorf("without keys it is %q", alerts[0].Owner)
	}
	if team.Keys([]string{"team"}).Own(nil, alerts); alerts[0].Owner != "" {
		t.Errorf("without an inventory it is %q", alerts[0].Owner)
	}
	if team.Keys([]string{"team", "kubeguardian.dev/owner"}).Own(inv, alerts); alerts[0].Owner != "payments" {
		t.Errorf("by the first key it is %q", alerts[0].Owner)
	}
}

// TestInvolve: an alert about a pod involves what made the pod, whoever else it
// involves, and nothing that is not known.
func TestInvolve(t *testing.T) {
	inv := read(t)
	pod := func(name string, entities ...alert.Entity) alert.Alert {
		return alert.Alert{Subject: finding.Subject{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: name}, Entities: entities}
	}
	user, web := alert.Entity{Kind: alert.User, Name: "ada"}, alert.Entity{Kind: alert.Workload, Name: "Deployment/shop/web"}
	other := alert.Entity{Kind: alert.Workload, Name: "Deployment/shop/other"}
	shared := append(make([]alert.Entity, 0, 4), user)
	alerts := []alert.Alert{pod("web-1-x", shared...), pod("web-1-x", other), pod("alone", user), pod("none"), {Subject: finding.Subject{Kind: "Secret", Name: "web-1-x"}}}
	alerts[0].Entities = shared
	team.Involve(nil, alerts)
	if len(alerts[0].Entities) != 1 {
		t.Error("without a cluster something is known")
	}
	team.Involve(inv, alerts)
	for i, want := range [][]alert.Entity{{user, web}, {other}, {user}, nil, nil} {
		if !slices.Equal(alerts[i].Entities, want) {
			t.Errorf("alert %d involves %v, want %v", i, alerts[i].Entities, want)
		}
	}
	if shared[:2][1] != (alert.Entity{}) {
		t.Error("the entities of others are written to")
	}
}

func TestLongName(t *testing.T) {
	file := filepath.Join(t.TempDir(), "long.yaml")
	if err := os.WriteFile(file, []byte("{apiVersion: v1, kind: Namespace, metadata: {name: shop, annotations: {owner: "+strings.Repeat("é", 200)+"}}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	inv, err := inventory.FromFiles(t.Context(), []string{file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	alerts := []alert.Alert{{Subject: finding.Subject{Namespace: "shop"}}}
	if team.Keys([]string{"owner"}).Own(inv, alerts); alerts[0].Owner != strings.Repeat("é", 50) {
		t.Errorf("it is %q", alerts[0].Owner)
	}
}
