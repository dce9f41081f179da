package content

import _ "embed"

//go:embed rbac.yaml
var rbac []byte

// RBAC returns the Namespace, ServiceAccount, rights and ConfigMaps that the
// server needs in a cluster, as YAML.
func RBAC() []byte { return append([]byte(nil), rbac...) }

//go:embed roles.yaml
var roles []byte

// Roles returns the ClusterRoles for people who use the pages and the API, as YAML.
func Roles() []byte { return append([]byte(nil), roles...) }

//go:embed replicas.yaml
var replicas []byte

// Replicas returns the Secret that several replicas of the server share, and the
// right to it, as YAML.
func Replicas() []byte { return append([]byte(nil), replicas...) }

//go:embed gatekeeper.yaml
var gatekeeper []byte

// Gatekeeper returns the definitions of Gatekeeper's kinds, for a cluster without
// Gatekeeper, and the right to write status to them, as YAML.
func Gatekeeper() []byte { return append([]byte(nil), gatekeeper...) }

//go:embed crds.yaml
var crds []byte

// CRDs returns the definitions of the kinds that users may create, as YAML.
func CRDs() []byte { return append([]byte(nil), crds...) }
