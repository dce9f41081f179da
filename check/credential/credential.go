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

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// ConfigMaps says for each ConfigMap whether it holds a credential.
func ConfigMaps(inv *inventory.Inventory) []finding.Verdict {
	var out []finding.Verdict
	for _, o := range inv.Kind("", "ConfigMap") {
		f := finding.Verdict{Status: finding.Pass}
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
	kind := formOf(value)
	if kind == "" && credential(key+"="+value) {
		kind = byName
	}
	if kind != "" {
		return []string{fmt.Sprintf("key %q: %s", key, kind)}
	}
	var places []string
	for number, line := 1, ""; value != ""; number++ {
		line, value, _ = strings.Cut(value, "\n")
		if credential(line) {
			places = append(places, fmt.Sprintf("key %q line %d: %s", key, number, byName))
		}
	}
	return places
}

const byName = "value under the name of a secret"

// The patterns below are also those of the policy credential-literals, so that
// both say the same about the same value; a test compares them.

// forms are values that cannot be mistaken. Each holds one of its signs, which
// are cheap to look for.
var forms = []struct {
	kind  string
	signs []string
	form  *regexp.Regexp
}{
	{"private key", []string{"PRIVATE KEY"}, regexp.MustCompile(`-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY`)},
	{"cloud access key", []string{"AKIA", "ASIA"}, regexp.MustCompile(`\b(AKIA|ASIA)[A-Z0-9]{16}\b`)},
	{"API key", []string{"AIza"}, regexp.MustCompile(`\bAIza[\w-]{35}`)},
	{"access token", []string{"gh", "glpat-", "xox", "k_live_"}, regexp.MustCompile(
		`\bgh[oprsu]_[A-Za-z0-9]{36}|\bgithub_pat_\w{22}|\bglpat-[\w-]{20}|\bxox[abprs]-[A-Za-z0-9-]{10}|\b[rs]k_live_[A-Za-z0-9]{16}`)},
	{"JSON web token", []string{"eyJ"}, regexp.MustCompile(`\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8}`)},
	{"password in a URL", []string{"://"}, regexp.MustCompile(`://[^\s:/@"']*:[^\s:/@"'$<{*?][^\s/@"'<{?]*@[A-Za-z0-9$\[]`)},
	{"password in a connection string", []string{"="}, regexp.MustCompile(
		`(?i)(=[^=;\n]*;[ \t]*(password|pwd)|\b(host|user|dbname)=[^\s=;]+[ \t]+password)[ \t]*=[ \t]*[^\s;"'$<{*\x60][^\s;"'$<{\x60]{2}|(^|[ \t])(password|pwd)[ \t]*=[ \t]*[^\s;"'$<{*\x60][^\s;"'$<{\x60]{2,}[ \t]*;[ \t]*[a-z]|;[ \t]*(account|sharedaccess)key=[a-z0-9+/]{40}`)},
	{"credential in a header", []string{"uthorization", "UTHORIZATION"}, regexp.MustCompile(
		`(?i)authorization["']?[:=][ \t]*["']?(bearer|basic|token)[ \t]+[^\s"'$<{\x60\\%][^\s"'$<{]{7}`)},
	{"password of Redis", []string{"requirepass", "masterauth"}, regexp.MustCompile(
		`(?m)(^|--)[ \t]*(requirepass|masterauth)[ \t]+["']?[^\s"'$<{\x60]{3}`)},
}

// formOf says what kind of credential a value is by its form, or "".
func formOf(value string) string {
	for _, f := range forms {
		sign := func(s string) bool { return strings.Contains(value, s) }
		if slices.ContainsFunc(f.signs, sign) && f.form.MatchString(value) {
			return f.kind
		}
	}
	return ""
}

// credential reports whether a setting, name=value or name: value as in a YAML,
// JSON, properties or env file, is a credential by its name.
func credential(setting string) bool {
	return strings.ContainsAny(setting, ":=") && secretName.MatchString(setting) && !harmless.MatchString(setting) && !speaksOf.MatchString(setting)
}

var (
	// secretName matches where the last word of the name says that the value is
	// a credential.
	secretName = regexp.MustCompile(`^[\s"'{-]*(export\s+)?([\w.-]*(?i:passw(or)?d|passphrase|api[_.-]?keys?)|([\w.-]*[_.-])?(?i:pass|pwd|secret|token|auth|credentials?|(access|secret|private|encryption|signing|master|auth)[_.-]?keys?|secret[_.-]?key[_.-]?base)|[\w.-]*[a-z0-9](Pass|Pwd|Secret|Token|Auth|Credentials?|(Access|Secret|Private|Encryption|Signing|Master|Auth)Keys?))([_.-]?[0-9]{1,2})?["']?[ \t]*[:=]`)

	// harmless matches values that are no literal: empty, a switch, a reference
	// or one that is filled in later, a path, redacted, several lines.
	harmless = regexp.MustCompile(`(?i)^[^:=]*[:=]>?[ \t]*["']?(.{0,2}|true|false|yes|no|on|off|none|null|nil|required|optional|enabled?|disabled?|always|never|.*(\$\{|\$\(|\{\{|%\(|<[^>]*>|getenv|environ|process\.env).*|\$\w+\W*|[\x60<{\[#].*|["']?[ \t]+#.*|[|>][-+]?|&\w+|(vault|ref|env|file|arn|aws|gcp|azure|op|ssm|secret)([+-][\w-]+)*:.*|[a-z][a-z0-9+.-]*://\S*|~?\.{0,2}/\S*|ENC[\[(].*|x+|\*+|-+|\.+|redacted.*|.*\S.*\n\s*\S[\s\S]*)["']?[,;]?\s*$`)

	// speaksOf matches values that are harmless under some names: numbers and
	// durations unless of a password, schemes of authentication, and the names
	// of Secrets.
	speaksOf = regexp.MustCompile(`(?i)^[^:=]*((secret|token|auth|keys?|credentials?)[_.-]?[0-9]*["']?[ \t]*[:=][ \t]*["']?[0-9]{1,5}(\.[0-9]+)?([num]?s|[mhdw])?["']?[,;]?\s*$|auth["']?[ \t]*[:=][ \t]*["']?(basic|plain|login|digest|bearer|token|password|ldap|oidc|oauth2?|saml|jwt|m?tls|x509|iam|ntlm|kerberos|trust|md5|cram-md5|scram-sha-\d+)["']?[,;]?\s*$|(pass(word|wd)?|pull|tls|ssl|cert(ificate)?s?|credentials?|existing[\w.-]*)[_.-]?secret["']?[ \t]*[:=])`)
)
