package repository

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/kubeguardian/kubeguardian/fact"
	"github.com/kubeguardian/kubeguardian/tool"
)

// gitHub reads a workflow of GitHub Actions.
func (b builder) gitHub(root *yaml.Node) {
	jobs := value(root, "jobs")
	b.ReadOnly = b.permissions(value(root, "permissions"))
	allSay := jobs != nil && len(jobs.Content) > 0
	pairs(jobs, func(_, job *yaml.Node) {
		b.gitHubJob(job)
		p := value(job, "permissions")
		allSay = allSay && p != nil && p.Value != "write-all"
		if p != nil && p.Value == "write-all" {
			b.ReadOnly = fact.No
			b.Writes = bounded(b.Writes, b.place(p.Line))
		}
	})
	if b.ReadOnly == fact.Unknown && allSay {
		b.ReadOnly = fact.Yes // every job states what it needs
	}
	walk(root, func(key string, n *yaml.Node) {
		if n.Kind == yaml.ScalarNode {
			b.expression(n)
		}
	})
}

// permissions says whether the rights of a token are to read only. A right to
// id-token is to prove who the job is, and changes nothing.
func (b builder) permissions(p *yaml.Node) fact.Fact {
	switch {
	case p == nil:
		return fact.Unknown
	case p.Kind == yaml.ScalarNode && p.Value != "write-all":
		return fact.Yes
	case p.Kind == yaml.ScalarNode:
		b.Writes = bounded(b.Writes, b.place(p.Line))
		return fact.No
	}
	only := fact.Yes
	pairs(p, func(key, v *yaml.Node) {
		if v.Value == "write" && key.Value != "id-token" {
			b.Writes = bounded(b.Writes, b.place(key.Line))
			only = fact.No
		}
	})
	return only
}

func (b builder) gitHubJob(job *yaml.Node) {
	ignored := yes(value(job, "continue-on-error"))
	if uses := value(job, "uses"); uses != nil {
		b.action(uses, value(job, "with"), ignored)
		b.Calls = bounded(b.Calls, b.place(uses.Line))
		if secrets := value(job, "secrets"); secrets != nil && secrets.Value == "inherit" && !strings.HasPrefix(uses.Value, "./") {
			b.Inherits = bounded(b.Inherits, b.place(secrets.Line))
		}
	}
	b.container(value(job, "container"))
	pairs(value(job, "services"), func(_, service *yaml.Node) { b.container(service) })
	for _, step := range elements(value(job, "steps")) {
		ignored := ignored || yes(value(step, "continue-on-error"))
		if uses := value(step, "uses"); uses != nil {
			b.action(uses, value(step, "with"), ignored)
		}
		if run := value(step, "run"); run != nil {
			b.script(run.Value, run.Line, ignored)
		}
	}
}

// container adds the image of a container, which may be given as text.
func (b builder) container(n *yaml.Node) {
	if n != nil && n.Kind == yaml.MappingNode {
		n = value(n, "image")
	}
	if n != nil && n.Kind == yaml.ScalarNode {
		b.image(n)
	}
}

// action adds an action or a reusable workflow, with its inputs.
func (b builder) action(uses, with *yaml.Node, ignored bool) {
	name, ref, _ := strings.Cut(uses.Value, "@")
	image, isImage := strings.CutPrefix(uses.Value, "docker://")
	switch {
	case strings.HasPrefix(uses.Value, "./"): // of this repository
	case isImage:
		b.dependency(uses.Value, uses.Line, digest.MatchString(image))
	default:
		b.dependency(uses.Value, uses.Line, commit.MatchString(ref))
	}
	inputs := map[string]string{}
	pairs(with, func(key, v *yaml.Node) {
		inputs[key.Value] = v.Value
		if slices.Contains(credentialInput, key.Value) && v.Value != "" {
			b.input(name, key, v)
		}
	})
	for _, key := range federatedInput {
		if inputs[key] != "" && (key != "client-id" || strings.HasPrefix(strings.ToLower(name), "azure/")) && inputs["creds"] == "" {
			b.federated(uses.Line)
		}
	}
	b.tools(tool.BuiltIn().Action(uses.Value, inputs), uses.Line, ignored)
}

// input notes an input that takes a credential, unless an earlier step made it,
// or it only names a file.
func (b builder) input(action string, key, v *yaml.Node) {
	if strings.Contains(v.Value, "secrets.") || !strings.Contains(v.Value, "${{") && !strings.Contains(key.Value, "kube") {
		b.credential(key.Value+" of "+action, v.Line)
	}
}

// expression notes the secrets that a value asks for.
func (b builder) expression(n *yaml.Node) {
	if !strings.Contains(n.Value, "secrets") {
		return
	}
	for _, m := range secretRef.FindAllStringSubmatch(n.Value, 100) {
		if credentialName.MatchString(m[1]) {
			b.credential("secret "+m[1], n.Line)
		}
	}
}
