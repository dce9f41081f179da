package repository

import (
	"path"
	"strings"
)

// owners are the rules of a CODEOWNERS file, in its order.
type owners []ownerRule

// An ownerRule names the owners of what a pattern matches; without owners it
// takes them away.
type ownerRule struct {
	pattern []string // parts of a path; "**" is any number of them
	folder  bool     // what is in the folder, not a file of that name
	owners  []string
}

// maxOwnerRules bounds a CODEOWNERS file.
const maxOwnerRules = 10_000

// parseOwners reads the format that GitHub and GitLab share. In a section of
// GitLab, a rule without owners has those of the section.
func parseOwners(text string) owners {
	var out owners
	var section []string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), " #")
		if line == "" || line[0] == '#' || len(out) == maxOwnerRules {
			continue
		}
		if heading := strings.TrimPrefix(line, "^"); strings.HasPrefix(heading, "[") && strings.Contains(heading, "]") {
			section = people(strings.Fields(heading[strings.LastIndex(heading, "]")+1:]))
			continue
		}
		fields := strings.Fields(strings.ReplaceAll(line, `\ `, "\x00"))
		rule := parsePattern(strings.ReplaceAll(fields[0], "\x00", " "))
		rule.owners = people(fields[1:])
		if len(rule.owners) == 0 {
			rule.owners = section
		}
		out = append(out, rule)
	}
	return out
}

// people returns the words that name somebody.
func people(words []string) []string {
	var out []string
	for _, w := range words {
		if strings.Contains(w, "@") {
			out = append(out, w)
		}
	}
	return out
}

func parsePattern(p string) ownerRule {
	r := ownerRule{folder: strings.HasSuffix(p, "/")}
	anchored := strings.Contains(strings.TrimSuffix(p, "/"), "/")
	r.pattern = strings.Split(strings.Trim(p, "/"), "/")
	if !anchored {
		r.pattern = append([]string{"**"}, r.pattern...)
	}
	return r
}

// of returns the owners of a file: those of the last rule that matches it.
func (o owners) of(name string) []string {
	parts := strings.Split(name, "/")
	for i := len(o) - 1; i >= 0; i-- {
		if o[i].matches(parts) {
			return o[i].owners
		}
	}
	return nil
}

// matches reports whether the pattern matches a file or a folder above it. A
// pattern that ends in a star does not reach into folders.
func (r ownerRule) matches(file []string) bool {
	last := r.pattern[len(r.pattern)-1]
	if !r.folder && matchParts(r.pattern, file) {
		return true
	}
	if !r.folder && len(r.pattern) > 1 && last == "*" && r.pattern[0] != "**" {
		return false
	}
	for n := 1; n < len(file); n++ {
		if matchParts(r.pattern, file[:n]) {
			return true
		}
	}
	return false
}

// matchParts matches parts of a path. Its time is bounded by the product of the
// lengths: of "**" only the last needs to be tried again.
func matchParts(pattern, parts []string) bool {
	p, i, star, retry := 0, 0, -1, 0
	for i < len(parts) {
		switch {
		case p < len(pattern) && pattern[p] == "**":
			star, retry = p, i
			p++
		case p < len(pattern) && matchPart(pattern[p], parts[i]):
			p++
			i++
		case star >= 0:
			retry++
			p, i = star+1, retry
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == "**" {
		p++
	}
	return p == len(pattern)
}

func matchPart(pattern, part string) bool {
	ok, err := path.Match(pattern, part)
	return ok && err == nil
}
