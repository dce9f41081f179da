package image

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// clockSkew is how far in the future a time may lie.
const clockSkew = 5 * time.Minute

// An attestation is what a policy demands of statements of one type.
type attestation struct {
	name            string
	predicateType   string
	attestors       []*attestor // one of them must have signed
	maxAge          time.Duration
	provenance      *provenance
	vulnerabilities *vulnerabilities
}

// A statement is an attestation of an image that was verified.
type statement struct {
	predicate json.RawMessage
	witnessed time.Time // by a log or a timestamp authority; zero if by none
}

// Texts are values that must be met: exactly, or by an expression as a whole.
type texts struct {
	exact []string
	exprs []*regexp.Regexp
}

func (t texts) empty() bool { return len(t.exact)+len(t.exprs) == 0 }

func (t texts) match(value string) bool {
	return slices.Contains(t.exact, value) ||
		slices.ContainsFunc(t.exprs, func(e *regexp.Regexp) bool { return e.MatchString(value) })
}

func (l *loader) attestations(c *checker, p *Policy) {
	c.most("spec.attestations", len(c.Spec.Attestations), maxAttestations)
	seen := map[string]bool{}
	for i, doc := range c.Spec.Attestations {
		path := fmt.Sprintf("spec.attestations[%d]", i)
		c.unique(path+".name", doc.Name, seen)
		c.duration(path+".maxAge", doc.MaxAge)
		if doc.PredicateType == "" {
			c.bad(path+".predicateType", "a value is required")
		}
		a := &attestation{
			name: doc.Name, predicateType: doc.PredicateType, maxAge: doc.MaxAge.Duration,
			attestors:       p.named(c, path+".attestors", doc.Attestors),
			provenance:      c.provenance(path, doc),
			vulnerabilities: c.vulnerabilities(path, doc),
		}
		p.attestations = append(p.attestations, a)
	}
}

// named returns the attestors with these names, all if there are none.
func (p *Policy) named(c *checker, path string, names []string) []*attestor {
	if len(p.attestors) == 0 {
		c.bad(path, "spec.attestors is empty, and somebody must have signed")
	}
	if len(names) == 0 {
		return p.attestors
	}
	var out []*attestor
	for i, name := range names {
		found := slices.IndexFunc(p.attestors, func(a *attestor) bool { return a.name == name })
		if found < 0 {
			c.bad(fmt.Sprintf("%s[%d]", path, i), "%q is not one of spec.attestors", name)
			continue
		}
		out = append(out, p.attestors[found])
	}
	return out
}

// judge checks the verified statements of this type, of which there is at least
// one. It returns what is wrong, "" for nothing, and until when that holds: zero
// is for ever. The newest scan counts, because a new one corrects those before;
// of other statements one that satisfies is enough.
func (a *attestation) judge(found []statement, now time.Time) (problem string, until time.Time) {
	if a.vulnerabilities != nil {
		return a.newest(found, now)
	}
	var problems []string
	for _, s := range found {
		problem, until := a.one(s, now)
		if problem == "" {
			return "", until
		}
		problems = append(problems, problem)
	}
	return problems[0], time.Time{}
}

// newest judges the scan that ended last.
func (a *attestation) newest(found []statement, now time.Time) (string, time.Time) {
	last := slices.MaxFunc(found, func(x, y statement) int { return a.made(x).Compare(a.made(y)) })
	return a.one(last, now)
}

func (a *attestation) one(s statement, now time.Time) (problem string, until time.Time) {
	if a.maxAge > 0 {
		made := a.made(s)
		if problem := aged("it", made, a.maxAge, now); problem != "" {
			return problem, time.Time{}
		}
		until = made.Add(a.maxAge)
	}
	switch {
	case a.provenance != nil:
		problem = a.provenance.judge(s.predicate)
	case a.vulnerabilities != nil:
		var ends time.Time
		if problem, ends = a.vulnerabilities.judge(s.predicate, now); !ends.IsZero() && (until.IsZero() || ends.Before(until)) {
			until = ends
		}
	}
	return problem, until
}

// aged says what is wrong with the time of a thing.
func aged(what string, made time.Time, most time.Duration, now time.Time) string {
	switch {
	case made.IsZero():
		return what + " does not say when it was made"
	case made.After(now.Add(clockSkew)):
		return fmt.Sprintf("%s is of %s, which is in the future", what, made.UTC().Format(time.RFC3339))
	case now.Sub(made) > most:
		return fmt.Sprintf("%s is of %s, older than %s", what, made.UTC().Format(time.RFC3339), most)
	}
	return ""
}

