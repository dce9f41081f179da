package evidence

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/finding"
)

// An AnalysisType says what an analysis searches for.
type AnalysisType string

// The types of analysis. The zero value means that the tool is not known.
const (
	SAST       AnalysisType = "sast" // weaknesses in source code
	SCA        AnalysisType = "sca"  // known vulnerabilities of dependencies
	SecretScan AnalysisType = "secrets"
	IaCScan    AnalysisType = "iac"
	DASTScan   AnalysisType = "dast" // weaknesses of a running application
)

// analysisTypes is their order in records of one document.
var analysisTypes = []AnalysisType{SAST, SCA, SecretScan, IaCScan, DASTScan}

// kind returns the kind of evidence that an analysis is.
func (t AnalysisType) kind() Kind {
	switch t {
	case IaCScan:
		return IaC
	case DASTScan:
		return DAST
	}
	return Repo
}

// An Analysis is one run of a tool over source code, or over a running
// application.
type Analysis struct {
	Origin
	Type           AnalysisType
	Repository     string // address; "" where the document does not say
	Commit         string // "" where the document does not say
	Targets        []string
	Started, Ended time.Time
	Results        []Result // open ones only
}

// A Result is one weakness that an analysis found.
type Result struct {
	Rule     string
	File     string
	Line     int
	Severity finding.Severity
	Score    float64   // security-severity, 0 to 10; 0 where not said
	Since    time.Time // when it was first found; zero where not said
}

func (a *Analysis) add(r Result) { a.Results = append(a.Results, r) }

// toolTypes says what the well-known tools search for, by a part of the name in
// their reports. The first that matches counts.
var toolTypes = []struct {
	name string // lower case
	kind AnalysisType
}{
	{"snyk iac", IaCScan}, {"snyk infrastructure", IaCScan}, {"snyk code", SAST}, {"snykcode", SAST}, {"snyk", SCA},
	{"trivy", SCA}, // unless a rule says otherwise, see sarifType
	{"grype", SCA}, {"osv-scanner", SCA}, {"osv scanner", SCA}, {"dependabot", SCA}, {"dependency-check", SCA},
	{"govulncheck", SCA}, {"npm audit", SCA}, {"pip-audit", SCA}, {"cargo-audit", SCA}, {"black duck", SCA}, {"mend", SCA},
	{"gitleaks", SecretScan}, {"trufflehog", SecretScan}, {"detect-secrets", SecretScan}, {"ggshield", SecretScan}, {"gitguardian", SecretScan},
	{"checkov", IaCScan}, {"tfsec", IaCScan}, {"kics", IaCScan}, {"terrascan", IaCScan}, {"kube-linter", IaCScan}, {"kubelinter", IaCScan},
	{"kube-score", IaCScan}, {"kubesec", IaCScan}, {"polaris", IaCScan}, {"hadolint", IaCScan}, {"conftest", IaCScan},
	{"zap", DASTScan}, {"nuclei", DASTScan}, {"burp", DASTScan}, {"invicti", DASTScan}, {"stackhawk", DASTScan},
	{"codeql", SAST}, {"semgrep", SAST}, {"opengrep", SAST}, {"gosec", SAST}, {"sonar", SAST}, {"bandit", SAST}, {"brakeman", SAST},
	{"eslint", SAST}, {"spotbugs", SAST}, {"find security bugs", SAST}, {"pmd", SAST}, {"checkmarx", SAST}, {"coverity", SAST},
	{"fortify", SAST}, {"veracode", SAST}, {"bearer", SAST}, {"staticcheck", SAST}, {"golangci", SAST}, {"psalm", SAST}, {"devskim", SAST},
	{"flawfinder", SAST}, {"njsscan", SAST}, {"horusec", SAST}, {"security code scan", SAST}, {"mobsf", SAST},
}

// typeOfTool returns what a tool searches for, "" if it is not known.
func typeOfTool(name string) AnalysisType {
	name = strings.ToLower(name)
	for _, t := range toolTypes {
		if strings.Contains(name, t.name) {
			return t.kind
		}
	}
	return ""
}

// SameRepository reports whether two addresses are of one repository: with or
// without scheme, user, "git+" and ".git".
func SameRepository(a, b string) bool {
	return a != "" && b != "" && RepositoryName(a) == RepositoryName(b)
}

// RepositoryName returns the address of a repository without what differs
// between the ways to write it: "github.com/acme/shop".
func RepositoryName(address string) string {
	s := strings.TrimPrefix(address, "git+")
	if _, rest, ok := strings.Cut(s, "://"); ok {
		s = rest
	} else if host, path, ok := strings.Cut(s, ":"); ok && !strings.Contains(host, "/") {
		s = host + "/" + path // git@github.com:acme/shop
	}
	if user, rest, ok := strings.Cut(s, "@"); ok && !strings.Contains(user, "/") {
		s = rest
	}
	s, _, _ = strings.Cut(s, "#")
	s, _, _ = strings.Cut(s, "@") // @refs/heads/main
	s, _, _ = strings.Cut(s, "?")
	return strings.ToLower(strings.TrimSuffix(strings.TrimSuffix(s, "/"), ".git"))
}

// minCommit is the length from which the beginning of a commit names it.
const minCommit = 7

// SameCommit reports whether two commits are one, where either may be shortened.
func SameCommit(a, b string) bool {
	a, b = strings.ToLower(a), strings.ToLower(b)
	short, long := a, b
	if len(short) > len(long) {
		short, long = long, short
	}
	return len(short) >= minCommit && strings.HasPrefix(long, short)
}

// AnalysesOf returns the analyses of a type, newest first.
func (s *Set) AnalysesOf(t AnalysisType) []*Analysis {
	var out []*Analysis
	for i := range s.Analyses {
		if s.Analyses[i].Type == t {
			out = append(out, &s.Analyses[i])
		}
	}
	slices.SortStableFunc(out, func(a, b *Analysis) int {
		return cmp.Or(b.SeenAt.Compare(a.SeenAt), cmp.Compare(a.Source, b.Source))
	})
	return out
}
