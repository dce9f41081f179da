package content

import (
	"embed"
	"io/fs"
)

//go:embed defaults/*.yaml
var defaults embed.FS

// Defaults returns the built-in mutating policies, one file each: a
// MutatingAdmissionPolicy that sets what pods leave unsaid, so that the control
// that its annotation kubeguardian.dev/control names passes, and its binding.
// They touch nothing outside namespaces labelled kubeguardian.dev/defaults=true.
func Defaults() fs.FS {
	sub, err := fs.Sub(defaults, "defaults")
	if err != nil {
		panic(err) // the folder is embedded
	}
	return sub
}
