package repository

import (
	"bytes"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/kubeguardian/kubeguardian/fact"
	"github.com/kubeguardian/kubeguardian/tool"
)

// A Workflow is one file of a pipeline.
type Workflow struct {
	System string // GitHub Actions, GitLab CI, Tekton, Jenkins
	Place  string
	// Opaque says why more than its existence is not known; "" if it was read.
	Opaque string
	// ReadOnly says whether the token of its jobs may only read, unless a job asks
	// for more; Writes is where it may write by default.
	ReadOnly    fact.Fact
	Writes      []string
	Uses        []Dependency
	Credentials []Credential // long-lived, for clouds and clusters
	Federated   []string     // where a job proves who it is to a cloud instead
	Inherits    []string     // where all secrets are handed on
	Steps       []Step
	Calls       []string // where it runs programs of the repository, such as make, or workflows of others
}

// A Dependency is an action, template or image of somebody else.
type Dependency struct {
	Name   string
	Place  string
	Pinned bool // by a digest or a commit
}

// A Credential is the name of a secret that does not expire by itself.
type Credential struct{ Name, Place string }

// A Step is a tool at work.
type Step struct {
	tool.Use
	Place string
}

// workflowKind says of which system a file is, by its name.
func workflowKind(name string) string {
	ext := path.Ext(name)
	switch {
	case strings.HasPrefix(name, ".github/workflows/") && (ext == ".yml" || ext == ".yaml"):
		return "GitHub Actions"
	case name == ".gitlab-ci.yml" || name == ".gitlab-ci.yaml" || strings.HasPrefix(name, ".gitlab/ci/"):
		return "GitLab CI"
	case strings.HasPrefix(name, ".tekton/") && (ext == ".yml" || ext == ".yaml"):
		return "Tekton"
	case path.Base(name) == "Jenkinsfile" && !fixture(name):
		return "Jenkins"
	}
	return ""
}

