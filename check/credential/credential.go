// Package credential finds credentials in ConfigMaps: by the form of a value
// where a form is unmistakable, else by the name of its key. It never returns
// or formats a value.
package credential

import (
	"encoding/base64"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// ConfigMaps says for each ConfigMap whether it holds a credential.
func ConfigMaps(inv *inventory.Inventory) []finding.Finding {
	var out []finding.Finding
	for _, o := range inv.Kind("", "ConfigMap") {
		f := finding.Finding{Status: finding.Pass}
		if places := search(o); len(places) > 0 {
			f.Status = finding.Fail
			f.Message = "holds what looks like a credential, readable by all who may read ConfigMaps"
			f.Evidence = strings.Join(places, "; ") + " (values not shown)"
		}
		f.Subject = o.Subject()
		out = append(out, f)
	}
	return out
}

// maxPlaces bounds the places that one finding lists.
const maxPlaces = 5

// search returns where a ConfigMap holds credentials, and of what kind.
func search(o *inventory.Object) []string {
	var places []string
	data, _ := o.Object["data"].(map[string]any)
	for _, key := range slices.Sorted(maps.Keys(data)) {
		if value, ok := data[key].(string); ok {
			places = append(places, inEntry(key, value)...)
		}
	}
	binary, _ := o.Object["binaryData"].(map[string]any)
	for _, key := range slices.Sorted(maps.Keys(binary)) {
		encoded, _ := binary[key].(string)
		if value, err := base64.StdEncoding.DecodeString(encoded); err == nil {
			places = append(places, inEntry(key, string(value))...)
		}
	}
	if more := len(places) - maxPlaces; more > 0 {
		places = append(places[:maxPlaces], fmt.Sprintf("%d more", more))
	}
	return places
}

// inEntry searches one entry: its value as a whole, and if it is a file, each
// line that sets something.
func inEntry(key, value string) []string {
	if kind := classify(key, value); kind != "" {
		return []string{fmt.Sprintf("key %q: %s", key, kind)}
	}
	var places []string
	for number, line := 1, ""; value != ""; number++ {
		line, value, _ = strings.Cut(value, "\n")
		name, set, ok := assignment(line)
		if !ok {
			continue
		}
		if kind := classify(name, set); kind != "" {
			places = append(places, fmt.Sprintf("key %q line %d: %s", key, number, kind))
		}
	}
	return places
}

var assigns = regexp.MustCompile(`^\s*(?:export\s+|-\s+)?["']?([A-Za-z0-9_.\-]{1,128})["']?\s*[:=]\s*(.+)$`)

// assignment splits a line of a YAML, JSON, properties or env file.
func assignment(line string) (name, value string, ok bool) {
	m := assigns.FindStringSubmatch(line)
	if m == nil {
		return "", "", false
	}
	return m[1], strings.TrimRight(strings.TrimSpace(m[2]), ","), true
}

// forms are values that cannot be mistaken. Each holds one of its signs, which
// are cheap to look for.
var forms = []struct {
	kind  string
	signs []string
	form  *regexp.Regexp
}{
	{"private key", []string{"PRIVATE KEY"}, regexp.MustCompile(`-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY( BLOCK)?-----`)},
	{"cloud access key", []string{"AKIA", "ASIA"}, regexp.MustCompile(`\b(AKIA|ASIA)[A-Z0-9]{16}\b`)},
	{"API key", []string{"AIza"}, regexp.MustCompile(`\bAIza[A-Za-z0-9_\-]{35}`)},
	{"access token", []string{"gh", "glpat-", "xox", "sk_live_"}, regexp.MustCompile(
		`\b(ghp|gho|ghs|ghu)_[A-Za-z0-9]{36}|\bgithub_pat_[A-Za-z0-9_]{22}|\bglpat-[A-Za-z0-9_\-]{20}|\bxox[abprs]-[A-Za-z0-9\-]{10}|\bsk_live_[A-Za-z0-9]{16}`)},
	{"JSON web token", []string{"eyJ"}, regexp.MustCompile(`\beyJ[A-Za-z0-9_\-]{8,}\.eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8}`)},
	{"password in a URL", []string{"://"}, regexp.MustCompile(`://[^\s:/@"'${<]*:[^\s:/@"'${<]+@[A-Za-z0-9\[]`)},
	{"password in a connection string", []string{"="}, regexp.MustCompile(
		`(?i)(?:^|[; \t])(?:password|pwd)[ \t]*=[ \t]*[^\s;"'${<*]{3,}[ \t]*(?:;|[ \t][a-z_]+[ \t]*=)`)},
}

// classify says what kind of credential a value is, or "".
func classify(name, value string) string {
	for _, f := range forms {
		sign := func(s string) bool { return strings.Contains(value, s) }
		if slices.ContainsFunc(f.signs, sign) && f.form.MatchString(value) {
			return f.kind
		}
	}
	if secretName(name) && literal(value) {
		return "value under the name of a secret"
	}
	return ""
}

// secretWords in a name say that its value is a credential, unless the name
// ends in one of the tellers or holds one of the pointers, which say that it
// only speaks about one.
var (
	secretWords = []string{
		"password", "passwd", "passphrase", "pwd", "secret", "token", "credential", "credentials",
		"apikey", "accesskey", "secretkey", "privatekey", "encryptionkey", "signingkey",
	}
	secretPairs = []string{"api", "access", "secret", "private", "encryption", "signing", "master"} // followed by key
	tellers     = []string{
		"algorithm", "audience", "class", "count", "dir", "directory", "enabled", "endpoint", "env", "expiration",
		"expiry", "field", "file", "format", "header", "id", "interval", "issuer", "key", "keys", "kind", "length",
		"lifetime", "max", "min", "mode", "name", "namespace", "path", "period", "policy", "prefix", "provider",
		"ref", "reference", "regex", "required", "rotation", "service", "size", "store", "timeout", "ttl", "type",
		"uri", "url", "validity", "version",
	}
	pointers = []string{"existing", "pull"} // to the name of a Secret
)

func secretName(name string) bool {
	words := split(name)
	if slices.ContainsFunc(words, func(w string) bool { return slices.Contains(pointers, w) }) {
		return false
	}
	for i, word := range words {
		pair := slices.Contains(secretPairs, word) && i+1 < len(words) && words[i+1] == "key"
		if !pair && !slices.Contains(secretWords, word) {
			continue
		}
		if last := words[len(words)-1]; pair && i+2 == len(words) || !slices.Contains(tellers, last) {
			return true
		}
	}
	return false
}

// split cuts a name into lower-case words at separators and humps.
func split(name string) []string {
	var spaced strings.Builder
	previous := ' '
	for _, r := range name {
		if !unicode.IsLetter(r) {
			r = ' '
		}
		if unicode.IsUpper(r) && unicode.IsLower(previous) {
			spaced.WriteByte(' ')
		}
		spaced.WriteRune(unicode.ToLower(r))
		previous = r
	}
	return strings.Fields(spaced.String())
}

// literal reports whether a value can be a credential: not empty, a reference,
// a placeholder, a path, a number, a duration, a switch or something redacted.
func literal(value string) bool {
	value = strings.TrimSpace(value)
	value = strings.Trim(value, `"'`)
	return len(value) >= 3 && !strings.Contains(value, "\n") && !notLiteral.MatchString(value)
}

var notLiteral = regexp.MustCompile(`(?i)^(` + strings.Join([]string{
	`.*(\$\{|\$\(|\{\{|<[^>]*>).*`, `\$[a-z_][a-z0-9_]*`, // filled in later
	`(vault|ref|env|file|secret|arn|aws|gcp|azure)[+]?:.*`, `ENC\[.*`, `\{(cipher|enc)\}.*`, // references and ciphertext
	`\.{0,2}/\S*`, `https?://\S*`, // paths
	`[0-9]{1,5}(\.[0-9]+)?(ns|us|ms|s|m|h|d|w)?`, // numbers and durations
	`true|false|yes|no|on|off|none|null|nil|required|optional|enabled|disabled|always|never`,
	`\*+|x+|-+|\.+|\[.*|\{|\|[-+]?|>[-+]?|&\S+|redacted.*|\[redacted\]`,
}, `|`) + `)$`)
