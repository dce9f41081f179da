package report

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/kubeguardian/kubeguardian/finding"
)

// maxReport bounds a report that is read back.
const maxReport = 1 << 30

// Read reads a report that was written as JSON; name is for errors.
func Read(name string, from io.Reader) (*Report, error) {
	r := &Report{}
	dec := json.NewDecoder(io.LimitReader(from, maxReport))
	if err := dec.Decode(r); err != nil {
		return nil, fmt.Errorf("%s: not a report in JSON: %w", name, err)
	}
	if r.Schema != Schema {
		return nil, fmt.Errorf("%s: schema %q is not %s: it is no report of kubeguardian scan --format json", name, r.Schema, Schema)
	}
	return r, nil
}

// Key says which control fails for what: the same for the same failure in two
// reports, though it may stand on another line.
func Key(f finding.Finding) string {
	file := f.Subject.Source
	if i := strings.LastIndexByte(file, ':'); i > 0 {
		file = file[:i]
	}
	return strings.Join([]string{f.Control, f.Subject.APIVersion, f.Subject.String(), f.Subject.Container, file + f.Subject.RenderedFrom}, "|")
}

// Against takes the failures of an earlier report as known: from then on only
// others count as new.
func (r *Report) Against(earlier *Report) {
	r.known = map[string]bool{}
	for _, f := range earlier.Findings {
		if f.Status == finding.Fail {
			r.known[Key(f)] = true
		}
	}
}

// IsNew reports whether a failure is not in the baseline; without a baseline
// every failure is new.
func (r *Report) IsNew(f finding.Finding) bool { return f.Status == finding.Fail && !r.known[Key(f)] }
