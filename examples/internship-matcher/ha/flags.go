package ha

import (
	"flag"
	"fmt"
	"strings"
)

// Flags of all programs of a cluster.
type Flags struct {
	Nodes       []Peer
	IdentityDir string
	StatusPort  int
	Health      string
	Databases   map[string]string
}

// NewFlags defines them.
func NewFlags(set *flag.FlagSet) *Flags {
	f := &Flags{Databases: map[string]string{}}
	set.Func("nodes", "all nodes, as `ID:NAME:HOST`, separated by commas", func(v string) (err error) {
		f.Nodes, err = ReadPeers(v)
		return err
	})
	set.StringVar(&f.IdentityDir, "identity", "", "`folder` of the own certificate (tls.crt), its key (tls.key) and whom to trust (ca.crt)")
	set.IntVar(&f.StatusPort, "status-port", 8009, "`port` on which nodes ask each other, the same on all")
	set.StringVar(&f.Health, "health", ":8081", "`address` for probes, HTTP: /livez, /readyz")
	set.Func("database", "`NAME=FILE`: a database, whose name is also its role's, and the file of its password; repeatable", func(v string) error {
		name, file, ok := strings.Cut(v, "=")
		if !ok {
			return fmt.Errorf("%q is not NAME=FILE", v)
		}
		f.Databases[name] = file
		return nil
	})
	return f
}
