package content

import (
	"embed"
	"io/fs"
)

//go:embed policies/*.yaml
var policies embed.FS

// Policies returns the built-in admission policies, one file each: a
// ValidatingAdmissionPolicy and its binding. The annotation
// kubeguardian.dev/control names the control that the policy defines; a policy
// with kubeguardian.dev/guards refuses what would make that control fail, which
// is judged by more than one object.
func Policies() fs.FS {
	sub, err := fs.Sub(policies, "policies")
	if err != nil {
		panic(err) // the folder is embedded
	}
	return sub
}
