package evidence

import (
	"regexp"
	"slices"
	"strings"
)

// An imageConfig is the configuration of an image, as registries keep it.
type imageConfig struct {
	Created string `json:"created"`
	Config  *struct {
		User   string            `json:"User"`
		Env    []string          `json:"Env"`
		Labels map[string]string `json:"Labels"`
	} `json:"config"`
	History []struct {
		CreatedBy string `json:"created_by"`
	} `json:"history"`
}

// configure takes over what a document says of the image's configuration, and
// the credentials in it. A document without a config says nothing.
func (i *ImageReport) configure(c imageConfig) {
	if c.Config == nil {
		return
	}
	i.Config = &Config{
		User: c.Config.User, Created: instant(c.Created),
		Source: c.Config.Labels["org.opencontainers.image.source"],
		Commit: c.Config.Labels["org.opencontainers.image.revision"],
	}
	for _, setting := range c.Config.Env {
		if name, value, _ := strings.Cut(setting, "="); credentialName.MatchString(name) && literal(value) {
			i.addSecret(Secret{"value under the name of a secret", "environment variable " + name})
		}
	}
	for _, step := range c.History {
		for _, found := range assignment.FindAllStringSubmatch(step.CreatedBy, -1) {
			if credentialName.MatchString(found[1]) && literal(found[2]) {
				i.addSecret(Secret{"value under the name of a secret", "build step that sets " + found[1]})
			}
		}
	}
}

// addSecret adds a secret once: build steps repeat their arguments.
func (i *ImageReport) addSecret(s Secret) {
	if !slices.Contains(i.Secrets, s) {
		i.Secrets = append(i.Secrets, s)
	}
}

var (
	// credentialName matches a variable whose last word says that the value is a
	// credential. Public keys and key ids, as in GPG_KEY, are none.
	credentialName = regexp.MustCompile(`(?i)(^|_)(pass(w(or)?d|phrase)?|pwd|secret|token|api_?key|(access|secret|private|encryption|signing)_key|credentials?)$`)

	// assignment matches NAME=value in a build step.
	assignment = regexp.MustCompile(`(?:^|[\s|"'])([A-Za-z_][A-Za-z0-9_]*)=("[^"]*"|'[^']*'|\S+)`)

	// placeholder matches values that are no literal: references, paths, switches
	// and what is redacted.
	placeholder = regexp.MustCompile(`(?i)^(\$.*|/.*|file:.*|true|false|yes|no|none|null|x+|\*+|<.*>|.{0,3})$`)
)

func literal(value string) bool { return !placeholder.MatchString(strings.Trim(value, `"'`)) }
