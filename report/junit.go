package report

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"github.com/kubeguardian/kubeguardian/finding"
)

// JUnit is the format that CI systems show as tests: a suite for each level, a
// case for each control and subject. What is unknown or accepted is skipped
// with its reason, never passed; what is not applicable is left out.
type JUnit struct{}

type junitSuites struct {
	XMLName  xml.Name     `xml:"testsuites"`
	Name     string       `xml:"name,attr"`
	Tests    int          `xml:"tests,attr"`
	Failures int          `xml:"failures,attr"`
	Suites   []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Name    string        `xml:"name,attr"`
	Class   string        `xml:"classname,attr"`
	File    string        `xml:"file,attr,omitempty"`
	Line    string        `xml:"line,attr,omitempty"`
	Failure *junitMessage `xml:"failure"`
	Skipped *junitMessage `xml:"skipped"`
}

type junitMessage struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr,omitempty"`
	Text    string `xml:",chardata"`
}

// Write writes one XML document.
func (JUnit) Write(w io.Writer, r *Report) error {
	all := junitSuites{Name: "kubeguardian"}
	for _, level := range finding.Levels() {
		suite := junitSuite{Name: string(level)}
		for _, f := range r.Findings {
			if f.Level == level && f.Status != finding.NotApplicable {
				suite.add(f)
			}
		}
		all.Tests += suite.Tests
		all.Failures += suite.Failures
		all.Suites = append(all.Suites, suite)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", " ")
	if err := enc.Encode(all); err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func (s *junitSuite) add(f finding.Finding) {
	file, line, _ := strings.Cut(f.Subject.Source, ":")
	c := junitCase{Name: Plain(f.Control + " " + place(*f.Subject)), Class: string(f.Level) + "." + f.Control, File: Plain(file), Line: line}
	switch f.Status {
	case finding.Fail:
		s.Failures++
		c.Failure = &junitMessage{Message: Plain(cmp.Or(f.Message, f.Title)), Type: string(f.Severity)}
		c.Failure.Text = Plain(f.Title) + "\n" + Plain(f.Evidence) + "\nfix: " + Plain(f.Fix) + "\n"
	case finding.Unknown, finding.Excepted:
		s.Skipped++
		c.Skipped = &junitMessage{Message: string(f.Status) + ": " + Plain(f.Reason)}
	}
	s.Tests++
	s.Cases = append(s.Cases, c)
}

// place names a subject with its container.
func place(s finding.Subject) string {
	if s.Container == "" {
		return s.String()
	}
	return s.String() + " (" + s.Container + ")"
}
