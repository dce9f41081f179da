package terraform

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// awsRole reads a role that instances may take.
func awsRole(d *document, r *resource) {
	trust, known := r.text("assume_role_policy")
	if known && !strings.Contains(trust, "ec2.amazonaws.com") || !known && !d.rolesOfNodes()[r] {
		return
	}
	id := Identity{Address: r.address}
	arns, all := r.texts("managed_policy_arns")
	id.note(all, "managed_policy_arns")
	for _, arn := range arns {
		id.managed(arn)
	}
	inline, _ := r.blocks("inline_policy")
	for _, b := range inline {
		id.document(r.address, b, "policy")
	}
	name, _ := r.text("name")
	for _, other := range d.byType["aws_iam_role_policy_attachment"] {
		if d.isOf(other, r, name) {
			d.attached(&id, other)
		}
	}
	for _, other := range d.byType["aws_iam_role_policy"] {
		if d.isOf(other, r, name) {
			id.document(other.address, other.block, "policy")
		}
	}
	d.plan.Identities = append(d.plan.Identities, id)
}

// rolesOfNodes returns the roles that node groups refer to.
func (d *document) rolesOfNodes() map[*resource]bool {
	out := map[*resource]bool{}
	for _, group := range d.byType["aws_eks_node_group"] {
		for _, role := range d.refers(group, "node_role_arn", "aws_iam_role") {
			out[role] = true
		}
	}
	return out
}

// isOf reports whether an attachment is of a role.
func (d *document) isOf(attachment, role *resource, name string) bool {
	if of, _ := attachment.text("role"); of != "" {
		return of == name
	}
	return slices.Contains(d.refers(attachment, "role", "aws_iam_role"), role)
}

// attached reads a policy that is attached to a role.
func (d *document) attached(id *Identity, attachment *resource) {
	if arn, known := attachment.text("policy_arn"); arn != "" || known {
		id.managed(arn)
	}
	own, _ := d.named(attachment, "policy_arn", "aws_iam_policy", "arn")
	for _, policy := range own {
		id.document(policy.address, policy.block, "policy")
	}
	if arn, known := attachment.text("policy_arn"); arn == "" && !known && len(own) == 0 {
		id.note(false, attachment.address+".policy_arn")
	}
}

func (id *Identity) note(known bool, key string) {
	if !known {
		id.Unknown = append(id.Unknown, key)
	}
}

// managed notes a policy of AWS that is far more than a node needs.
func (id *Identity) managed(arn string) {
	_, name, aws := strings.Cut(arn, ":aws:policy/")
	name = name[strings.LastIndex(name, "/")+1:]
	known := []string{"AdministratorAccess", "PowerUserAccess", "SecretsManagerReadWrite", "SystemAdministrator"}
	if aws && (slices.Contains(known, name) || strings.HasSuffix(name, "FullAccess")) {
		id.Broad = append(id.Broad, "policy "+name)
	}
}

// document notes what a policy document allows on everything.
func (id *Identity) document(address string, b block, key string) {
	text, known := b.text(key)
	if !known {
		id.note(false, address+"."+key)
		return
	}
	var doc struct{ Statement statements }
	if text == "" {
		return
	}
	if json.Unmarshal([]byte(text), &doc) != nil {
		id.note(false, address+"."+key+", which is no policy document")
		return
	}
	for _, s := range doc.Statement {
		if action := s.broad(); action != "" {
			id.Broad = append(id.Broad, fmt.Sprintf("%s allows %s on every resource", address, action))
		}
	}
}

// A statement is one of a policy document of AWS.
type statement struct {
	Effect    string
	Action    oneOrMore
	NotAction oneOrMore
	Resource  oneOrMore
}

// broad returns an action that the statement allows on everything and that is
// far more than a node needs: all, all of a service, or to become somebody else.
func (s statement) broad() string {
	if s.Effect != "Allow" || !slices.Contains(s.Resource, "*") {
		return ""
	}
	if len(s.NotAction) > 0 {
		return "all but some actions"
	}
	for _, a := range s.Action {
		if strings.HasSuffix(a, ":*") || slices.Contains([]string{"*", "iam:PassRole", "sts:AssumeRole"}, a) {
			return a
		}
	}
	return ""
}

// A list in a policy document may be written as its only element.
type (
	statements []statement
	oneOrMore  []string
)

func (s *statements) UnmarshalJSON(data []byte) error { return unmarshalOne((*[]statement)(s), data) }
func (s *oneOrMore) UnmarshalJSON(data []byte) error  { return unmarshalOne((*[]string)(s), data) }

func unmarshalOne[T any](into *[]T, data []byte) error {
	if len(data) > 0 && data[0] == '[' {
		return json.Unmarshal(data, into)
	}
	var one T
	if err := json.Unmarshal(data, &one); err != nil {
		return err
	}
	*into = []T{one}
	return nil
}

// azureIdentity reads the roles that are assigned to the identity of a cluster
// and its nodes.
func (d *document) azureIdentity(cluster *resource) {
	id := Identity{Address: cluster.address}
	for _, assignment := range d.byType["azurerm_role_assignment"] {
		if !slices.Contains(d.refers(assignment, "principal_id", "azurerm_kubernetes_cluster"), cluster) {
			continue
		}
		role, known := assignment.text("role_definition_name")
		id.note(known, assignment.address+".role_definition_name")
		if slices.Contains([]string{"Owner", "Contributor", "User Access Administrator", "Role Based Access Control Administrator"}, role) {
			id.Broad = append(id.Broad, fmt.Sprintf("%s assigns %s", assignment.address, role))
		}
	}
	d.plan.Identities = append(d.plan.Identities, id)
}

// googleIdentity reads the service account of nodes. Nodes that name none have
// the default one of Compute Engine, which is an editor of the project.
func (d *document) googleIdentity(r *resource, config block, have, known bool) {
	id := Identity{Address: r.address}
	account, knownAccount := config.text("service_account")
	accounts := d.refers(r, "node_config", "google_service_account")
	switch {
	case account == "default", have && account == "" && knownAccount && len(accounts) == 0, !have && known:
		id.Broad = append(id.Broad, "the default service account of Compute Engine, an editor of its project unless the organisation forbids that")
	case !known || !knownAccount && len(accounts) == 0:
		id.note(false, "service_account")
	}
	for _, kind := range []string{"google_project_iam_member", "google_project_iam_binding"} {
		for _, grant := range d.byType[kind] {
			if role, _ := grant.text("role"); broadRole(role) && d.grants(grant, account, accounts) {
				id.Broad = append(id.Broad, fmt.Sprintf("%s gives %s of the project", grant.address, role))
			}
		}
	}
	d.plan.Identities = append(d.plan.Identities, id)
}

func broadRole(role string) bool {
	return role == "roles/owner" || role == "roles/editor" || strings.HasSuffix(role, ".admin") || strings.HasSuffix(role, "Admin")
}

// grants reports whether a grant is to a service account.
func (d *document) grants(grant *resource, account string, accounts []*resource) bool {
	member, _ := grant.text("member")
	if account != "" && slices.Contains(append(listOf(grant.block, "members"), member), "serviceAccount:"+account) {
		return true
	}
	to := append(d.refers(grant, "member", "google_service_account"), d.refers(grant, "members", "google_service_account")...)
	return slices.ContainsFunc(to, func(r *resource) bool { return slices.Contains(accounts, r) })
}
