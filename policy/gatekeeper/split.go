package gatekeeper

import (
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// A set that one rule of several fills by the parameters depends on them as a
// whole, so that its constraints cannot share it. Splitting puts the other rules
// into a set of their own,
//
//	general[x] { s := general_of_request; s[x] }
//
// whose members are kept for the request. The union is the same. What may differ
// is which rules are evaluated: all of the new set, where a rule that asks for
// some members only evaluates the rules that may give these. That may fail where
// the plain program does not; then the plain program decides.

// ofRequest ends the names of the new sets.
const ofRequest = "_of_request__"

// split returns a program with split sets, or nil when there is nothing to gain.
// modules are those that the program was compiled from; they stay as they are.
func (p *program) split(modules map[string]*ast.Module) *program {
	entry, compiled := modules[entryModule], p.compiler.Modules[entryModule]
	if len(entry.Rules) != len(compiled.Rules) { // then they do not belong together
		return nil
	}
	d := dependence{compiler: p.compiler, memo: map[*ast.Rule]reach{}}
	free := map[*ast.Rule]bool{} // of parameters, by rule of the copy
	next := entry.Copy()
	sets := map[ast.Var][]*ast.Rule{}
	for i, rule := range next.Rules {
		rule.Module = next
		free[rule] = !d.onMore(compiled.Rules[i])
		sets[rule.Head.Name] = append(sets[rule.Head.Name], rule)
	}
	done := false
	for name, rules := range sets {
		if p.gains(name, rules, free) {
			done = splitSet(next, name, rules, free) || done
		}
	}
	if !done {
		return nil
	}
	all := map[string]*ast.Module{}
	for name, module := range modules {
		all[name] = module
	}
	all[entryModule] = next
	split, err := newProgram(all)
	if err != nil { // the plain program does
		return nil
	}
	return split
}

// gains reports whether a name is a set that is worth splitting: it has rules of
// both sorts, and is only enumerated. Asked for one member, a set is not
// evaluated as a whole, which may cost much more.
func (p *program) gains(name ast.Var, rules []*ast.Rule, free map[*ast.Rule]bool) bool {
	some, all := false, true
	for _, rule := range rules {
		if rule.Head.RuleKind() != ast.MultiValue || len(rule.Head.Ref()) != 1 || rule.Default || rule.Else != nil {
			return false
		}
		some, all = some || free[rule], all && free[rule]
	}
	return some && !all && p.onlyEnumerated(dataRef(entryModule, string(name)))
}

// onlyEnumerated reports whether no rule asks a set for a single member.
func (p *program) onlyEnumerated(set ast.Ref) bool {
	only := true
	for _, module := range p.compiler.Modules {
		ast.WalkRefs(module, func(ref ast.Ref) bool {
			if ref.HasPrefix(set) && len(ref) > len(set) {
				only = only && enumerates(ref[len(set)])
			}
			return false
		})
	}
	return only
}

// enumerates reports whether the key of a set is a pattern or a wildcard.
func enumerates(key *ast.Term) bool {
	switch value := key.Value.(type) {
	case ast.Object, *ast.Array:
		return !value.IsGround()
	case ast.Var:
		return value.IsWildcard()
	}
	return false
}

// splitSet moves the rules that are free of parameters into a new set.
func splitSet(module *ast.Module, name ast.Var, rules []*ast.Rule, free map[*ast.Rule]bool) bool {
	fresh := name + ofRequest
	if slices.ContainsFunc(module.Rules, func(r *ast.Rule) bool { return r.Head.Name == fresh }) {
		return false
	}
	text := strings.NewReplacer("NAME", string(name), "FRESH", string(fresh)).
		Replace("package template\nNAME[member] { all := FRESH; all[member] }")
	joint, err := ast.ParseModuleWithOpts(entryModule, text, ast.ParserOptions{RegoVersion: ast.RegoV0})
	if err != nil || len(joint.Rules) != 1 {
		return false
	}
	for _, rule := range rules {
		if free[rule] {
			rule.Head.Name = fresh
			rule.Head.Reference = ast.Ref{ast.VarTerm(string(fresh))}
		}
	}
	joint.Rules[0].Module = module
	module.Rules = append(module.Rules, joint.Rules[0])
	return true
}
