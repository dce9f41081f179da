package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"github.com/kubeguardian/kubeguardian/audit"
	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/policy"
)

// An audited is what an audit of many objects costs; times are of all
// processors.
type audited struct {
	Objects, Policies, Violations int
	Full                          time.Duration // judging all
	Changed                       time.Duration // judging 100 that have changed
	Inventory, Memory             int           // KiB: of the objects alone, and at most
}

// auditAll audits objects with all built-in policies, then 100 of them that have
// changed.
func auditAll(objects int) error {
	debug.SetGCPercent(30) // as "kubeguardian serve" does
	ctx := context.Background()
	files, err := content.Read[policy.File](content.Policies())
	if err != nil {
		return err
	}
	set, err := policy.Load(files...)
	if err != nil {
		return err
	}
	inv, err := written(ctx, objects)
	if err != nil {
		return err
	}
	debug.FreeOSMemory()                                                          // of reading; a live inventory is not read from text
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // the peak begins anew
		return err
	}
	base, err := peak()
	if err != nil {
		return err
	}
	auditor, r := audit.New(set), audited{Objects: objects, Policies: set.Len(), Inventory: base}
	began := cpu()
	result, err := auditor.Pass(ctx, inv, false)
	if err != nil {
		return err
	}
	r.Full = cpu() - began
	for range result.Violations() {
		r.Violations++
	}
	changed := slices.Clone(inv.Objects())
	for i := range min(100, objects) {
		changed[i] = &inventory.Object{Unstructured: changed[i].DeepCopy()}
	}
	if inv, err = inventory.New(inventory.Cluster, changed, nil); err != nil {
		return err
	}
	began = cpu()
	if result, err = auditor.Pass(ctx, inv, false); err != nil {
		return err
	}
	r.Changed = cpu() - began
	if want := min(100, objects); result.Judged != want {
		return fmt.Errorf("audit judged %d changed objects, want %d", result.Judged, want)
	}
	if r.Memory, err = peak(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// written returns an inventory of the objects that manifests writes, and of
// their namespaces. They are read page by page, as those of a cluster are.
func written(ctx context.Context, objects int) (*inventory.Inventory, error) {
	const page = 500
	var all []*inventory.Object
	for first := 0; first < objects; first += page {
		var text bytes.Buffer
		if first == 0 {
			namespaces(&text)
		}
		if err := manifests(&text, first, min(first+page, objects-teams)); err != nil {
			return nil, err
		}
		read, err := inventory.Read(ctx, inventory.FileInput{Paths: []string{"-"}, Stdin: &text})
		if err != nil {
			return nil, err
		}
		all = append(all, read.Objects()...)
	}
	return inventory.New(inventory.Cluster, all, nil)
}

const teams = 50

func namespaces(text *bytes.Buffer) {
	for i := range teams {
		fmt.Fprintf(text, "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: team-%d, labels: {kubernetes.io/metadata.name: team-%d}}\n", i, i)
	}
}
