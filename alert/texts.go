package alert

import (
	"fmt"
	"slices"
	"strings"
)

// Texts returns what the alert is searched by.
func (a *Alert) Texts() []string {
	texts := append(fieldTexts(a.OutputFields), a.Output, a.Rule, a.Subject.String(), a.ID, a.Owner)
	for _, e := range a.Entities {
		texts = append(texts, e.Name)
	}
	return texts
}

// fieldTexts returns the values of the output fields in the order of their
// names.
func fieldTexts(fields map[string]any) []string {
	var out []string
	for name, value := range fields {
		out = append(out, name+"\x00"+fmt.Sprint(value))
	}
	slices.Sort(out)
	for i, s := range out {
		_, out[i], _ = strings.Cut(s, "\x00")
	}
	return out
}
