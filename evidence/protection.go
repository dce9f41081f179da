package evidence

import (
	"regexp"
	"time"

	"github.com/kubeguardian/kubeguardian/fact"
)

// A Protection is how the default branch of a repository is protected. An
// answer that does not speak of something leaves it unknown.
type Protection struct {
	Origin
	Repository  string    // as the code host names it: "owner/name"; "" if not said
	PullRequest fact.Fact // changes come by pull request
	Reviewed    fact.Fact // and at least one other person approves them
	ForcePush   fact.Fact // history can be rewritten
}

// Code hosts do not date their answers: whoever asks may add a key seenAt, and
// the name of the repository.
type undated struct {
	SeenAt     time.Time `json:"seenAt"`
	Repository string    `json:"repository"`
}

func (u undated) protection(d document, tool string) Protection {
	return Protection{Origin: Origin{Kind: Repo, Tool: tool, Source: d.name, SeenAt: u.SeenAt}, Repository: u.Repository}
}

// gitHubURL matches the address of an answer of the GitHub API, with host and
// name of the repository.
var gitHubURL = regexp.MustCompile(`^https://(?:api\.)?([^/]+)(?:/api/v3)?/repos(/[^/]+/[^/]+)/`)

// isGitHubProtection knows the answer about a protected branch, that about an
// unprotected one, and a ruleset.
func isGitHubProtection(h head) bool {
	return h.has("enforce_admins", "allow_force_pushes") || h.text("message") == "Branch not protected" ||
		h.has("rules") && (h.has("enforcement", "target") || h.has("seenAt"))
}

// gitHubProtection reads what the GitHub API says of a branch: its protection,
// or a ruleset or the rules of a branch (under the key rules).
func gitHubProtection(d document) (*Set, error) {
	var doc struct {
		undated
		URL     string `json:"url"`
		Message string `json:"message"`
		Reviews *struct {
			Count int `json:"required_approving_review_count"`
		} `json:"required_pull_request_reviews"`
		ForcePush struct {
			Enabled bool `json:"enabled"`
		} `json:"allow_force_pushes"`
		Source      string       `json:"source"` // of a ruleset: "owner/name"
		Enforcement string       `json:"enforcement"`
		Rules       []gitHubRule `json:"rules"`
	}
	if err := d.json(&doc); err != nil {
		return nil, err
	}
	p := doc.protection(d, "GitHub")
	if m := gitHubURL.FindStringSubmatch(doc.URL); m != nil && p.Repository == "" {
		p.Repository = m[1] + m[2]
	}
	switch {
	case doc.Message != "":
		// Rules of a ruleset do not show in this answer.
	case doc.Rules != nil:
		if p.Repository == "" {
			p.Repository = doc.Source
		}
		if doc.Enforcement == "" || doc.Enforcement == "active" {
			p.rules(doc.Rules)
		}
	default:
		p.PullRequest = fact.Of(doc.Reviews != nil)
		p.Reviewed = fact.Of(doc.Reviews != nil && doc.Reviews.Count > 0)
		p.ForcePush = fact.Of(doc.ForcePush.Enabled)
	}
	return &Set{Protections: []Protection{p}}, nil
}

// A gitHubRule is a rule of a ruleset.
type gitHubRule struct {
	Type       string `json:"type"`
	Parameters struct {
		Count int `json:"required_approving_review_count"`
	} `json:"parameters"`
}

// rules adds what rules demand. What they do not demand another ruleset may.
func (p *Protection) rules(rules []gitHubRule) {
	for _, r := range rules {
		switch r.Type {
		case "pull_request":
			p.PullRequest = fact.Yes
			if r.Parameters.Count > 0 {
				p.Reviewed = fact.Yes
			}
		case "non_fast_forward":
			p.ForcePush = fact.No
		}
	}
}

func isGitLabProtection(h head) bool {
	return h.has("push_access_levels", "merge_access_levels") || h.has("approvals_before_merge", "reset_approvals_on_push")
}

// gitLabProtection reads what the GitLab API says of a protected branch
// (projects/:id/protected_branches/:name) or of approvals
// (projects/:id/approvals).
func gitLabProtection(d document) (*Set, error) {
	var doc struct {
		undated
		Push []struct {
			Level *int `json:"access_level"`
		} `json:"push_access_levels"`
		ForcePush *bool `json:"allow_force_push"`
		Owners    bool  `json:"code_owner_approval_required"`
		Approvals *int  `json:"approvals_before_merge"`
	}
	if err := d.json(&doc); err != nil {
		return nil, err
	}
	p := doc.protection(d, "GitLab")
	if doc.Push != nil {
		p.PullRequest = fact.Yes
		for _, push := range doc.Push {
			if push.Level == nil || *push.Level != 0 {
				p.PullRequest = fact.No // somebody may push without a merge request
			}
		}
	}
	if doc.ForcePush != nil {
		p.ForcePush = fact.Of(*doc.ForcePush)
	}
	// Rules of approval may demand what neither of these does.
	if doc.Owners || doc.Approvals != nil && *doc.Approvals > 0 {
		p.Reviewed = fact.Yes
	}
	return &Set{Protections: []Protection{p}}, nil
}

func isScorecard(h head) bool { return h.has("scorecard", "checks", "repo") }

// scorecard reads the result of OpenSSF Scorecard, scorecard --format json. Its
// check Branch-Protection gives 3 points of 10 for a branch that refuses force
// pushes and deletion, 6 for one that also demands a review, and 0 for none.
func scorecard(d document) (*Set, error) {
	var doc struct {
		Date string `json:"date"`
		Repo struct {
			Name string `json:"name"`
		} `json:"repo"`
		Scorecard struct {
			Version string `json:"version"`
		} `json:"scorecard"`
		Checks []struct {
			Name  string `json:"name"`
			Score int    `json:"score"`
		} `json:"checks"`
	}
	if err := d.json(&doc); err != nil {
		return nil, err
	}
	p := Protection{
		Origin:     Origin{Kind: Repo, Tool: tool("Scorecard", doc.Scorecard.Version), Source: d.name, SeenAt: instant(doc.Date)},
		Repository: doc.Repo.Name,
	}
	for _, c := range doc.Checks {
		if c.Name != "Branch-Protection" || c.Score < 0 { // -1: could not be seen
			continue
		}
		switch {
		case c.Score == 0:
			p.PullRequest, p.Reviewed, p.ForcePush = fact.No, fact.No, fact.Yes
		case c.Score >= 6:
			p.PullRequest, p.Reviewed, p.ForcePush = fact.Yes, fact.Yes, fact.No
		case c.Score >= 3:
			p.ForcePush = fact.No
		}
	}
	return &Set{Protections: []Protection{p}}, nil
}
