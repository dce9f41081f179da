package rule

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// An Error is one mistake in a rule file.
type Error struct {
	File         string
	Line, Column int    // from 1
	Item         string // for example: rule "X"; empty outside an item
	Message      string
	Source       string // the line of the file; may be empty
}

// Error returns the place and the mistake on one line.
func (e *Error) Error() string {
	place := fmt.Sprintf("%s:%d:%d: ", e.File, e.Line, e.Column)
	if e.Item != "" {
		place += e.Item + ": "
	}
	return place + e.Message
}

// Excerpt returns the line of the file with a caret below the mistake, or ""
// if there is no such line.
func (e *Error) Excerpt() string {
	if e.Source == "" {
		return ""
	}
	before := e.Source[:min(e.Column-1, len(e.Source))]
	indent := strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}, before)
	return e.Source + "\n" + indent + "^"
}

// Errors are the mistakes of rule files, at most 100, in the order of the
// files.
type Errors []*Error

const maxErrors = 100

// sort puts the mistakes in the order of the files.
func (es Errors) sort(files []File) {
	order := map[string]int{}
	for i, f := range files {
		order[f.Name] = i
	}
	slices.SortStableFunc(es, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(order[a.File], order[b.File]), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// Error returns one line for each mistake.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the mistakes.
func (es Errors) Unwrap() []error {
	out := make([]error, len(es))
	for i, e := range es {
		out[i] = e
	}
	return out
}
