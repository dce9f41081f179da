// Package storage says whether volumes are encrypted, as far as their drivers
// or classes show it.
package storage

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// A driver is what is known of a CSI driver.
type driver struct {
	name string
	// always says that the provider encrypts every volume, with no way to have
	// it otherwise.
	always bool
	// parameter of the class says by "true" that its volumes are encrypted.
	parameter string
}

// drivers, from the documentation of each.
var drivers = []driver{
	{name: "blockvolume.csi.oraclecloud.com", always: true},
	{name: "dobs.csi.digitalocean.com", always: true},
	{name: "disk.csi.azure.com", always: true},
	{name: "file.csi.azure.com", always: true},
	{name: "filestore.csi.storage.gke.io", always: true},
	{name: "pd.csi.storage.gke.io", always: true},
	{name: "vpc.block.csi.ibm.io", always: true},
	{name: "driver.longhorn.io", parameter: "encrypted"},
	{name: "ebs.csi.aws.com", parameter: "encrypted"},
	{name: "efs.csi.aws.com", parameter: "encrypted"},
	{name: "linodebs.csi.linode.com", parameter: "linodebs.csi.linode.com/luks-encrypted"},
	{name: "rbd.csi.ceph.com", parameter: "encrypted"},
	{name: "cephfs.csi.ceph.com", parameter: "encrypted"},
}

// inTree are the drivers that took over the volumes of the API itself.
var inTree = map[string]string{
	"awsElasticBlockStore": "ebs.csi.aws.com", "azureDisk": "disk.csi.azure.com", "azureFile": "file.csi.azure.com", "gcePersistentDisk": "pd.csi.storage.gke.io",
	"kubernetes.io/aws-ebs": "ebs.csi.aws.com", "kubernetes.io/azure-disk": "disk.csi.azure.com", "kubernetes.io/azure-file": "file.csi.azure.com",
	"kubernetes.io/gce-pd": "pd.csi.storage.gke.io",
}

// Encrypted says for each volume, and for each class that makes volumes,
// whether what is written there is encrypted on the disk.
func Encrypted(inv *inventory.Inventory) []finding.Verdict {
	var out []finding.Verdict
	for _, o := range inv.Kind("", "PersistentVolume") {
		f := volume(inv, o)
		f.Subject, f.Exposure = o.Subject(), finding.System
		out = append(out, f)
	}
	for _, o := range inv.Kind("storage.k8s.io", "StorageClass") {
		f := class(text(o, "provisioner"), o)
		f.Subject, f.Exposure = o.Subject(), finding.System
		out = append(out, f)
	}
	return out
}

// volume judges a volume by its driver, and by the class that made it.
func volume(inv *inventory.Inventory, o *inventory.Object) finding.Verdict {
	name := text(o, "spec", "csi", "driver")
	for field, by := range inTree {
		if spec, _, _ := unstructured.NestedMap(o.Object, "spec", field); spec != nil {
			name = by
		}
	}
	if name == "" {
		return finding.Verdict{Status: finding.Unknown, Reason: "nothing shows whether the disk of the volume is encrypted; attest it"}
	}
	return class(name, inv.Get("storage.k8s.io", "StorageClass", "", text(o, "spec", "storageClassName")))
}

// class judges the volumes of a driver by their class, which may be nil.
func class(name string, o *inventory.Object) finding.Verdict {
	if by, ok := inTree[name]; ok {
		name = by
	}
	at := slices.IndexFunc(drivers, func(d driver) bool { return name == d.name || strings.HasSuffix(name, "."+d.name) })
	if at < 0 {
		return finding.Verdict{Status: finding.Unknown, Reason: "driver " + name + " does not show whether volumes are encrypted; attest it"}
	}
	d := drivers[at]
	switch {
	case d.always:
		return finding.Verdict{Status: finding.Pass, Evidence: "the provider of " + d.name + " encrypts every volume"}
	case o == nil:
		return finding.Verdict{Status: finding.Unknown, Reason: "the class of the volume is not here; it shows whether " + d.name + " encrypts"}
	}
	switch value := text(o, "parameters", d.parameter); strings.ToLower(value) {
	case "true":
		return finding.Verdict{Status: finding.Pass, Evidence: d.parameter + `: "true"`}
	case "false":
		return finding.Verdict{Status: finding.Fail, Message: "volumes are not encrypted", Evidence: "StorageClass/" + o.GetName() + ": " + d.parameter + `: "false"`}
	}
	return finding.Verdict{Status: finding.Unknown, Reason: "StorageClass/" + o.GetName() + " does not set " + d.parameter + "; the account or the disks may encrypt all the same"}
}

func text(o *inventory.Object, path ...string) string {
	s, _, _ := unstructured.NestedString(o.Object, path...)
	return s
}
