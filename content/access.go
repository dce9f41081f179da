package content

import _ "embed"

//go:embed rbac.yaml
var rbac []byte

// RBAC returns the Namespace, ServiceAccount, ClusterRole and binding that the
// server needs in a cluster, as YAML.
func RBAC() []byte { return append([]byte(nil), rbac...) }

//go:embed crds.yaml
var crds []byte

// CRDs returns the definitions of the kinds that users may create, as YAML.
func CRDs() []byte { return append([]byte(nil), crds...) }
