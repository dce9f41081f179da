package tuning

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// yaml writes an exception as an item of the exceptions of a rule.
func (x Exception) yaml() string {
	var fields, comps, values []string
	for _, f := range x.Fields {
		fields = append(fields, scalar(f.Name))
		if f.List {
			comps = append(comps, "in")
			values = append(values, "["+strings.Join(texts(f.Values), ", ")+"]")
			continue
		}
		comps = append(comps, `"="`)
		values = append(values, texts(f.Values)...)
	}
	return fmt.Sprintf("    - name: %s\n      fields: [%s]\n      comps: [%s]\n      values:\n        - [%s]\n",
		x.Name, strings.Join(fields, ", "), strings.Join(comps, ", "), strings.Join(values, ", "))
}

// texts writes values so that both YAML and the language of rules take them as
// they are: in quotes of the one within quotes of the other. Without the inner
// ones, blanks, commas and parentheses would end a value, and one that is called
// like a list would be replaced.
func texts(values []string) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = `'"` + v + `"'`
	}
	return out
}

// scalar writes the name of a field, which may have an argument with brackets.
func scalar(name string) string {
	if strings.ContainsAny(name, "[]") {
		return strconv.Quote(name)
	}
	return name
}

// YAML writes proposals as a file of rules, to be loaded after those that they
// are for. It is empty if there is none.
func YAML(proposals []Proposal) []byte {
	var b strings.Builder
	for _, p := range proposals {
		if len(p.Exceptions) == 0 {
			continue
		}
		fmt.Fprintf(&b, "# Silences %d of %d alerts.\n- rule: %s\n  exceptions:\n", p.Silenced, p.Alerts, strconv.Quote(p.Rule))
		for _, x := range p.Exceptions {
			fmt.Fprintf(&b, "    # %d alerts of %s, from %s to %s\n", x.Count, comment(strings.Join(x.Actors, ", ")), stamp(x.First), stamp(x.Last))
			for _, f := range x.Fields {
				if f.Trust != Established {
					fmt.Fprintf(&b, "    # %s: %s\n", f.Name, f.Trust)
				}
			}
			b.WriteString(x.yaml())
		}
		b.WriteString("  override: {exceptions: append}\n")
	}
	return []byte(b.String())
}

// comment keeps foreign text on its line.
func comment(s string) string {
	quoted := strconv.QuoteToASCII(s)
	return quoted[1 : len(quoted)-1]
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }
