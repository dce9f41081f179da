package repository

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/kubeguardian/kubeguardian/tool"
)

// gitLabWords are keys of a file of GitLab CI that are no jobs.
var gitLabWords = []string{"after_script", "before_script", "cache", "default", "image", "include", "pages", "services", "spec", "stages", "variables", "workflow"}

// gitLab reads a file of GitLab CI. What the token of its jobs may do is set in
// the project, not here.
func (b builder) gitLab(root *yaml.Node) {
	for _, n := range elements(value(root, "include")) {
		b.include(n)
	}
	b.gitLabJob(root, nil)
	b.gitLabJob(value(root, "default"), nil)
	pairs(root, func(key, job *yaml.Node) {
		if !slices.Contains(gitLabWords, key.Value) || key.Value == "pages" {
			b.gitLabJob(job, root)
		}
	})
}

// gitLabJob reads a job, or the settings of all of them.
func (b builder) gitLabJob(job, root *yaml.Node) {
	if job == nil || job.Kind != yaml.MappingNode {
		return
	}
	b.container(renamed(value(job, "image")))
	for _, s := range elements(value(job, "services")) {
		b.container(renamed(s))
	}
	if tokens := value(job, "id_tokens"); tokens != nil {
		b.federated(tokens.Line)
	}
	pairs(value(job, "variables"), func(key, v *yaml.Node) {
		if credentialName.MatchString(key.Value) && v.Value != "" {
			b.credential("variable "+key.Value, key.Line)
		}
	})
	allowed := value(job, "allow_failure")
	ignored := yes(allowed) || allowed != nil && allowed.Kind == yaml.MappingNode || root != nil && text(job, "when") == "manual" && allowed == nil
	for _, key := range []string{"before_script", "script"} {
		for _, line := range elements(value(job, key)) {
			for _, command := range elements(line) { // a line may be a list, by an anchor
				b.commands(command, ignored)
			}
		}
	}
}

func (b builder) commands(n *yaml.Node, ignored bool) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	for _, command := range elements(n) {
		b.script(command.Value, command.Line, ignored)
		for _, word := range strings.FieldsFunc(command.Value, func(r rune) bool { return !(r == '_' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z') }) {
			used := strings.Contains(command.Value, "$"+word) || strings.Contains(command.Value, "${"+word+"}")
			if used && credentialName.MatchString(word) {
				b.credential("variable "+word, command.Line)
			}
		}
	}
}

// renamed gives GitLab's images the shape of GitHub's: name for image.
func renamed(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.MappingNode {
		return value(n, "name")
	}
	return n
}

// include reads what a file includes: of GitLab itself, of other projects, of
// the web.
func (b builder) include(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode {
		if strings.Contains(n.Value, "://") {
			b.dependency(n.Value, n.Line, false)
		}
		return
	}
	if t := text(n, "template"); t != "" {
		b.tools(tool.BuiltIn().Template(t), n.Line, false)
	}
	if url := text(n, "remote"); url != "" {
		b.dependency(url, n.Line, text(n, "integrity") != "")
		b.Calls = bounded(b.Calls, b.place(n.Line))
	}
	if project := text(n, "project"); project != "" {
		b.dependency(project, n.Line, commit.MatchString(text(n, "ref")))
		b.Calls = bounded(b.Calls, b.place(n.Line))
	}
	if component := text(n, "component"); component != "" && !strings.HasPrefix(component, "$CI_") {
		_, ref, _ := strings.Cut(component, "@")
		b.dependency(component, n.Line, commit.MatchString(ref))
		b.Calls = bounded(b.Calls, b.place(n.Line))
	}
}
