package rule

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// EngineVersion is the version of Falco's rule engine that this one answers to.
const EngineVersion = "0.63.0"

// pluginVersions are the versions of Falco's plugins that this engine answers
// to.
var pluginVersions = map[string]string{"k8saudit": "0.18.0", "json": "0.7.4", "container": "0.7.1"}

var semver = regexp.MustCompile(`^(\d{1,9})\.(\d{1,9})\.(\d{1,9})(?:[-+][0-9A-Za-z.+-]*)?$`)

// version returns the three numbers of a version.
func version(s string) (v [3]int, ok bool) {
	m := semver.FindStringSubmatch(s)
	if m == nil {
		return v, false
	}
	for i := range v {
		v[i], _ = strconv.Atoi(m[i+1]) // digits
	}
	return v, true
}

// serves reports whether a version does for what is required: the same major
// one, and not older.
func serves(have, required string) bool {
	h, _ := version(have)
	r, ok := version(required)
	return ok && h[0] == r[0] && slices.Compare(h[:], r[:]) >= 0
}

func (it *item) readEngineVersion() {
	n := it.scalarNode("required_engine_version")
	if n == nil {
		return
	}
	required := n.Value
	if _, err := strconv.ParseUint(required, 10, 31); err == nil {
		required = "0." + required + ".0"
	}
	if _, ok := version(required); !ok {
		it.fail(n, fmt.Sprintf("Unable to parse engine version '%s' as a semver string. Expected \"x.y.z\" semver format.", n.Value))
		return
	}
	if !serves(EngineVersion, required) {
		it.wrong(n, fmt.Sprintf("Rules require engine version %s, but engine version is %s", required, EngineVersion))
	}
}

// A requirement is a plugin that rules need.
type requirement struct{ name, version string }

func (it *item) readPluginVersions() {
	n := it.values["required_plugin_versions"]
	if n.Kind != yaml.SequenceNode {
		it.fail(n, "Value of required_plugin_versions must be a sequence")
		return
	}
	for _, entry := range n.Content {
		group := it.alternatives(resolve(entry))
		if len(group) > 0 && !slices.ContainsFunc(group, requirement.met) {
			var names []string
			for _, r := range group {
				names = append(names, r.name+":"+r.version)
			}
			it.wrong(entry, "Plugin requirement not satisfied, must load one of: "+strings.Join(names, ", "))
		}
	}
}

func (r requirement) met() bool {
	have, ok := pluginVersions[r.name]
	return ok && serves(have, r.version)
}

// alternatives returns a requirement and its alternatives, none after a mistake.
func (it *item) alternatives(n *yaml.Node) []requirement {
	first, more, ok := it.requirement(n)
	if !ok {
		return nil
	}
	group := []requirement{first}
	if more != nil && more.Kind != yaml.SequenceNode {
		it.failIn("required plugin versions entry", more, "Value of alternatives must be a sequence")
		return nil
	}
	if more == nil {
		return group
	}
	for _, a := range more.Content {
		r, _, ok := it.requirement(resolve(a))
		if !ok {
			return nil
		}
		if slices.ContainsFunc(group, func(o requirement) bool { return o.name == r.name }) {
			it.failIn("required plugin versions alternative", a, fmt.Sprintf("Defined multiple alternative version requirements for plugin '%s'", r.name))
			return nil
		}
		group = append(group, r)
	}
	return group
}

func (it *item) requirement(n *yaml.Node) (r requirement, alternatives *yaml.Node, ok bool) {
	if n.Kind != yaml.MappingNode {
		it.failIn("required plugin versions entry", n, "Value of a required plugin must be a map")
		return r, nil, false
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch v := resolve(n.Content[i+1]); n.Content[i].Value {
		case "name":
			r.name = v.Value
		case "version":
			r.version = v.Value
		case "alternatives":
			alternatives = v
		}
	}
	switch _, valid := version(r.version); {
	case r.name == "":
		it.failIn("required plugin versions entry", n, "required_plugin_versions item must have name property")
	case r.version == "":
		it.failIn("required plugin versions entry", n, "required_plugin_versions item must have version property")
	case !valid:
		it.failIn("required plugin versions entry", n, fmt.Sprintf("Unable to parse plugin version '%s' as a semver string", r.version))
	default:
		return r, alternatives, true
	}
	return r, nil, false
}
