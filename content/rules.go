package content

import (
	"embed"
	"io/fs"
)

//go:embed rules/*.yaml
var rules embed.FS

// Rules returns the built-in detection rules, one file for each source of
// events.
func Rules() fs.FS {
	sub, err := fs.Sub(rules, "rules")
	if err != nil {
		panic(err) // the folder is embedded
	}
	return sub
}

//go:embed audit-policy.yaml
var auditPolicy []byte

// AuditPolicy returns the audit policy to give to the API server, so that every
// built-in rule gets what it needs.
func AuditPolicy() []byte { return append([]byte(nil), auditPolicy...) }
