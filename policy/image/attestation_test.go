package image

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const day = 24 * time.Hour

// scan returns the predicate of a search for vulnerabilities.
func scan(ended, database time.Time, result any) map[string]any {
	return map[string]any{
		"scanner":  map[string]any{"db": map[string]any{"lastUpdate": database.Format(time.RFC3339)}, "result": result},
		"metadata": map[string]any{"scanFinishedOn": ended.Format(time.RFC3339)},
	}
}

func trivy(severities ...string) map[string]any {
	var found []any
	for i, s := range severities {
		found = append(found, map[string]any{"VulnerabilityID": fmt.Sprintf("CVE-%d", i), "Severity": s})
	}
	return map[string]any{"SchemaVersion": 2, "Results": []any{map[string]any{"Vulnerabilities": found}}}
}

func grype(severities ...string) map[string]any {
	found := []any{}
	for i, s := range severities {
		found = append(found, map[string]any{"vulnerability": map[string]any{"id": fmt.Sprintf("CVE-%d", i), "severity": s}})
	}
	return map[string]any{"matches": found}
}

func inTotoList(scores ...string) []any {
	found := []any{}
	for i, s := range scores {
		found = append(found, map[string]any{"id": fmt.Sprintf("CVE-%d", i), "severity": []any{map[string]any{"method": "x", "score": s}}})
	}
	return found
}

func TestVulnerabilities(t *testing.T) {
	h, ci, now := newHub(t, true), newKey(t), time.Now()
	set := load(t, Options{}, doc("scanned", "rules: {requiredSignatures: 0}\nattestors:\n"+keyAttestor("ci", ci)+`
attestations:
- name: scan
  predicateType: `+cosignVulnerabilities+`
  maxAge: 168h
  vulnerabilities: {maxSeverity: medium, maxDatabaseAge: 48h, ignore: [CVE-7]}
`))
	today := now.Add(-time.Hour)
	for name, test := range map[string]struct {
		scans []map[string]any
		want  string
	}{
		"clean":              {[]map[string]any{scan(today, today, trivy())}, ""},
		"tolerable":          {[]map[string]any{scan(today, today, trivy("LOW", "MEDIUM", "UNKNOWN"))}, ""},
		"too bad":            {[]map[string]any{scan(today, today, trivy("LOW", "CRITICAL", "HIGH"))}, "2 vulnerabilities are worse than medium: CVE-1 (critical), CVE-2 (high)"},
		"ignored":            {[]map[string]any{scan(today, today, grype("low", "low", "low", "low", "low", "low", "low", "Critical"))}, ""},
		"too bad by Grype":   {[]map[string]any{scan(today, today, grype("Negligible", "High"))}, "CVE-1 (high)"},
		"clean by Grype":     {[]map[string]any{scan(today, today, grype())}, ""},
		"by in-toto":         {[]map[string]any{scan(today, today, inTotoList("low", "6.9", "7.0"))}, "1 vulnerabilities are worse than medium: CVE-2 (high)"},
		"not understood":     {[]map[string]any{scan(today, today, inTotoList("CVSS:3.1/AV:N"))}, "CVE-0 (critical)"},
		"another form":       {[]map[string]any{scan(today, today, map[string]any{"runs": []any{}})}, "its result cannot be read: it is neither a list of in-toto nor a report of Trivy or Grype"},
		"no result":          {[]map[string]any{scan(today, today, nil)}, "its result cannot be read: "},
		"old":                {[]map[string]any{scan(now.Add(-8*day), today, trivy())}, "older than 168h0m0s"},
		"of the future":      {[]map[string]any{scan(now.Add(day), today, trivy())}, "which is in the future"},
		"old database":       {[]map[string]any{scan(today, now.Add(-3*day), trivy())}, "the database of the scanner is of "},
		"without time":       {[]map[string]any{{"scanner": map[string]any{"result": trivy()}}}, "it does not say when it was made"},
		"newer one is worse": {[]map[string]any{scan(today, today, trivy("HIGH")), scan(today.Add(-day), today, trivy())}, "CVE-0 (high)"},
		"newer one is clean": {[]map[string]any{scan(today.Add(-day), today, trivy("HIGH")), scan(today, today, trivy())}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			image := h.push("shop/" + strings.ToLower(strings.ReplaceAll(name, " ", "-")) + ":1")
			for _, s := range test.scans {
				h.refer(image, ci.bundle(inToto(t, image.DigestStr(), cosignVulnerabilities, s)))
			}
			found := evaluate(t, set, podOf(image.String()))
			if test.want == "" {
				wantNone(t, found)
			} else {
				wantOne(t, found, "attestation scan: ", test.want)
			}
		})
	}
}

