package query

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/web/rest"
)

func FuzzQueries(f *testing.F) {
	f.Add("rule=a&priority=warning&since=24h&before=1700000000000000000.5&limit=3")
	f.Add("status=fail&severity=high&level=code&after=89|CON&outcome=denied")
	f.Add("before=-9223372036854775808.-1&until=9999-12-31T23:59:59Z&text=%25_%5c'")
	known := slices.Concat(AlertParams, DecisionParams, FindingParams)
	f.Fuzz(func(t *testing.T, text string) {
		u := &url.URL{RawQuery: text}
		p := rest.Parse(u, known...)
		a, d, fi := Alerts(p), Decisions(p), Findings(p)
		if p.Err != nil {
			return
		}
		// What was understood survives a link.
		again := rest.Parse(&url.URL{RawQuery: strings.TrimPrefix(rest.With("", p.Values), "?")}, known...)
		if b := Alerts(again); again.Err != nil || b.Before != a.Before || b.Limit != a.Limit || b.Text != a.Text {
			t.Errorf("%q becomes %+v and %+v: %v", text, a, b, again.Err)
		}
		if Decisions(again).Outcome != d.Outcome || Findings(again).Level != fi.Level {
			t.Errorf("%q is read in two ways", text)
		}
	})
}
