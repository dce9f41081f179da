package policy

import (
	"errors"
	"slices"
)

// Codes of mistakes in policies, for programs: people read the text. There are no
// others than [Codes] has.
const (
	// CodeIngest is what Gatekeeper calls a mistake of any kind, here one that has no
	// code of its own: a field that its kind does not have, or a wrong value.
	CodeIngest = "ingest_error"
	// CodeDefined is of an object that there is already, in a file or another one.
	CodeDefined = "already_defined"
	// CodeUndefined is of a constraint whose kind no template defines.
	CodeUndefined = "undefined_kind"
	// CodeConflict is of a mutator that contradicts others.
	CodeConflict = "conflict"
	// CodeTooLarge is of an object over a limit of size or depth.
	CodeTooLarge = "too_large"
	// CodeUnwritable is of an object that cannot be written as a document.
	CodeUnwritable = "unwritable"
	// CodeMisplaced is of an object that counts elsewhere only.
	CodeMisplaced = "misplaced"
)

// Codes returns all codes; those that begin with rego are Open Policy Agent's.
func Codes() []string {
	return []string{
		CodeIngest, CodeDefined, CodeUndefined, CodeConflict, CodeTooLarge, CodeUnwritable, CodeMisplaced,
		"rego_parse_error", "rego_compile_error", "rego_type_error", "rego_unsafe_var_error", "rego_recursion_error",
	}
}

type codedError struct {
	error
	code string
}

func (e *codedError) Unwrap() error { return e.error }

// Coded gives a mistake a code. Its text stays as it is.
func Coded(code string, err error) error { return &codedError{err, code} }

// CodeOf returns the code of a mistake.
func CodeOf(err error) string {
	var coded *codedError
	if errors.As(err, &coded) && slices.Contains(Codes(), coded.code) {
		return coded.code
	}
	return CodeIngest
}
