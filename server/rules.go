package server

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
)

// builtinSyscallRules is the file of built-in rules that are for the node agent.
const builtinSyscallRules = "syscall.yaml"

// loadRules loads the rules for the first time.
func (s *Server) loadRules() error {
	files, err := s.ruleFiles()
	if err != nil {
		return fmt.Errorf("load rules: %w", err)
	}
	s.reloads.rules.seen = fingerprint(files, nil)
	set, err := s.compileRules(files)
	if err != nil {
		return fmt.Errorf("load rules: %w", err)
	}
	s.useRules(set, files)
	return nil
}

func (s *Server) ruleFiles() ([]rule.File, error) {
	return content.Read[rule.File](content.Rules(), s.cfg.Detection.Rules...)
}

// compileRules loads rule files as the configuration says.
func (s *Server) compileRules(files []rule.File) (*rule.Set, error) {
	cfg := s.cfg.Detection
	least, err := alert.ParsePriority(cfg.Priority)
	if err != nil {
		return nil, err
	}
	opts := rule.Options{Minimum: &least, Static: map[string]string{}}
	for _, r := range cfg.Select {
		opts.Select = append(opts.Select, rule.Selection{Rule: r.Rule, Tag: r.Tag, On: r.Enabled})
	}
	for _, f := range cfg.Static {
		opts.Static[f.Name] = f.Value
	}
	for _, a := range cfg.Append {
		add := rule.Append{Source: a.Source, Rule: a.Rule, Tags: a.Tags, Output: a.Output}
		for _, f := range a.Fields {
			add.Fields = append(add.Fields, rule.Extra{Name: f.Name, Format: f.Format})
		}
		opts.Append = append(opts.Append, add)
	}
	set, results := opts.Load(files...)
	if set == nil {
		return nil, rule.Mistakes(results)
	}
	return set, nil
}

// useRules puts rules in force, and says what is suspect in them.
func (s *Server) useRules(set *rule.Set, files []rule.File) {
	s.rules.Store(set)
	s.ruleTexts.Store(&files)
	if s.agents != nil {
		s.agents.RulesChanged()
	}
	for _, w := range set.Warnings() {
		s.log.Warn("a rule file is suspect", "code", w.Code, "warning", w.Error())
	}
	unfed := 0
	for _, r := range set.Rules() {
		if r.Source == event.Syscall && r.Enabled && r.File != builtinSyscallRules {
			unfed++
		}
	}
	if unfed > 0 && !s.cfg.Bus.On() {
		s.log.Warn("no sensor feeds the rules for system calls: they are loaded and stay silent", "rules", unfed)
	}
}

// watchRules loads the user's rule files again when they change. Events that
// come meanwhile meet the rules before, and so do all events while the new
// files are refused.
func (s *Server) watchRules(ctx context.Context) error {
	if len(s.cfg.Detection.Rules) == 0 {
		return nil
	}
	return s.reloads.rules.follow(ctx, s, func() ([sha256.Size]byte, func(context.Context) error) {
		files, err := s.ruleFiles()
		return fingerprint(files, err), func(context.Context) error {
			if err != nil {
				return err
			}
			set, err := s.compileRules(files)
			if err != nil {
				return err
			}
			s.useRules(set, files)
			return nil
		}
	})
}
