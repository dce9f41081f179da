package node

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/kubeguardian/kubeguardian/evidence"
)

const (
	sshdConfig  = "/etc/ssh/sshd_config"
	maxIncludes = 16 // nested
	maxMatches  = 50
)

// sshServer reads how the SSH server lets people in. Without a configuration
// and a process there is none.
func (c *collector) sshServer(context.Context) {
	data, err := c.read(sshdConfig)
	switch {
	case missing(err) && c.ssh:
		c.gap(evidence.PartSSH, sshdConfig, errors.New("an SSH server runs with another configuration"))
		return
	case missing(err):
		return
	case err != nil:
		c.gap(evidence.PartSSH, sshdConfig, err)
		return
	}
	p := sshParser{include: c.sshIncludes, first: map[string]string{}}
	p.file(string(data), 0)
	for _, err := range p.errs {
		c.gap(evidence.PartSSH, sshdConfig, err)
	}
	c.record.SSH = p.result()
}

// sshIncludes returns the texts of the files that a pattern of Include names.
func (c *collector) sshIncludes(pattern string) ([]string, error) {
	if !path.IsAbs(pattern) {
		pattern = path.Join("/etc/ssh", pattern)
	}
	if strings.ContainsAny(path.Dir(pattern), "*?[") {
		return nil, fmt.Errorf("include %s is not followed: its folder is a pattern", pattern)
	}
	names, err := c.glob(path.Dir(pattern), path.Base(pattern))
	var out []string
	for _, name := range names {
		data, failed := c.read(name)
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("%s: %s", name, reason(failed)))
			continue
		}
		out = append(out, string(data))
	}
	return out, err
}

// An sshParser reads the configuration of sshd. Of a keyword that is given
// several times the first counts; what is in a Match block counts for some
// connections only.
type sshParser struct {
	include func(pattern string) ([]string, error)
	first   map[string]string // outside Match
	match   string            // the block that is read, "" outside
	matches []string
	files   int
	errs    []error
}

func (p *sshParser) file(text string, depth int) {
	if p.files++; depth > maxIncludes || p.files == maxEntries {
		p.errs = append(p.errs, errors.New("too many included files"))
		p.files = maxEntries
		return
	}
	outer := p.match
	for line := range strings.Lines(text) {
		if p.files >= maxEntries {
			return
		}
		keyword, arguments := sshLine(line)
		switch keyword {
		case "":
		case "match":
			p.match = strings.Join(arguments, " ")
			if outer != "" {
				p.match = outer + " and " + p.match
			}
		case "include":
			p.included(arguments, depth)
		default:
			p.setting(keyword, arguments)
		}
	}
	p.match = outer
}

func (p *sshParser) included(patterns []string, depth int) {
	for _, pattern := range patterns {
		texts, err := p.include(pattern)
		if err != nil {
			p.errs = append(p.errs, err)
		}
		for _, text := range texts {
			p.file(text, depth+1)
		}
	}
}

// setting keeps a value. In a Match block only what may open a door is kept.
func (p *sshParser) setting(keyword string, arguments []string) {
	if keyword == "challengeresponseauthentication" {
		keyword = "kbdinteractiveauthentication"
	}
	known := []string{"permitrootlogin", "passwordauthentication", "kbdinteractiveauthentication", "authenticationmethods"}
	if !slices.Contains(known, keyword) || len(arguments) == 0 {
		return
	}
	value := strings.ToLower(strings.Join(arguments, " "))
	if p.match == "" {
		if _, given := p.first[keyword]; !given {
			p.first[keyword] = value
		}
		return
	}
	if value != "no" && keyword != "authenticationmethods" && len(p.matches) < maxMatches {
		p.matches = append(p.matches, fmt.Sprintf("Match %.200s: %s %.40s", p.match, keyword, value))
	}
}

// result applies sshd's defaults. AuthenticationMethods that always ask for a
// key leave no way in by password alone.
func (p *sshParser) result() *evidence.SSHServer {
	on := func(keyword string) bool { return p.first[keyword] != "no" }
	s := &evidence.SSHServer{
		Source: sshdConfig, PermitRootLogin: "prohibit-password", Matches: p.matches,
		Password: on("passwordauthentication"), KeyboardInteractive: on("kbdinteractiveauthentication"),
	}
	if v := p.first["permitrootlogin"]; v != "" {
		s.PermitRootLogin = v
	}
	methods := strings.Fields(p.first["authenticationmethods"])
	if len(methods) > 0 && !slices.ContainsFunc(methods, func(m string) bool { return !slices.Contains(strings.Split(m, ","), "publickey") }) {
		s.Password, s.KeyboardInteractive = false, false
	}
	return s
}

// sshLine splits a line into its keyword, in lower case, and arguments, which
// may be in double quotes; an equals sign may follow the keyword.
func sshLine(line string) (keyword string, arguments []string) {
	var words []string
	var word strings.Builder
	quoted, open := false, false
	end := func() {
		if open {
			words = append(words, word.String())
			word.Reset()
			open = false
		}
	}
scan:
	for _, r := range strings.TrimSpace(line) {
		switch {
		case r == '"':
			quoted, open = !quoted, true
		case quoted:
			word.WriteRune(r)
		case r == '#' && !open:
			break scan
		case r == ' ' || r == '\t' || r == '=' && len(words) == 0:
			end()
		case r == '=' && len(words) == 1 && !open:
			// "keyword = value"
		default:
			open = true
			word.WriteRune(r)
		}
	}
	end()
	if len(words) == 0 {
		return "", nil
	}
	return strings.ToLower(words[0]), words[1:]
}
