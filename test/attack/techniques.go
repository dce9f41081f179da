//go:build linux

package main

import (
	"bytes"
	_ "embed"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// A technique is what triggers a rule, and what is like it and must not.
type technique struct {
	Rule    string   `yaml:"rule"`
	Host    bool     `yaml:"host"`   // outside containers
	Files   []string `yaml:"files"`  // that there are, besides programs; folders end with a slash
	Listen  []string `yaml:"listen"` // addresses and sockets where somebody listens
	Attack  program  `yaml:"attack"`
	Benign  program  `yaml:"benign"`
	Without string   `yaml:"without"` // why it is not done here
}

//go:embed techniques.yaml
var techniquesYAML []byte

// techniques reads the table: one for each of the built-in rules for system calls,
// in their order.
func techniques() ([]technique, error) {
	var all []technique
	in := yaml.NewDecoder(bytes.NewReader(techniquesYAML))
	in.KnownFields(true)
	if err := in.Decode(&all); err != nil {
		return nil, fmt.Errorf("techniques.yaml: %w", err)
	}
	return all, nil
}
