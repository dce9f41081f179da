package access

import "slices"

// A Role is a set of permissions. Each role has those of the one before.
type Role string

// The roles.
const (
	Viewer    Role = "viewer"    // reads what there is
	Responder Role = "responder" // also deals with incidents
	Admin     Role = "admin"     // also changes how the server works, and reads what people did
)

// Roles returns all roles, the one with the fewest permissions first.
func Roles() []Role { return []Role{Viewer, Responder, Admin} }

// added has what each role may beyond the one before it. The ClusterRoles that
// are published for the cluster say the same.
var added = map[Role][]Permission{
	Viewer: {
		"get alerts", "list alerts",
		"get incidents", "list incidents",
		"get findings", "list findings",
		"get decisions", "list decisions",
		"get policies", "list policies",
		"get deliveries", "list deliveries",
		"get health",
	},
	Responder: {
		"update incidents",
		"update deliveries", // try one again
		"create evaluations",
	},
	Admin: {
		"get settings", "list settings", "update settings",
		"create policies", "update policies", "delete policies",
		"get actions", "list actions",
	},
}

// Permissions returns all that the role may.
func (r Role) Permissions() (out []Permission) {
	for _, role := range Roles() {
		out = append(out, added[role]...)
		if role == r {
			return out
		}
	}
	return nil // no role of ours
}

// Allows reports whether the role has a permission.
func (r Role) Allows(p Permission) bool { return slices.Contains(r.Permissions(), p) }

// Role returns the first role that has the permission, "" if none has.
func (p Permission) Role() Role {
	for _, role := range Roles() {
		if slices.Contains(added[role], p) {
			return role
		}
	}
	return ""
}
