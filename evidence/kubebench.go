package evidence

import (
	"regexp"
	"strings"
	"time"
)

// A benchReport is the report of kube-bench --json. It names neither the node
// nor the time: whoever runs it may add both, as "node" and "seenAt".
type benchReport struct {
	Node     string    `json:"node"`
	SeenAt   time.Time `json:"seenAt"`
	Controls []struct {
		Version string `json:"version"`
		Tests   []struct {
			Results []struct {
				Number string `json:"test_number"`
				Text   string `json:"test_desc"`
				Status string `json:"status"`
			} `json:"results"`
		} `json:"tests"`
	} `json:"Controls"`
}

func isKubeBench(h head) bool { return h.has("Controls", "Totals") }

var (
	benchVersion = regexp.MustCompile(`^cis-1\.[0-9]{1,2}$`)
	benchItem    = regexp.MustCompile(`^[0-9]{1,2}(\.[0-9]{1,2}){1,3}$`)
)

// kubeBench reads the verdicts of kube-bench on the CIS benchmark. PASS and
// FAIL are verdicts; WARN is what a person must look at, and INFO neither.
func kubeBench(d document) (*Set, error) {
	var report benchReport
	if err := d.json(&report); err != nil {
		return nil, err
	}
	set := &Set{}
	for _, group := range report.Controls {
		if !benchVersion.MatchString(group.Version) {
			continue // of another distribution, numbered in its own way
		}
		for _, t := range group.Tests {
			for _, r := range t.Results {
				if r.Status != "PASS" && r.Status != "FAIL" || !benchItem.MatchString(r.Number) {
					continue
				}
				set.Verdicts = append(set.Verdicts, Verdict{
					Origin:    Origin{Kind: Node, Tool: "kube-bench", Source: d.name, SeenAt: report.SeenAt},
					Framework: group.Version, Item: r.Number, Subject: report.Node,
					Pass: r.Status == "PASS", Message: benchMessage(r.Text),
				})
			}
		}
	}
	if len(set.Verdicts) == 0 {
		return nil, d.errorf(0, "no verdict of kube-bench on the CIS Kubernetes benchmark (cis-1.x)")
	}
	return set, nil
}

// benchMessage takes the title of a test, which holds nothing of the node.
func benchMessage(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	for _, mark := range []string{" (Automated)", " (Manual)"} {
		text = strings.TrimSuffix(text, mark)
	}
	return strings.ToValidUTF8(text[:min(len(text), 300)], "")
}
