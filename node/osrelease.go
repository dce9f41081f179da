package node

import (
	"strings"

	"github.com/kubeguardian/kubeguardian/evidence"
)

// osRelease reads an os-release file: assignments as of a shell, with quotes
// and backslashes but without expansion.
func osRelease(data []byte) evidence.NodeOS {
	values := map[string]string{}
	for line := range strings.Lines(string(data)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && !strings.HasPrefix(key, "#") {
			values[key] = unquote(value)
		}
	}
	return evidence.NodeOS{
		ID: values["ID"], Like: strings.Fields(values["ID_LIKE"]), Name: values["PRETTY_NAME"],
		Version: values["VERSION_ID"], Variant: values["VARIANT_ID"],
	}
}

// unquote returns the value of a shell word.
func unquote(s string) string {
	var out strings.Builder
	quote := rune(0)
	escaped := false
	for _, r := range s {
		switch {
		case escaped:
			escaped = false
			out.WriteRune(r)
		case r == '\\' && quote != '\'':
			escaped = true
		case quote == 0 && (r == '"' || r == '\''):
			quote = r
		case r == quote:
			quote = 0
		case quote == 0 && (r == ' ' || r == '\t'):
			return out.String()
		default:
			out.WriteRune(r)
		}
	}
	return out.String()
}
