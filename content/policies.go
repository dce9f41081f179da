package content

import (
	"embed"
	"io/fs"
)

//go:embed policies/*.yaml
var policies embed.FS

// Policies returns the built-in admission policies, one file each: a
// ValidatingAdmissionPolicy, which is also the definition of the control that
// its annotation kubeguardian.dev/control names, and its binding.
func Policies() fs.FS {
	sub, err := fs.Sub(policies, "policies")
	if err != nil {
		panic(err) // the folder is embedded
	}
	return sub
}