// workflow reads a file of a pipeline; nil for another file.
func workflow(name string, data []byte, place func(line int) string) *Workflow {
	system := workflowKind(name)
	if system == "" {
		return nil
	}
	w := &Workflow{System: system, Place: place(0)}
	b := builder{Workflow: w, place: place}
	if system == "Jenkins" {
		w.Opaque = "a Jenkinsfile is a program"
		b.tools(tool.BuiltIn().Script(jenkinsScript(data)), 0, false)
		return w
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for range maxDocuments {
		var n yaml.Node
		err := dec.Decode(&n)
		if err != nil {
			if err.Error() != "EOF" {
				w.Opaque = "it is no YAML: " + strings.TrimPrefix(err.Error(), "yaml: ")
			}
			break
		}
		if root := objects(&n)[0]; root.Kind == yaml.MappingNode {
			b.document(root)
		}
	}
	return w
}

// sh matches the commands of a Jenkinsfile, which stand in quotes.
var sh = regexp.MustCompile(`(?s)\bsh\b[^'"\n]*("""(.*?)"""|'''(.*?)'''|"([^"\n]*)"|'([^'\n]*)')`)

func jenkinsScript(data []byte) string {
	var out strings.Builder
	for _, m := range sh.FindAllSubmatch(data, 1000) {
		for _, text := range m[2:] {
			out.Write(text)
		}
		out.WriteString("\n")
	}
	return out.String()
}

// A builder fills in a workflow.
type builder struct {
	*Workflow
	place func(line int) string
}

func (b builder) document(root *yaml.Node) {
	switch b.System {
	case "GitHub Actions":
		b.gitHub(root)
	case "GitLab CI":
		b.gitLab(root)
	default:
		b.Opaque = "what Tekton runs is decided in the cluster"
		walk(root, func(key string, n *yaml.Node) {
			switch {
			case key == "image" && n.Kind == yaml.ScalarNode:
				b.image(n)
			case key == "script" && n.Kind == yaml.ScalarNode:
				b.script(n.Value, n.Line, false)
			}
		})
	}
}

// script adds the tools of a script, and notes that it calls others.
func (b builder) script(script string, line int, ignored bool) {
	b.tools(tool.BuiltIn().Script(script), line, ignored)
	if tool.Calls(script) {
		b.Calls = bounded(b.Calls, b.place(line))
	}
}

// tools adds recognised tools; of a step whose failure is ignored, none fails
// the build.
func (b builder) tools(uses []tool.Use, line int, ignored bool) {
	for _, u := range uses {
		if ignored {
			u.Fails = fact.No
		}
		if len(b.Steps) < maxPlaces {
			b.Steps = append(b.Steps, Step{u, b.place(line)})
		}
	}
}

var (
	digest = regexp.MustCompile(`@sha256:[0-9a-f]{64}$`)
	commit = regexp.MustCompile(`^[0-9a-f]{40}([0-9a-f]{24})?$`)
)

// image adds an image. One whose name holds a variable is the project's own, or
// is decided elsewhere.
func (b builder) image(n *yaml.Node) {
	if n.Value == "" || strings.ContainsAny(n.Value, "$") {
		return
	}
	b.dependency(n.Value, n.Line, digest.MatchString(n.Value))
}

func (b builder) dependency(name string, line int, pinned bool) {
	if len(b.Uses) < maxPlaces {
		b.Uses = append(b.Uses, Dependency{name, b.place(line), pinned})
	}
}

// credentialName matches what long-lived credentials for clouds and clusters
// are called, in secrets, variables and the inputs of actions.
var credentialName = regexp.MustCompile(`(?i)^([A-Z0-9_]+_)?(AWS_(ACCESS_KEY_ID|SECRET_(ACCESS_)?KEY)|AZURE_(CREDENTIALS|CLIENT_SECRET|PASSWORD)|ARM_(CLIENT_SECRET|ACCESS_KEY)|GCP_(SA_KEY|CREDENTIALS|SERVICE_ACCOUNT_KEY)|GCLOUD_(SERVICE_KEY|AUTH)|GKE_SA_KEY|GOOGLE_(CREDENTIALS|APPLICATION_CREDENTIALS(_JSON)?|SERVICE_ACCOUNT_KEY)|DIGITALOCEAN_(ACCESS_)?TOKEN|HCLOUD_TOKEN|KUBE_?CONFIG(_DATA|_B64|_BASE64|_FILE)?|KUBE_?(TOKEN|CREDENTIALS)|K8S_(TOKEN|SECRET|CREDENTIALS)|OPENSHIFT_TOKEN|AKS_CREDENTIALS)(_[A-Z0-9]+)?$`)

// credentialInput are inputs of actions that take such a credential.
var credentialInput = []string{"aws-access-key-id", "aws-secret-access-key", "creds", "credentials_json", "service_account_key", "kubeconfig", "kube-config"}

// federatedInput are inputs of actions by which a job proves who it is to a
// cloud.
var federatedInput = []string{"role-to-assume", "workload_identity_provider", "client-id"}

// secretRef matches a secret of GitHub in an expression.
var secretRef = regexp.MustCompile(`\bsecrets(?:\.|\[['"])([A-Za-z_][A-Za-z0-9_]*)`)

func (b builder) credential(name string, line int) {
	c := Credential{name, b.place(line)}
	known := slices.ContainsFunc(b.Credentials, func(have Credential) bool { return have.Name == c.Name })
	if !known && len(b.Credentials) < maxPlaces {
		b.Credentials = append(b.Credentials, c)
	}
}

func (b builder) federated(line int) {
	b.Federated = bounded(b.Federated, b.place(line))
}

// walk calls visit for each value of a mapping at any depth, with its key.
func walk(n *yaml.Node, visit func(key string, n *yaml.Node)) {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		visit(n.Content[i].Value, n.Content[i+1])
	}
	for _, inner := range n.Content {
		walk(inner, visit)
	}
}

// pairs calls visit for each entry of a mapping.
func pairs(n *yaml.Node, visit func(key, v *yaml.Node)) {
	for i := 0; n != nil && n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		visit(n.Content[i], n.Content[i+1])
	}
}

// elements returns those of a list; a scalar or mapping is a list of itself.
func elements(n *yaml.Node) []*yaml.Node {
	switch {
	case n == nil:
		return nil
	case n.Kind == yaml.SequenceNode:
		return n.Content
	}
	return []*yaml.Node{n}
}

func yes(n *yaml.Node) bool { return n != nil && n.Value == "true" }
