package rule

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// An Error is one mistake in a rule file, or what is suspect in it: a warning.
type Error struct {
	Code         string // Falco's, for example LOAD_ERR_VALIDATE
	File         string
	Line, Column int    // from 1
	Item         string // for example: rule "X"; empty outside an item
	Part         string // of the item, by Falco's words, for example: rule condition
	Message      string
	Source       string // the line of the file; may be empty

	offset int
	at     []location // from the file inwards
}

// A location is where Falco says that a mistake is.
type location struct {
	kind, name           string
	line, column, offset int // from 0
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

// A Result is what loading says of one file, in the form of Falco.
type Result struct {
	Name     string
	Errors   Errors
	Warnings Errors
}

// Mistakes returns the errors of all results, in the order of the files.
func Mistakes(results []Result) Errors {
	var errs Errors
	for _, r := range results {
		errs = append(errs, r.Errors...)
	}
	return errs
}

// descriptions are Falco's short texts, by code.
var descriptions = map[string]string{
	"LOAD_ERR_FILE_READ":             "File read error",
	"LOAD_ERR_YAML_PARSE":            "YAML parse error",
	"LOAD_ERR_YAML_VALIDATE":         "Error validating internal structure of YAML file",
	"LOAD_ERR_COMPILE_CONDITION":     "Error compiling condition",
	"LOAD_ERR_COMPILE_OUTPUT":        "Error compiling output",
	"LOAD_ERR_VALIDATE":              "Error validating rule/macro/list/exception objects",
	"LOAD_ERR_EXTENSION":             "Error in extension item",
	"LOAD_UNKNOWN_SOURCE":            "Unknown event source",
	"LOAD_UNSAFE_NA_CHECK":           "Unsafe <NA> comparison in condition",
	"LOAD_NO_EVTTYPE":                "Condition has no event-type restriction",
	"LOAD_UNKNOWN_FILTER":            "Unknown field or event-type in condition or output",
	"LOAD_UNUSED_MACRO":              "Unused macro",
	"LOAD_UNUSED_LIST":               "Unused list",
	"LOAD_UNKNOWN_ITEM":              "Unknown rules file item",
	"LOAD_DEPRECATED_ITEM":           "Used deprecated item",
	"LOAD_WARNING_EXTENSION":         "Warning in extension item",
	"LOAD_APPEND_NO_VALUES":          "Overriding/appending with no values",
	"LOAD_EXCEPTION_NAME_NOT_UNIQUE": "Multiple exceptions defined with the same name",
	"LOAD_INVALID_MACRO_NAME":        "Invalid macro name",
	"LOAD_INVALID_LIST_NAME":         "Invalid list name",
	"LOAD_COMPILE_CONDITION":         "Warning in rule condition",
	"LOAD_UNKNOWN_KEY":               "Unknown key in item definition",
}

// The results as JSON.
type (
	resultJSON struct {
		Name           string        `json:"name"`
		Successful     bool          `json:"successful"`
		SchemaValid    bool          `json:"schema_valid"`
		SchemaWarnings []string      `json:"schema_warnings"`
		Errors         []problemJSON `json:"errors"`
		Warnings       []problemJSON `json:"warnings"`
	}
	problemJSON struct {
		Code    string      `json:"code"`
		Desc    string      `json:"codedesc"`
		Message string      `json:"message"`
		Context contextJSON `json:"context"`
	}
	contextJSON struct {
		Snippet   string         `json:"snippet"`
		Locations []locationJSON `json:"locations"`
	}
	locationJSON struct {
		Type     string       `json:"item_type"`
		Name     string       `json:"item_name"`
		Position positionJSON `json:"position"`
	}
	positionJSON struct {
		Name   string `json:"name"`
		Line   int    `json:"line"`
		Column int    `json:"column"`
		Offset int    `json:"offset"`
	}
)

// MarshalJSON writes the result as Falco does. Lines and columns are from 0
// there. The schema of a file is part of what is checked, so that schema_valid
// is true if no error and no warning is about keys and types.
func (r Result) MarshalJSON() ([]byte, error) {
	out := resultJSON{
		Name: r.Name, Successful: len(r.Errors) == 0, SchemaValid: true, SchemaWarnings: []string{},
		Errors: problems(r.Errors), Warnings: problems(r.Warnings),
	}
	for _, e := range slices.Concat(r.Errors, r.Warnings) {
		if slices.Contains([]string{"LOAD_ERR_YAML_VALIDATE", "LOAD_UNKNOWN_ITEM", "LOAD_UNKNOWN_KEY"}, e.Code) {
			out.SchemaValid = false
			out.SchemaWarnings = append(out.SchemaWarnings, e.Message)
		}
	}
	return json.Marshal(out)
}

func problems(es Errors) []problemJSON {
	out := []problemJSON{}
	for _, e := range es {
		context := contextJSON{Snippet: e.Excerpt(), Locations: []locationJSON{}}
		for _, l := range e.at {
			context.Locations = append(context.Locations, locationJSON{l.kind, l.name, positionJSON{e.File, l.line, l.column, l.offset}})
		}
		out = append(out, problemJSON{e.Code, descriptions[e.Code], e.Message, context})
	}
	return out
}

// String returns the result on one line, as Falco prints it.
func (r Result) String() string {
	switch {
	case len(r.Errors) > 0:
		return fmt.Sprintf("%s: Invalid%s%s", r.Name, summary("errors", r.Errors), summary("warnings", r.Warnings))
	case len(r.Warnings) > 0:
		return fmt.Sprintf("%s: Ok, with warnings%s", r.Name, summary("warnings", r.Warnings))
	}
	return r.Name + ": Ok"
}

func summary(what string, es Errors) string {
	if len(es) == 0 {
		return ""
	}
	codes := make([]string, len(es))
	for i, e := range es {
		codes[i] = fmt.Sprintf("%s (%s)", e.Code, descriptions[e.Code])
	}
	return fmt.Sprintf("\n%d %s: [%s]", len(es), what, strings.Join(codes, " "))
}

// Verbose returns the result with the place, the line and the message of each
// mistake, as Falco prints it for -v.
func (r Result) Verbose() string {
	var b strings.Builder
	title, _, _ := strings.Cut(r.String(), "\n")
	b.WriteString(title + "\n")
	for _, group := range []struct {
		name string
		list Errors
	}{{"Errors", r.Errors}, {"Warnings", r.Warnings}} {
		if len(group.list) == 0 {
			continue
		}
		fmt.Fprintf(&b, "%d %s:\n", len(group.list), group.name)
		for _, e := range group.list {
			e.verbose(&b)
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func (e *Error) verbose(b *strings.Builder) {
	for i, l := range e.at {
		before := "In "
		if i > 0 {
			before = "    "
		}
		name := ""
		if l.name != "" {
			name = fmt.Sprintf(" '%s'", l.name)
		}
		fmt.Fprintf(b, "%s%s%s: (%s:%d:%d)\n", before, l.kind, name, e.File, l.line, l.column)
	}
	if excerpt := e.Excerpt(); excerpt != "" {
		fmt.Fprintf(b, "------\n%s\n------\n", excerpt)
	}
	fmt.Fprintf(b, "%s (%s): %s\n", e.Code, descriptions[e.Code], e.Message)
}
