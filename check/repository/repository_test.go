package repository

import (
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/evidence/repository"
	"github.com/kubeguardian/kubeguardian/fact"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/tool"
)

var seen = time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)

func setOf(trees ...repository.Tree) *evidence.Set {
	set := &evidence.Set{}
	for i := range trees {
		set.Repositories = append(set.Repositories, evidence.Repository{Origin: evidence.Origin{Kind: evidence.Repo, SeenAt: seen}, Tree: &trees[i]})
	}
	return set
}

// one expects one finding with a text in it.
func one(t *testing.T, name string, got []finding.Verdict, want finding.Status, says string) {
	t.Helper()
	if len(got) != 1 || got[0].Status != want || !strings.Contains(got[0].Message+got[0].Reason+got[0].Evidence, says) {
		t.Errorf("%s: %+v, want %s with %q", name, got, want, says)
	}
}

// Rules add up, the oldest answer counts, and a name matches whatever its case.
func TestProtected(t *testing.T) {
	protection := func(repository string, pull, reviewed, force fact.Fact, at time.Time) evidence.Protection {
		return evidence.Protection{Origin: evidence.Origin{Tool: "GitHub", Source: "p.json", SeenAt: at}, Repository: repository, PullRequest: pull, Reviewed: reviewed, ForcePush: force}
	}
	for name, tt := range map[string]struct {
		protections []evidence.Protection
		want        finding.Status
		says        string
	}{
		"none":         {nil, finding.Unknown, "repos/shop/app/branches"},
		"all":          {[]evidence.Protection{protection("Shop/App", fact.Yes, fact.Yes, fact.No, seen)}, finding.Pass, "GitHub in p.json"},
		"unnamed":      {[]evidence.Protection{protection("", fact.Yes, fact.Yes, fact.No, seen)}, finding.Pass, ""},
		"in two":       {[]evidence.Protection{protection("shop/app", fact.Yes, fact.Unknown, fact.Yes, seen), protection("shop/app", fact.Unknown, fact.Yes, fact.No, seen)}, finding.Pass, ""},
		"one undated":  {[]evidence.Protection{protection("shop/app", fact.Yes, fact.Yes, fact.No, seen), protection("shop/app", fact.Yes, fact.Yes, fact.No, time.Time{})}, finding.Unknown, "does not say when"},
		"not reviewed": {[]evidence.Protection{protection("shop/app", fact.Yes, fact.No, fact.Unknown, time.Time{})}, finding.Fail, "nobody else"},
		"partly":       {[]evidence.Protection{protection("shop/app", fact.Yes, fact.Unknown, fact.No, seen)}, finding.Unknown, "does not speak of reviews"},
		"everything":   {[]evidence.Protection{protection("shop/app", fact.No, fact.No, fact.Yes, seen)}, finding.Fail, "without a pull request, and nobody else needs to approve a change, and history"},
	} {
		set := setOf(repository.Tree{Name: "shop/app"})
		set.Protections = tt.protections
		got := Protected(set)
		one(t, name, got, tt.want, tt.says)
		if got[0].Subject.Name != "shop/app" || got[0].Subject.Kind != "Repository" {
			t.Errorf("%s: subject %v", name, got[0].Subject)
		}
	}
	set := setOf(repository.Tree{Name: "shop/app"})
	set.Protections = []evidence.Protection{protection("shop/other", fact.Yes, fact.Yes, fact.No, seen)}
	if got := Protected(set); len(got) != 2 || got[0].Status != finding.Unknown || got[1].Subject.Name != "shop/other" || got[1].Status != finding.Pass {
		t.Errorf("another repository: %+v", got)
	}
	if Protected(nil) != nil {
		t.Error("of nothing something")
	}
}

func TestSecrets(t *testing.T) {
	leak := repository.Leak{Rule: "private-key", Place: "a.pem:1"}
	old := repository.Leak{Rule: "private-key", Place: "b.pem:1", Commit: "abc"}
	made := repository.Leak{Rule: "private-key", Place: "a_test.go:1", Test: true}
	for name, tt := range map[string]struct {
		tree repository.Tree
		want finding.Status
		says string
	}{
		"none":                   {repository.Tree{Files: 3}, finding.Pass, "3 files and the history"},
		"no history":             {repository.Tree{History: "no git"}, finding.Unknown, "no git"},
		"not all":                {repository.Tree{Left: []string{"x.sql is over 4 MiB"}}, finding.Unknown, "x.sql"},
		"one":                    {repository.Tree{Leaks: []repository.Leak{leak}, History: "no git"}, finding.Fail, "a secret lies in the repository"},
		"in the history":         {repository.Tree{Leaks: []repository.Leak{old}}, finding.Fail, "b.pem:1 in commit abc"},
		"two":                    {repository.Tree{Leaks: []repository.Leak{leak, old}, Left: []string{"x"}}, finding.Fail, "2 secrets lie"},
		"in tests":               {repository.Tree{Leaks: []repository.Leak{made}}, finding.Unknown, "may be made up"},
		"in tests, and for real": {repository.Tree{Leaks: []repository.Leak{leak, made}}, finding.Fail, "a secret lies"},
	} {
		one(t, name, Secrets(setOf(tt.tree)), tt.want, tt.says)
	}
	if f := Secrets(setOf(repository.Tree{Leaks: []repository.Leak{leak}})); f[0].Subject.Source != "a.pem:1" || f[0].EvidenceKind != "repo" || !f[0].ObservedAt.Equal(seen) {
		t.Errorf("%+v", f[0])
	}
}

