package content

import (
	"embed"
	"io/fs"
)

//go:embed controls/*.yaml
var controls embed.FS

// Controls returns the built-in catalogue: its version, and one file of
// controls for each level and area.
func Controls() fs.FS {
	sub, err := fs.Sub(controls, "controls")
	if err != nil {
		panic(err) // the folder is embedded
	}
	return sub
}