// made returns when a statement was made: what it says itself, else what was
// witnessed.
func (a *attestation) made(s statement) time.Time {
	var p struct {
		Metadata   finished `json:"metadata"`
		RunDetails struct {
			Metadata finished `json:"metadata"`
		} `json:"runDetails"`
	}
	if json.Unmarshal(s.predicate, &p) != nil {
		return s.witnessed
	}
	for _, text := range []string{p.Metadata.Scan, p.RunDetails.Metadata.Run, p.Metadata.Build} {
		if t, err := time.Parse(time.RFC3339, text); err == nil {
			return t
		}
	}
	return s.witnessed
}

// A finished is where statements of each type say when their work ended.
type finished struct {
	Scan  string `json:"scanFinishedOn"`  // vulnerabilities
	Run   string `json:"finishedOn"`      // provenance, v1
	Build string `json:"buildFinishedOn"` // provenance, v0.2
}

// parseStatement reads the payload of a verified envelope.
func parseStatement(payload []byte) (predicateType string, predicate json.RawMessage, err error) {
	var s struct {
		Type          string          `json:"_type"`
		PredicateType string          `json:"predicateType"`
		Predicate     json.RawMessage `json:"predicate"`
	}
	if err := json.Unmarshal(payload, &s); err != nil {
		return "", nil, fmt.Errorf("parse statement: %w", err)
	}
	if !strings.HasPrefix(s.Type, "https://in-toto.io/Statement/") {
		return "", nil, errors.New("parse statement: it is not an in-toto statement")
	}
	return s.PredicateType, s.Predicate, nil
}

// Provenance demands a builder and a source.
type provenance struct{ builders, sources texts }

func (c *checker) provenance(path string, doc attestDoc) *provenance {
	if doc.Provenance == nil {
		return nil
	}
	path += ".provenance"
	p := &provenance{
		builders: c.texts(path+".builders", doc.Provenance.Builders, path+".builderRegExps", doc.Provenance.BuilderRegExps),
		sources:  c.texts(path+".sources", doc.Provenance.Sources, path+".sourceRegExps", doc.Provenance.SourceRegExps),
	}
	if p.builders.empty() && p.sources.empty() {
		c.bad(path, "builders or sources are required")
	}
	if !strings.HasPrefix(doc.PredicateType, "https://slsa.dev/provenance/") {
		c.bad(path, "predicateType is %q: want https://slsa.dev/provenance/v1 or v0.2", doc.PredicateType)
	}
	return p
}

// A slsaPredicate is provenance of SLSA in its forms v0.2 and v1.
type slsaPredicate struct {
	Builder    struct{ ID string } `json:"builder"`
	Invocation struct {
		ConfigSource struct{ URI string } `json:"configSource"`
	} `json:"invocation"`
	RunDetails struct {
		Builder struct{ ID string } `json:"builder"`
	} `json:"runDetails"`
	BuildDefinition struct {
		External struct {
			Workflow struct{ Repository string } `json:"workflow"`
		} `json:"externalParameters"`
		Dependencies []struct{ URI string } `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
}

// source returns what was built. Only the place that means the source counts:
// the rest of the list are things that were used.
func (s *slsaPredicate) source() string {
	first := ""
	if d := s.BuildDefinition.Dependencies; len(d) > 0 {
		first = d[0].URI
	}
	return cmp.Or(s.BuildDefinition.External.Workflow.Repository, first, s.Invocation.ConfigSource.URI)
}

func (p *provenance) judge(predicate json.RawMessage) string {
	var s slsaPredicate
	if err := json.Unmarshal(predicate, &s); err != nil {
		return fmt.Sprintf("it cannot be read: %v", err)
	}
	if builder := cmp.Or(s.RunDetails.Builder.ID, s.Builder.ID); !p.builders.empty() && !p.builders.match(builder) {
		return fmt.Sprintf("builder %q is not an allowed one", builder)
	}
	if source := s.source(); !p.sources.empty() && !p.sources.match(source) && !p.sources.match(repository(source)) {
		return fmt.Sprintf("source %q is not an allowed one", source)
	}
	return ""
}

// repository returns the repository of a source such as
// git+https://example.com/shop@refs/heads/main.
func repository(source string) string {
	source = strings.TrimPrefix(source, "git+")
	scheme, rest, _ := strings.Cut(source, "://")
	path, at := strings.IndexByte(rest, '/'), strings.LastIndexByte(rest, '@')
	if path > 0 && at > path { // before the path, @ ends the name of a user
		return scheme + "://" + rest[:at]
	}
	return source
}
