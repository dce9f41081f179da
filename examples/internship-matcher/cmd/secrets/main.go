// Command secrets makes the Secrets that the manifests need, new ones each time,
// and prints them for kubectl apply -f -. They are for clusters to try things
// in: the identities last a day.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/secret"
)

func main() {
	namespace := flag.String("namespace", "internship-matcher", "of the application")
	flag.Parse()
	if err := run(*namespace, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "secrets:", err)
		os.Exit(1)
	}
}

func run(namespace string, w io.Writer) error {
	secrets, err := secret.Make(namespace)
	if err != nil {
		return err
	}
	type object = map[string]any
	var items []object
	for _, name := range slices.Sorted(maps.Keys(secrets)) {
		items = append(items, object{
			"apiVersion": "v1", "kind": "Secret",
			"metadata":   object{"name": name, "namespace": namespace},
			"stringData": secrets[name],
		})
	}
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	return out.Encode(object{"apiVersion": "v1", "kind": "List", "items": items})
}
