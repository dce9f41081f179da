package tool

import (
	"path"
	"slices"
	"strings"

	"github.com/kubeguardian/kubeguardian/fact"
)

// A Use is a tool at work in a pipeline.
type Use struct {
	Tool  string
	For   []string
	Fails fact.Fact // whether what it finds fails the build
}

// Action recognises an action of GitHub, "owner/name/path@ref", with its
// inputs.
func (m *Matrix) Action(uses string, with map[string]string) []Use {
	name, _, _ := strings.Cut(uses, "@")
	return m.uses(func(s Step) (bool, []string) {
		if s.Action == "" || !strings.EqualFold(name, s.Action) && !hasFold(name, s.Action+"/") {
			return false, nil
		}
		for key, want := range s.When {
			if have, given := with[key]; given && have != want || !given && want != "image" {
				return false, nil // an image is what Trivy's action scans by default
			}
		}
		var options []string
		for key, value := range with {
			options = append(options, key+"="+value)
			if key == "args" {
				options = append(options, strings.Fields(value)...)
			}
		}
		return true, options
	})
}

// hasFold is strings.HasPrefix for names that ignore case.
func hasFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// Template recognises a template that GitLab comes with, as
// "Security/SAST.gitlab-ci.yml" or "Jobs/SAST.latest.gitlab-ci.yml".
func (m *Matrix) Template(name string) []Use {
	base, _, _ := strings.Cut(path.Base(name), ".")
	return m.uses(func(s Step) (bool, []string) { return s.Template != "" && s.Template == base, nil })
}

// Script recognises the commands of a shell script.
func (m *Matrix) Script(script string) []Use {
	var out []Use
	for _, c := range commands(script) {
		found := m.uses(func(s Step) (bool, []string) {
			rest, ok := c.runs(strings.Fields(s.Command))
			return ok, rest
		})
		if c.ignored {
			for i := range found {
				found[i].Fails = fact.No
			}
		}
		out = append(out, found...)
	}
	return out
}

// uses returns the tools of which a step is recognised; of the steps of a tool
// the first.
func (m *Matrix) uses(recognise func(Step) (ok bool, options []string)) []Use {
	var out []Use
	for _, n := range m.Needs {
		for _, t := range n.Tools {
			for _, s := range t.Steps {
				if ok, options := recognise(s); ok {
					out = append(out, Use{Tool: t.Name, For: s.For, Fails: s.fails(options)})
					break
				}
			}
		}
	}
	return out
}

// fails says whether a step with these options fails the build.
func (s Step) fails(options []string) fact.Fact {
	switch {
	case s.Elsewhere:
		return fact.Unknown
	case slices.ContainsFunc(s.Passes, func(name string) bool { return given(options, name) }):
		return fact.No
	case len(s.Fails) > 0 && !slices.ContainsFunc(s.Fails, func(name string) bool { return given(options, name) }):
		return fact.No
	}
	return fact.Yes
}

// given reports whether an option is set and not switched off, as
// "--exit-code 1", "--exit-code=1" or "exit-code=1"; with a value in its name,
// whether it has that value.
func given(options []string, name string) bool {
	name, want, exact := strings.Cut(name, "=")
	for i, o := range options {
		key, value, joined := strings.Cut(o, "=")
		if key != name {
			continue
		}
		if !joined && i+1 < len(options) && !strings.HasPrefix(options[i+1], "-") {
			value = options[i+1]
		}
		value = strings.Trim(value, `"'`)
		if exact {
			return value == want
		}
		return !slices.Contains([]string{"0", "false", "none"}, value)
	}
	return false
}

// A command is one of a script, in words.
type command struct {
	words   []string
	ignored bool // its failure is
}

