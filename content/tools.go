package content

import (
	"embed"
	"io/fs"
)

//go:embed tools/*.yaml
var tools embed.FS

// Tools returns the matrix of tools: for each level what is needed, and what
// serves it on each cloud and as open source.
func Tools() fs.FS {
	sub, err := fs.Sub(tools, "tools")
	if err != nil {
		panic(err) // the folder is embedded
	}
	return sub
}
