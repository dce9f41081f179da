package report

import (
	"cmp"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/finding"
)

// OpenReports is the format of cluster tools: Report and ClusterReport objects
// as YAML, ready for kubectl apply. They are summaries: counts, and the worst
// failures. Whole reports as objects have filled etcd and brought clusters down.
type OpenReports struct{}

const openReportsShown = 50 // results of one object; about 25 KiB

type openReport struct {
	APIVersion string           `json:"apiVersion"`
	Kind       string           `json:"kind"`
	Metadata   openMetadata     `json:"metadata"`
	Source     string           `json:"source"`
	Summary    openSummary      `json:"summary"`
	Results    []openReportItem `json:"results,omitempty"`
}

type openMetadata struct {
	Name        string            `json:"name"`
	Namespace   string            `json:"namespace,omitempty"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type openSummary struct {
	Pass  int `json:"pass"`
	Fail  int `json:"fail"`
	Warn  int `json:"warn"`  // accepted
	Error int `json:"error"` // not verified
	Skip  int `json:"skip"`  // not applicable
}

type openReportItem struct {
	Policy    string         `json:"policy"`
	Category  string         `json:"category"`
	Severity  string         `json:"severity,omitempty"`
	Result    string         `json:"result"`
	Message   string         `json:"message"`
	Source    string         `json:"source"`
	Subjects  []openSubject  `json:"subjects"`
	Timestamp *openTimestamp `json:"timestamp,omitempty"`
}

type openSubject struct {
	APIVersion string `json:"apiVersion,omitempty"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name,omitempty"`
}

type openTimestamp struct {
	Seconds int64 `json:"seconds"`
	Nanos   int32 `json:"nanos"`
}

// Write writes a ClusterReport of what is in no namespace, and a Report for
// each namespace.
func (OpenReports) Write(w io.Writer, r *Report) error {
	reports := map[string]*openReport{"": newOpenReport("")}
	for _, f := range r.Findings {
		ns := f.Subject.Namespace
		if reports[ns] == nil {
			reports[ns] = newOpenReport(ns)
		}
		reports[ns].add(f)
	}
	if r.Score.Total != nil {
		reports[""].Metadata.Annotations = map[string]string{
			"kubeguardian.dev/score": Points(*r.Score.Total, 100), "kubeguardian.dev/catalogue": r.Catalogue,
		}
	}
	return writeOpenReports(w, reports)
}

func writeOpenReports(w io.Writer, reports map[string]*openReport) error {
	for _, ns := range slices.Sorted(maps.Keys(reports)) {
		text, err := yaml.Marshal(reports[ns])
		if err != nil {
			return fmt.Errorf("encode report of namespace %q: %w", ns, err)
		}
		if _, err := fmt.Fprintf(w, "---\n%s", text); err != nil {
			return err
		}
	}
	return nil
}

func newOpenReport(namespace string) *openReport {
	o := &openReport{
		APIVersion: "openreports.io/v1alpha1", Kind: "Report", Source: "kubeguardian",
		Metadata: openMetadata{
			Name: "kubeguardian", Namespace: namespace,
			Labels: map[string]string{"app.kubernetes.io/managed-by": "kubeguardian"},
		},
	}
	if namespace == "" {
		o.Kind = "ClusterReport"
	}
	return o
}

// add counts a finding; findings come worst first, so that the first failures
// are the ones to show.
func (o *openReport) add(f finding.Finding) {
	counts := map[finding.Status]*int{
		finding.Pass: &o.Summary.Pass, finding.Fail: &o.Summary.Fail, finding.Excepted: &o.Summary.Warn,
		finding.Unknown: &o.Summary.Error, finding.NotApplicable: &o.Summary.Skip,
	}
	*counts[f.Status]++
	if f.Status != finding.Fail || len(o.Results) == openReportsShown {
		return
	}
	item := openReportItem{
		Policy: f.Control, Category: string(f.Level), Severity: string(f.Severity), Result: "fail",
		Message: Plain(cmp.Or(f.Message, f.Title)), Source: "kubeguardian",
		Subjects: []openSubject{{f.Subject.APIVersion, f.Subject.Kind, f.Subject.Namespace, f.Subject.Name}},
	}
	if at := f.ObservedAt; !at.IsZero() {
		item.Timestamp = &openTimestamp{at.Unix(), int32(at.Sub(at.Truncate(time.Second)))}
	}
	o.Results = append(o.Results, item)
}

// Unjudged stands for the enforcement of what no policy could judge.
const Unjudged = "unjudged"

// WriteViolations writes the same of admission policies: what they would deny is a
// failure, what they would only warn of or note a warning, and what they could not
// judge, see [Unjudged], an error. The worst are shown.
func (OpenReports) WriteViolations(w io.Writer, at time.Time, violations iter.Seq2[finding.Subject, finding.Violation]) error {
	reports := map[string]*openReport{"": newOpenReport("")}
	worst := map[string]map[string][]openReportItem{} // by namespace and result
	for subject, v := range violations {
		ns := subject.Namespace
		if reports[ns] == nil {
			reports[ns] = newOpenReport(ns)
		}
		if worst[ns] == nil {
			worst[ns] = map[string][]openReportItem{}
		}
		item := openReportItem{
			Policy: v.Policy, Category: "admission", Message: Plain(v.Message), Source: "kubeguardian",
			Subjects:  []openSubject{{subject.APIVersion, subject.Kind, subject.Namespace, subject.Name}},
			Timestamp: &openTimestamp{at.Unix(), int32(at.Nanosecond())},
		}
		sum := &reports[ns].Summary
		switch v.Enforcement {
		case "deny":
			item.Result = "fail"
			sum.Fail++
		case Unjudged:
			item.Result = "error"
			sum.Error++
		default:
			item.Result = "warn"
			sum.Warn++
		}
		if shown := worst[ns][item.Result]; len(shown) < openReportsShown {
			worst[ns][item.Result] = append(shown, item)
		}
	}
	for ns, r := range reports {
		r.Metadata.Name = "kubeguardian-audit"
		all := slices.Concat(worst[ns]["fail"], worst[ns]["error"], worst[ns]["warn"])
		r.Results = all[:min(len(all), openReportsShown)]
	}
	return writeOpenReports(w, reports)
}