// commands splits a script into commands, roughly as a shell would. Quotes keep
// words together; what is substituted is not looked into.
func commands(script string) []command {
	var out []command
	script = strings.NewReplacer("\\\r\n", " ", "\\\n", " ").Replace(script)
	lenient := false
	for line := range strings.Lines(script) {
		words := words(line)
		if slices.Equal(words, []string{"set", "+e"}) {
			lenient = true
		}
		var now []string
		for i := 0; i <= len(words); i++ {
			if i < len(words) && !slices.Contains([]string{"&&", "||", ";", "|", "&"}, words[i]) {
				now = append(now, words[i])
				continue
			}
			ignored := lenient || i < len(words) && (words[i] == "||" && harmless(words[i+1:]) || words[i] == "&")
			if len(now) > 0 {
				out = append(out, command{now, ignored})
			}
			now = nil
		}
	}
	return out
}

// harmless reports whether what follows || succeeds whatever happened.
func harmless(words []string) bool {
	return len(words) > 0 && slices.Contains([]string{"true", ":", "echo", "printf"}, words[0]) && !slices.Contains(words, "exit")
}

// words splits a line into words and the signs between commands, up to a
// comment.
func words(line string) []string {
	var out []string
	var word strings.Builder
	quote := rune(0)
	flush := func() {
		if word.Len() > 0 {
			out = append(out, word.String())
			word.Reset()
		}
	}
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			quote = r
		case r == ' ' || r == '\t' || r == '\n' || r == '\r' || r == '(' || r == ')':
			flush()
		case r == '#' && word.Len() == 0:
			return out
		case r == ';' || r == '|' || r == '&':
			flush()
			if n := len(out); n > 0 && out[n-1] == string(r) && r != ';' {
				out[n-1] += string(r)
			} else {
				out = append(out, string(r))
			}
		default:
			word.WriteRune(r)
		}
	}
	flush()
	return out
}

// launchers run what comes somewhere behind them.
var launchers = map[string]string{
	"docker": "run", "podman": "run", "nerdctl": "run", "go": "run", "uv": "run", "pipx": "run", "poetry": "run", "bundle": "exec",
	"npx": "", "uvx": "", "bunx": "", "sudo": "", "time": "", "env": "", "exec": "", "python": "-m", "python3": "-m",
}

// runs reports whether the command is that of a pattern: its first word, and
// the others in their order somewhere behind it. It returns what is behind the
// first.
func (c command) runs(pattern []string) (rest []string, ok bool) {
	if len(pattern) == 0 {
		return nil, false
	}
	words := c.words
	for len(words) > 0 && (strings.Contains(words[0], "=") || slices.Contains([]string{"!", "if", "then", "do", "-"}, words[0])) {
		words = words[1:] // of the environment
	}
	at := slices.IndexFunc(words, func(w string) bool { return called(w) == pattern[0] })
	if at < 0 || at > 0 && !launches(words[:at]) {
		return nil, false
	}
	rest = words[at+1:]
	behind := rest
	for _, want := range pattern[1:] {
		i := slices.Index(behind, want)
		if i < 0 {
			return nil, false
		}
		behind = behind[i+1:]
	}
	return rest, true
}

// launches reports whether words run what comes behind them.
func launches(words []string) bool {
	needs, ok := launchers[path.Base(words[0])]
	return ok && (needs == "" || slices.Contains(words, needs))
}

// called returns the name by which a program, an image or a Go package is
// called: without folder, version and digest.
func called(word string) string {
	word, _, _ = strings.Cut(word, "@")
	word = path.Base(word)
	word, _, _ = strings.Cut(word, ":")
	return word
}

// Calls reports whether a script runs programs whose work is written elsewhere:
// make and its like, or scripts of the repository.
func Calls(script string) bool {
	others := []string{"make", "task", "just", "tox", "nox", "mvn", "mvnw", "gradle", "gradlew", "bazel", "earthly", "dagger", "pre-commit", "rake", "bash", "sh"}
	for _, c := range commands(script) {
		first := c.words[0]
		runs := len(c.words) > 1 && slices.Contains([]string{"npm", "yarn", "pnpm", "bun"}, first) && c.words[1] == "run"
		if runs || slices.Contains(others, path.Base(first)) || strings.HasPrefix(first, "./") || strings.HasSuffix(first, ".sh") {
			return true
		}
	}
	return false
}

// ImageName returns the last part of the name of an image, without tag and
// digest.
func ImageName(image string) string { return called(image) }