// TestAgeEnds remembers a valid image no longer than its attestation is fresh.
func TestAgeEnds(t *testing.T) {
	h, ci, now := newHub(t, true), newKey(t), time.Now()
	image := h.push("shop/web:1")
	h.refer(image, ci.bundle(inToto(t, image.DigestStr(), cosignVulnerabilities, scan(now.Add(-7*day+10*time.Minute), now, trivy()))))
	clock := now
	set := load(t, Options{Now: func() time.Time { return clock }}, doc("scanned", "rules: {requiredSignatures: 0}\nattestors:\n"+keyAttestor("ci", ci)+
		"attestations: [{name: scan, predicateType: '"+cosignVulnerabilities+"', maxAge: 168h}]"))
	wantNone(t, evaluate(t, set, podOf(image.String())))
	clock = now.Add(11 * time.Minute)
	wantOne(t, evaluate(t, set, podOf(image.String())), "older than 168h0m0s")
}

// TestWitnessedTime takes the time of a log or timestamp authority where a
// statement says none.
func TestWitnessedTime(t *testing.T) {
	h, a := newHub(t, true), newAuthority(t)
	clock := time.Now()
	set := a.load(a.root(), Options{Now: func() time.Time { return clock }}, doc("attested", "rules: {requiredSignatures: 0}\nattestors:\n"+
		keylessAttestor(fmt.Sprintf("{issuer: %q, subject: %q}", issuer, subject))+"attestations: [{name: review, predicateType: 'https://example.com/review', maxAge: 24h}]"))
	image := h.push("shop/web:1")
	h.refer(image, a.bundle(a.attest(subject, issuer, inToto(t, image.DigestStr(), "https://example.com/review", map[string]any{}), clock.Add(time.Minute), true), true))
	wantNone(t, evaluate(t, set, podOf(image.String())))
	clock = clock.Add(25 * time.Hour)
	wantOne(t, evaluate(t, set, podOf(image.String())), "older than 24h0m0s")
}

func TestSource(t *testing.T) {
	for text, want := range map[string]string{
		"git+https://git.example.com/shop/web@refs/heads/main": "https://git.example.com/shop/web",
		"https://git.example.com/shop/web":                     "https://git.example.com/shop/web",
		"git+ssh://git@git.example.com/shop/web@v1":            "ssh://git@git.example.com/shop/web",
		"ssh://git@git.example.com/shop/web":                   "ssh://git@git.example.com/shop/web",
		"git@git.example.com:shop/web":                         "git@git.example.com:shop/web",
		"https://git.example.com@evil.com/shop":                "https://git.example.com@evil.com/shop",
		"":                                                     "",
	} {
		if have := repository(text); have != want {
			t.Errorf("repository of %q is %q, want %q", text, have, want)
		}
	}
	for name, test := range map[string]struct{ predicate, want string }{
		"v1 of GitHub":  {`{"buildDefinition":{"externalParameters":{"workflow":{"repository":"https://a"}},"resolvedDependencies":[{"uri":"git+https://b"}]}}`, `source "https://a"`},
		"v1":            {`{"buildDefinition":{"resolvedDependencies":[{"uri":"git+https://b"},{"uri":"git+https://good"}]}}`, `source "git+https://b"`},
		"v0.2":          {`{"invocation":{"configSource":{"uri":"git+https://c"}},"materials":[{"uri":"git+https://good"}]}`, `source "git+https://c"`},
		"v0.2 allowed":  {`{"invocation":{"configSource":{"uri":"https://good"}}}`, ""},
		"wrong types":   {`{"invocation":1}`, "it cannot be read"},
		"no provenance": {`{}`, `source ""`},
	} {
		p := provenance{sources: texts{exact: []string{"https://good"}}}
		if have := p.judge([]byte(test.predicate)); !strings.HasPrefix(have, test.want) || (have == "") != (test.want == "") {
			t.Errorf("%s: %q, want %q", name, have, test.want)
		}
	}
}
