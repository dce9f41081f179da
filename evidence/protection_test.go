package evidence

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/evidence/repository"
)

func TestProtections(t *testing.T) {
	const classic = `{"url": "https://api.github.com/repos/shop/app/branches/main/protection", "enforce_admins": {}, `
	words := []string{"?", "no", "yes"}
	for _, tt := range []struct{ text, want string }{ // pull request, reviewed, forced pushes
		{classic + `"allow_force_pushes": {"enabled": false}, "required_pull_request_reviews": {"required_approving_review_count": 2}}`, "github.com/shop/app yes yes no"},
		{classic + `"allow_force_pushes": {"enabled": true}, "required_pull_request_reviews": {}}`, "github.com/shop/app yes no yes"},
		{classic + `"allow_force_pushes": {"enabled": false}}`, "github.com/shop/app no no no"},
		{`{"message": "Branch not protected", "status": "404"}`, " ? ? ?"}, // a ruleset may protect it
		{`{"name": "r", "target": "branch", "enforcement": "active", "source": "shop/app", "rules": [{"type": "pull_request", "parameters": {"required_approving_review_count": 0}}]}`, "shop/app yes ? ?"},
		{`{"name": "r", "target": "branch", "enforcement": "disabled", "source": "shop/app", "rules": [{"type": "non_fast_forward"}]}`, "shop/app ? ? ?"},
		{`{"seenAt": "2026-11-01T00:00:00Z", "repository": "shop/app", "rules": [{"type": "non_fast_forward"}]}`, "shop/app ? ? no"},
		{`{"push_access_levels": [{"access_level": 0}], "merge_access_levels": [], "allow_force_push": false}`, " yes ? no"},
		{`{"push_access_levels": [{"access_level": 0}, {"access_level": 40}], "merge_access_levels": [], "allow_force_push": true, "code_owner_approval_required": true}`, " no yes yes"},
		{`{"push_access_levels": [{"access_level": null, "user_id": 3}], "merge_access_levels": []}`, " no ? ?"},
		{`{"approvals_before_merge": 2, "reset_approvals_on_push": true}`, " ? yes ?"},
		{`{"approvals_before_merge": 0, "reset_approvals_on_push": true}`, " ? ? ?"},
		{`{"date": "2026-11-01", "repo": {"name": "github.com/shop/app"}, "scorecard": {"version": "v5"}, "checks": [{"name": "Branch-Protection", "score": 9}]}`, "github.com/shop/app yes yes no"},
		{`{"date": "2026-11-01T10:00:00Z", "repo": {}, "scorecard": {}, "checks": [{"name": "Branch-Protection", "score": 2}, {"name": "Pinned-Dependencies", "score": 10}]}`, " ? ? ?"},
	} {
		set, err := Read("f.json", []byte(tt.text))
		if err != nil {
			t.Fatalf("%s: %v", tt.text, err)
		}
		p := set.Protections[0]
		if got := fmt.Sprintf("%s %s %s %s", p.Repository, words[p.PullRequest], words[p.Reviewed], words[p.ForcePush]); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.text, got, tt.want)
		}
		if dated := strings.Contains(tt.text, "2026-11-01"); dated == p.SeenAt.IsZero() {
			t.Errorf("%s: seen at %s", tt.text, p.SeenAt)
		}
	}
	if _, err := Read("f.json", []byte(classic+`"allow_force_pushes": 3}`)); err == nil || !strings.HasPrefix(err.Error(), "f.json:1: allow_force_pushes") {
		t.Errorf("wrong type: %v", err)
	}
}

// A source folder is read as one, wherever it stands; what is in it is no
// evidence.
func TestLoadRepositories(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"app/.github/workflows/ci.yml": "jobs: {}", "app/plan.json": `{"format_version": "1.2", "planned_values": {}}`, "plan.json": `{"format_version": "1.2", "planned_values": {}}`,
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	set, err := Load(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Repositories) != 1 || set.Repositories[0].Name != "app" || len(set.Repositories[0].Workflows) != 1 || set.Repositories[0].SeenAt.IsZero() {
		t.Errorf("repositories %+v", set.Repositories)
	}
	if len(set.Plans) != 1 || set.Plans[0].Kind != IaC || set.Empty() {
		t.Errorf("plans %+v", set.Plans)
	}
	if set, err := Read("s.json", []byte(`{"format_version": "1.0", "values": {}}`)); err != nil || set.Plans[0].Kind != Cloud {
		t.Errorf("state %+v, %v", set, err)
	}
	if _, err := Read("s.json", []byte(`{"format_version": "9", "values": {}}`)); err == nil || !strings.HasPrefix(err.Error(), "s.json: read Terraform state: ") {
		t.Errorf("bad state: %v", err)
	}
}

func TestRepositoryIs(t *testing.T) {
	for _, tt := range []struct {
		name, remote, other string
		want                bool
	}{
		{"github.com/shop/app", "x", "github.com/Shop/App", true},
		{"github.com/shop/app", "x", "shop/app", true},
		{"github.com/shop/app", "x", "op/app", false},
		{"github.com/shop/app", "x", "gitlab.com/github.com/shop/app", false},
		{"app", "", "github.com/shop/app", true},
		{"app", "", "github.com/shop/myapp", false},
	} {
		r := Repository{Tree: &repository.Tree{Name: tt.name, Remote: tt.remote}}
		if r.Is(tt.other) != tt.want {
			t.Errorf("%s is %s: %t", tt.name, tt.other, !tt.want)
		}
	}
}