func TestManifests(t *testing.T) {
	one(t, "none", Manifests(setOf(repository.Tree{Files: 2})), finding.Pass, "2 files")
	one(t, "one", Manifests(setOf(repository.Tree{SecretFiles: []string{"a.yaml:1"}, TestSecretFiles: []string{"b"}})), finding.Fail, "a manifest holds a plain Secret")
	one(t, "in tests", Manifests(setOf(repository.Tree{TestSecretFiles: []string{"testdata/a.yaml:1"}})), finding.Unknown, "testdata/a.yaml:1")
	one(t, "not all", Manifests(setOf(repository.Tree{Left: []string{"x"}})), finding.Unknown, "not looked at: x")
}

// A failure in a pipeline that could be read outweighs one that could not.
func TestPipelines(t *testing.T) {
	opaque := repository.Workflow{Place: "Jenkinsfile", System: "Jenkins", Opaque: "a program"}
	loose := repository.Workflow{Uses: []repository.Dependency{{Name: "a@v1", Place: "ci.yml:3"}, {Name: "b@v1", Pinned: true}}}
	one(t, "loose", Pinned(setOf(repository.Tree{Workflows: []repository.Workflow{opaque, loose}})), finding.Fail, "1 of 2 actions and images are not pinned")
	one(t, "opaque", Pinned(setOf(repository.Tree{Workflows: []repository.Workflow{opaque}})), finding.Unknown, "a program")
	one(t, "writes", ReadOnly(setOf(repository.Tree{Workflows: []repository.Workflow{opaque, {ReadOnly: fact.No, Writes: []string{"ci.yml:2"}}}})), finding.Fail, "ci.yml:2")
	one(t, "silent", ReadOnly(setOf(repository.Tree{Workflows: []repository.Workflow{{Place: "ci.yml"}, {ReadOnly: fact.Yes}}})), finding.Unknown, "ci.yml")
	lasting := repository.Workflow{Credentials: []repository.Credential{{Name: "secret KUBECONFIG", Place: "ci.yml:9"}}, Federated: []string{"ci.yml:4"}}
	one(t, "lasting", Credentials(setOf(repository.Tree{Workflows: []repository.Workflow{opaque, lasting}})), finding.Fail, "ci.yml:9 secret KUBECONFIG")
	one(t, "inherits", Credentials(setOf(repository.Tree{Workflows: []repository.Workflow{{Inherits: []string{"ci.yml:5"}}}})), finding.Unknown, "ci.yml:5 hands all secrets")
}

func TestScanned(t *testing.T) {
	step := func(fails fact.Fact) repository.Workflow {
		return repository.Workflow{Place: "ci.yml", Steps: []repository.Step{{Use: tool.Use{Tool: "Trivy", For: []string{"manifests"}, Fails: fails}, Place: "ci.yml:7"}}}
	}
	deploys := []repository.Path{{Path: "deploy", What: "manifests"}}
	for name, tt := range map[string]struct {
		tree repository.Tree
		want finding.Status
		says string
	}{
		"stops":       {repository.Tree{Workflows: []repository.Workflow{step(fact.No), step(fact.Yes)}, Sensitive: deploys}, finding.Pass, "ci.yml:7 Trivy"},
		"reports":     {repository.Tree{Workflows: []repository.Workflow{step(fact.No)}, Sensitive: deploys}, finding.Fail, "does not stop the build"},
		"elsewhere":   {repository.Tree{Workflows: []repository.Workflow{step(fact.Unknown), step(fact.No)}, Sensitive: deploys}, finding.Unknown, "set on the code host"},
		"none":        {repository.Tree{Workflows: []repository.Workflow{{Place: "ci.yml"}}, Sensitive: deploys}, finding.Fail, "no step scans"},
		"hidden":      {repository.Tree{Workflows: []repository.Workflow{{Calls: []string{"ci.yml:3"}}}, Sensitive: deploys}, finding.Unknown, "ci.yml:3"},
		"no pipeline": {repository.Tree{Sensitive: deploys}, finding.Unknown, "no pipeline"},
		"no manifest": {repository.Tree{Workflows: []repository.Workflow{{Place: "ci.yml"}}}, finding.NotApplicable, ""},
	} {
		one(t, name, Scanned(setOf(tt.tree)), tt.want, tt.says)
	}
}

func TestOwned(t *testing.T) {
	one(t, "none", Owned(setOf(repository.Tree{})), finding.NotApplicable, "")
	paths := []repository.Path{{Path: "deploy", What: "manifests", Owners: []string{"@a"}}, {Path: "policy", What: "policy"}}
	one(t, "free", Owned(setOf(repository.Tree{CodeOwners: "CODEOWNERS", Sensitive: paths})), finding.Fail, "policy (policy)")
	one(t, "all", Owned(setOf(repository.Tree{CodeOwners: "CODEOWNERS", Sensitive: paths[:1]})), finding.Pass, "covers 1 path")
}
