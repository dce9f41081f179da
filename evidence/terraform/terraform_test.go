package terraform

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	tfjson "github.com/hashicorp/terraform-json"

	"github.com/kubeguardian/kubeguardian/fact"
)

// modules reads a plan that Terraform 1.11 made of a module that is called with
// the id of one instance of a resource, and whose output is used.
func modules(t *testing.T) *document {
	t.Helper()
	data := read(t, "modules.plan.json")
	var plan tfjson.Plan
	if err := plan.UnmarshalJSON(data); err != nil {
		t.Fatal(err)
	}
	d := &document{plan: &Plan{}, config: newConfiguration(plan.Config), unknown: map[string]any{}}
	for _, c := range plan.ResourceChanges {
		d.unknown[c.Address] = c.Change.AfterUnknown
	}
	if err := d.collect(plan.PlannedValues); err != nil {
		t.Fatal(err)
	}
	return d
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (d *document) at(t *testing.T, address string) *resource {
	t.Helper()
	for _, r := range d.resources {
		if r.address == address {
			return r
		}
	}
	t.Fatalf("no resource %s", address)
	return nil
}

func TestReferences(t *testing.T) {
	d := modules(t)
	for _, tt := range []struct{ of, want string }{
		{"module.cluster[0].terraform_data.inner", `terraform_data.role["c"]`},                       // through a variable
		{"terraform_data.uses", `module.cluster[0].terraform_data.inner terraform_data.role["a.b"]`}, // through an output, and with a dot in the index
		{`terraform_data.role["c"]`, ""},
	} {
		var got []string
		for range 2 { // the second time from memory
			got = nil
			for _, r := range d.refers(d.at(t, tt.of), "input", "terraform_data") {
				got = append(got, r.address)
			}
		}
		if slices.Sort(got); strings.Join(got, " ") != tt.want {
			t.Errorf("%s refers to %q, want %q", tt.of, got, tt.want)
		}
	}
	if got := d.refers(d.at(t, "terraform_data.uses"), "input", "aws_lb"); len(got) > 0 {
		t.Errorf("references of another kind: %v", got)
	}
}

// TestPending tells what is known only after apply from what is not set.
func TestPending(t *testing.T) {
	d := modules(t)
	role, uses := d.at(t, `terraform_data.role["c"]`), d.at(t, "terraform_data.uses")
	if !uses.pending("input") {
		t.Error("input holds a value that is known only after apply")
	}
	if v, known := role.text("input"); v != "c" || !known {
		t.Errorf("input %q, %t", v, known)
	}
	if role.pending("id") { // computed, and not set: the provider's business
		t.Error("id is not set")
	}
	role.written["id"] = &tfjson.Expression{}
	if !role.pending("id") {
		t.Error("id is set to what is known only after apply")
	}
	role.written = nil // without a configuration nothing is known to be unset
	if v, known := role.text("id"); v != "" || known {
		t.Errorf("id %q, %t", v, known)
	}
}

func TestReadPlanAndState(t *testing.T) {
	plan, err := Read(read(t, "modules.plan.json"))
	if err != nil {
		t.Fatal(err)
	}
	if plan.State || plan.Version != "1.11.4" || plan.Resources != 4 || plan.Time.Format(time.DateOnly) != "2026-11-26" || !slices.Equal(plan.Kinds, []string{"terraform_data"}) {
		t.Errorf("plan %+v", plan)
	}
	state, err := Read(read(t, "modules.state.json"))
	if err != nil {
		t.Fatal(err)
	}
	if !state.State || state.Resources != 4 || !state.Time.IsZero() {
		t.Errorf("state %+v", state)
	}
	dated, err := Read([]byte(strings.Replace(string(read(t, "modules.state.json")), "{", `{"seenAt": "2026-11-20T00:00:00Z",`, 1)))
	if err != nil || dated.Time.Day() != 20 {
		t.Errorf("dated state %+v, %v", dated, err)
	}
}

func TestReadBadInput(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"no JSON":     {`{`, "read Terraform document"},
		"new version": {`{"format_version": "9.0", "planned_values": {}}`, "unsupported plan format version"},
		"no version":  {`{"planned_values": {}}`, "format version is missing"},
		"state":       {`{"format_version": "9.0", "values": {}}`, "read Terraform state"},
		"no time":     {`{"format_version": "1.2", "timestamp": "today", "planned_values": {}}`, `timestamp "today" is not a time`},
		"wrong shape": {`{"format_version": "1.2", "planned_values": []}`, "read Terraform plan"},
	} {
		if plan, err := Read([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v, want %s", name, plan, err, tt.want)
		}
	}
	if plan, err := Read([]byte(`{"format_version": "1.2", "planned_values": {"root_module": {"resources": [null], "child_modules": [null]}}, "resource_changes": [null]}`)); err != nil || plan.Resources != 0 {
		t.Errorf("holes: %v, %v", plan, err)
	}
	many := make([]map[string]string, maxResources+1)
	for i := range many {
		many[i] = map[string]string{"address": "a.b", "mode": "managed", "type": "a", "name": "b"}
	}
	data, err := json.Marshal(map[string]any{"format_version": "1.2", "planned_values": map[string]any{"root_module": map[string]any{"resources": many}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Read(data); err == nil || !strings.Contains(err.Error(), "more than 20000 resources") {
		t.Errorf("too many: %v", err)
	}
}

// stateOf reads a state with one resource in a child module.
func stateOf(t *testing.T, kind, values string) *Plan {
	t.Helper()
	plan, err := Read([]byte(`{"format_version": "1.0", "values": {"root_module": {"child_modules": [{"address": "module.m", "resources": [
		{"address": "module.m.` + kind + `.x", "mode": "managed", "type": "` + kind + `", "name": "x", "values": ` + values + `},
		{"address": "module.m.data.` + kind + `.y", "mode": "data", "type": "` + kind + `", "name": "y", "values": {}}]}]}}}`))
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func TestClusters(t *testing.T) {
	for name, tt := range map[string]struct {
		kind, values string
		want         Cluster
	}{
		"EKS by default": {"aws_eks_cluster", `{"vpc_config": [{}]}`,
			Cluster{Public: yes, From: []string{"0.0.0.0/0"}, AuditLog: no, SecretEncryption: no}},
		"EKS": {"aws_eks_cluster", `{"vpc_config": [{"endpoint_public_access": false}], "enabled_cluster_log_types": ["audit"], "encryption_config": [{}], "compute_config": [{"enabled": true}]}`,
			Cluster{Public: no, From: []string{"0.0.0.0/0"}, AuditLog: yes, SecretEncryption: yes, WorkloadIdentity: yes}},
		"AKS": {"azurerm_kubernetes_cluster", `{"api_server_authorized_ip_ranges": ["198.51.100.1/32"], "oms_agent": [{}], "key_management_service": [{}]}`,
			Cluster{Public: yes, From: []string{"198.51.100.1/32"}, AuditLog: no, ContainerLog: yes, SecretEncryption: yes, WorkloadIdentity: no}},
		"GKE": {"google_container_cluster", `{"enable_autopilot": true, "private_cluster_config": [{"enable_private_endpoint": true}], "database_encryption": [{"state": "ENCRYPTED"}], "logging_service": "none"}`,
			Cluster{Public: no, From: []string{"0.0.0.0/0"}, AuditLog: yes, LogDays: 400, ContainerLog: no, SecretEncryption: yes, WorkloadIdentity: yes}},
	} {
		plan := stateOf(t, tt.kind, tt.values)
		tt.want.Address = "module.m." + tt.kind + ".x"
		if len(plan.Clusters) != 1 {
			t.Fatalf("%s: %+v", name, plan)
		}
		have, _ := json.Marshal(plan.Clusters[0])
		want, _ := json.Marshal(tt.want)
		if string(have) != string(want) {
			t.Errorf("%s:\n%s, want\n%s", name, have, want)
		}
	}
}

func TestVolumesAndBackups(t *testing.T) {
	for values, want := range map[string]fact.Fact{`{"encrypted": true}`: yes, `{"encrypted": false}`: no, `{}`: no} {
		if got := stateOf(t, "aws_ebs_volume", values).Volumes[0].Encrypted; got != want {
			t.Errorf("%s: %d, want %d", values, got, want)
		}
	}
	if got := stateOf(t, "google_gke_backup_backup_plan", `{"backup_schedule": [{"paused": true}]}`).Backups; len(got) != 1 || got[0].Paused != yes {
		t.Errorf("backups %+v", got)
	}
}

func TestPolicyDocuments(t *testing.T) {
	for doc, want := range map[string]string{
		`{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}`:                                   "x allows * on every resource",
		`{"Statement": [{"Effect": "Allow", "Action": ["ec2:Describe*", "iam:PassRole"], "Resource": ["*"]}]}`: "x allows iam:PassRole on every resource",
		`{"Statement": [{"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}]}`:                          "x allows all but some actions on every resource",
		`{"Statement": [{"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"}]}`:                     "",
		`{"Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]}`:                                  "",
		`{"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::logs"}]}`:              "",
		``: "",
	} {
		var id Identity
		id.document("x", block{values: map[string]any{"policy": doc}}, "policy")
		if got := strings.Join(id.Broad, ", "); got != want || len(id.Unknown) > 0 {
			t.Errorf("%s: %q, want %q; unknown %v", doc, got, want, id.Unknown)
		}
	}
	for _, doc := range []string{"{", `{"Statement": 3}`, `{"Statement": {"Action": {}}}`} {
		var id Identity
		id.document("x", block{values: map[string]any{"policy": doc}}, "policy")
		if len(id.Unknown) != 1 {
			t.Errorf("%s: unknown %v", doc, id.Unknown)
		}
	}
}

func TestParent(t *testing.T) {
	for module, want := range map[string]string{"module.a": "", "module.a.module.b": "module.a", "": ""} {
		if got := parent(module); got != want {
			t.Errorf("%q: %q, want %q", module, got, want)
		}
	}
	if got := plain(`module.a["x.y]\"[0]"].b.c[12]`); got != "module.a.b.c" {
		t.Errorf("plain %q", got)
	}
}

func FuzzRead(f *testing.F) {
	for _, name := range []string{"modules.plan.json", "modules.state.json"} {
		data, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for kind := range readers {
		f.Add([]byte(`{"format_version":"1.0","planned_values":{"root_module":{"resources":[{"address":"` + kind + `.x","mode":"managed","type":"` + kind + `","name":"x","values":{"ingress":[{}],"rule":[{"a":1}]}}]}}}`))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if plan, err := Read(data); (plan == nil) == (err == nil) {
			t.Errorf("%v, %v", plan, err)
		}
	})
}
