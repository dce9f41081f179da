package storage_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/check/storage"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

func TestEncrypted(t *testing.T) {
	class := func(provisioner, parameters string) string {
		return fmt.Sprintf("---\n{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: fast}, provisioner: %s, parameters: {%s}}\n", provisioner, parameters)
	}
	volume := func(spec string) string {
		return "---\n{apiVersion: v1, kind: PersistentVolume, metadata: {name: v}, spec: {storageClassName: fast, " + spec + "}}\n"
	}
	ebs := volume("csi: {driver: ebs.csi.aws.com, volumeHandle: x}")
	for name, tt := range map[string]struct {
		manifests string
		want      string
	}{
		"class that encrypts":         {class("ebs.csi.aws.com", "encrypted: 'true'"), "pass"},
		"class that does not":         {class("ebs.csi.aws.com", "encrypted: 'false'"), "fail"},
		"class that does not say":     {class("ebs.csi.aws.com", "type: gp3"), "unknown"},
		"a provider that always does": {class("pd.csi.storage.gke.io", ""), "pass"},
		"another driver":              {class("nfs.csi.k8s.io", "encrypted: 'true'"), "unknown"},
		"a driver under a prefix":     {class("rook-ceph.rbd.csi.ceph.com", "encrypted: 'true'"), "pass"},
		"a name that only ends so":    {class("notebs.csi.aws.com", "encrypted: 'true'"), "unknown"},
		"the old name":                {class("kubernetes.io/aws-ebs", "encrypted: 'true'"), "pass"},
		"volume and class":            {ebs + class("ebs.csi.aws.com", "encrypted: 'true'"), "pass pass"},
		"volume of a bad class":       {ebs + class("ebs.csi.aws.com", "encrypted: 'false'"), "fail fail"},
		"volume alone":                {ebs, "unknown"},
		"volume of Azure":             {volume("csi: {driver: disk.csi.azure.com, volumeHandle: x}"), "pass"},
		"volume of the API":           {volume("gcePersistentDisk: {pdName: d}"), "pass"},
		"a folder of the node":        {volume("hostPath: {path: /data}"), "unknown"},
		"NFS":                         {volume("nfs: {server: s, path: /}"), "unknown"},
	} {
		inv, err := inventory.FromFiles(context.Background(), []string{"-"}, strings.NewReader(tt.manifests))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range storage.Encrypted(inv) {
			got = append(got, string(f.Status))
			if f.Status == finding.Fail && f.Message == "" || f.Status == finding.Unknown && f.Reason == "" {
				t.Errorf("%s: %+v", name, f)
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %v, want %s", name, got, tt.want)
		}
	}
}
