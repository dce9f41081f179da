package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/report"
)

// formats are the words of --format.
var formats = []string{"text", "json", "sarif", "junit", "html", "openreports"}

// setFormat is the value of --format.
func (o *scanOptions) setFormat(s string) error {
	if !slices.Contains(formats, s) {
		return fmt.Errorf("want %s", strings.Join(formats, ", "))
	}
	o.format = s
	return nil
}

// earlier are reports of earlier scans that a new one is held against.
type earlier struct {
	baseline *report.Report // nil without one
	history  []*report.Report
}

func (o *scanOptions) earlier() (earlier, error) {
	var e earlier
	var err error
	if o.baseline != "" {
		if e.baseline, err = readReport(o.baseline); err != nil {
			return e, err
		}
	}
	for _, path := range o.history {
		r, err := readReport(path)
		if err != nil {
			return e, err
		}
		e.history = append(e.history, r)
	}
	return e, nil
}

func readReport(path string) (*report.Report, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, errors.Unwrap(err))
	}
	defer f.Close()
	return report.Read(path, f)
}

func (o *scanOptions) write(r *report.Report, catalogue *control.Catalogue, history []*report.Report, stdout io.Writer) error {
	if o.output == "" {
		width, color := terminal(stdout)
		return o.formatOf(catalogue, history, width, color).Write(stdout, r)
	}
	err := writeFile(o.output, func(w io.Writer) error { return o.formatOf(catalogue, history, 0, false).Write(w, r) })
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

func (o *scanOptions) formatOf(catalogue *control.Catalogue, history []*report.Report, width int, color bool) report.Format {
	switch o.format {
	case "json":
		return report.JSON{}
	case "sarif":
		return report.SARIF{Version: built()}
	case "junit":
		return report.JUnit{}
	case "html":
		return report.HTML{Catalogue: catalogue, History: history}
	case "openreports":
		return report.OpenReports{}
	}
	return report.Text{Width: width, Color: color, All: o.all}
}
