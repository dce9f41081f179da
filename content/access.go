package content

import _ "embed"

//go:embed rbac.yaml
var rbac []byte

// RBAC returns the Namespace, ServiceAccount, ClusterRole and binding that the
// server needs in a cluster, as YAML.
func RBAC() []byte { return append([]byte(nil), rbac...) }
