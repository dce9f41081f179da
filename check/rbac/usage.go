package rbac

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
)

// minWindow is how long an audit log must be for its silence to count: weekly
// jobs have run once.
const minWindow = 7 * 24 * time.Hour

// Unused says for each role that is granted which of its rights nobody used in
// the window of the audit log. Rights are compared as the rules write them; a
// wildcard is used if anything that it covers is.
func (a *Access) Unused(seen *evidence.Set) []finding.Verdict {
	window := latest(seen)
	used := map[identity][]evidence.Use{}
	if seen != nil {
		for _, u := range seen.Uses {
			for _, id := range users(u) {
				used[id] = append(used[id], u)
			}
		}
	}
	var out []finding.Verdict
	for _, r := range a.order {
		if r.object == nil {
			continue
		}
		f := r.unused(used, window)
		f.Subject = r.subject()
		if f.Status == finding.Pass || f.Status == finding.Fail {
			f.EvidenceKind, f.ObservedAt = string(evidence.Audit), window.SeenAt
		}
		out = append(out, f)
	}
	return out
}

// latest returns a use of the newest log, for its window; nil for no log.
func latest(seen *evidence.Set) *evidence.Use {
	if seen == nil || len(seen.Uses) == 0 {
		return nil
	}
	newest := slices.MaxFunc(seen.Uses, func(x, y evidence.Use) int { return x.SeenAt.Compare(y.SeenAt) })
	for _, u := range seen.Uses {
		if u.From.Before(newest.From) {
			newest.From = u.From
		}
	}
	return &newest
}

// users returns the identities by which a request was allowed.
func users(u evidence.Use) []identity {
	out := []identity{{name: u.User}}
	for _, g := range u.Groups {
		out = append(out, identity{g, true})
	}
	if ns, name, ok := out[0].account(); ok {
		out = append(out, account{ns, name}.identities()...)
	}
	return out
}

func (r *role) unused(used map[identity][]evidence.Use, window *evidence.Use) finding.Verdict {
	switch {
	case r.ours:
		return finding.Verdict{Status: finding.NotApplicable, Reason: BuiltInReason}
	case len(r.granted) == 0:
		return finding.Verdict{Status: finding.NotApplicable, Reason: "no binding grants it"}
	case len(r.rules) == 0:
		return finding.Verdict{Status: finding.NotApplicable, Reason: "it has no rules"}
	case window == nil:
		return finding.Verdict{Status: finding.Unknown, Reason: "no audit log; give the log of the API server by --evidence"}
	case window.SeenAt.Sub(window.From) < minWindow:
		return finding.Verdict{Status: finding.Unknown, Reason: fmt.Sprintf("the audit log covers %s; at least 7 days show which rights are used",
			window.SeenAt.Sub(window.From).Round(time.Hour))}
	}
	var idle, needed []string
	for _, rule := range r.rules {
		for _, right := range written(rule) {
			if r.uses(right, used) {
				needed = append(needed, right.String())
			} else {
				idle = append(idle, right.String())
			}
		}
	}
	days := fmt.Sprintf("from %s to %s", window.From.Format(time.DateOnly), window.SeenAt.Format(time.DateOnly))
	if len(idle) == 0 {
		return finding.Verdict{Status: finding.Pass, Evidence: "every right was used " + days}
	}
	return finding.Verdict{
		Status:   finding.Fail,
		Message:  fmt.Sprintf("%d of %d rights were not used %s", len(idle), len(idle)+len(needed), days),
		Evidence: "not used: " + list(idle) + "; used: " + cmp.Or(list(needed), "none"),
	}
}

// A right is one verb on one resource as a rule writes them.
type right struct{ verb, group, resource string }

func (r right) String() string {
	if r.group == "" {
		return r.verb + " " + r.resource
	}
	return r.verb + " " + r.resource + "." + r.group
}

func written(rule rbacv1.PolicyRule) []right {
	var out []right
	for _, g := range rule.APIGroups {
		for _, res := range rule.Resources {
			for _, v := range rule.Verbs {
				out = append(out, right{v, g, res})
			}
		}
	}
	return out
}

func (r *role) uses(want right, used map[identity][]evidence.Use) bool {
	rule := rbacv1.PolicyRule{Verbs: []string{want.verb}, APIGroups: []string{want.group}, Resources: []string{want.resource}}
	for _, b := range r.granted {
		for _, id := range b.subjects {
			for _, u := range used[id] {
				if (b.namespace == "" || b.namespace == u.Namespace) && allows(rule, u.Group, u.Resource, u.Verb) {
					return true
				}
			}
		}
	}
	return false
}

// Logons says whether people log on with client certificates or bootstrap
// tokens, by the audit log. Without one that shows how users logged on it says
// nothing.
func Logons(seen *evidence.Set) []finding.Verdict {
	window := latest(seen)
	if window == nil {
		return nil
	}
	shown, people := false, map[string]bool{}
	var wrong []string
	for _, u := range seen.Uses {
		shown = shown || strings.HasPrefix(u.Credential, "X509")
		switch id := (identity{name: u.User}); {
		case strings.HasPrefix(u.User, "system:bootstrap:") && u.Resource != "certificatesigningrequests" && u.Verb != "get":
			wrong = append(wrong, u.User+" with a bootstrap token")
		case strings.HasPrefix(u.User, "system:") || id.system():
		case strings.HasPrefix(u.Credential, "X509"):
			wrong = append(wrong, u.User+" with a client certificate")
		default:
			people[u.User] = true
		}
	}
	f := finding.Verdict{
		Status: finding.Pass, Subject: finding.Subject{Kind: "Cluster"},
		Evidence:     fmt.Sprintf("%d people in the audit log of %s, none by certificate", len(people), window.SeenAt.Format(time.DateOnly)),
		EvidenceKind: string(evidence.Audit), ObservedAt: window.SeenAt,
	}
	slices.Sort(wrong)
	switch {
	case len(wrong) > 0:
		f.Status, f.Message, f.Evidence = finding.Fail, "people log on with what cannot be revoked", list(slices.Compact(wrong))
	case !shown || len(people) == 0:
		return nil // nothing shows how people log on
	}
	return []finding.Verdict{f}
}
