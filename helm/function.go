package helm

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/Masterminds/sprig/v3"
	"github.com/gobwas/glob"
	"sigs.k8s.io/yaml"
	yamlv3 "sigs.k8s.io/yaml/goyaml.v3"
)

// helmFunctions returns the functions that templates of charts have besides
// include and tpl. There is nothing to look up in, no environment and no
// network.
func helmFunctions() template.FuncMap {
	funcs := sprig.TxtFuncMap()
	delete(funcs, "env")
	delete(funcs, "expandenv")
	maps.Copy(funcs, template.FuncMap{
		// Those of text/template, so that they are watched as well.
		"html": template.HTMLEscaper, "js": template.JSEscaper, "urlquery": template.URLQueryEscaper,
		"print": fmt.Sprint, "printf": fmt.Sprintf, "println": fmt.Sprintln,

		"toYaml": lenient(toYAML), "mustToYaml": toYAML, "toYamlPretty": lenient(toPrettyYAML),
		"toJson": lenient(toJSON), "mustToJson": toJSON,
		"toToml": orError(toTOML), "mustToToml": toTOML,
		"fromYaml": parsed(fromYAML), "fromJson": parsed(json.Unmarshal), "fromToml": parsed(toml.Unmarshal),
		"fromYamlArray": parsedList(fromYAML), "fromJsonArray": parsedList(json.Unmarshal),

		"required":      required,
		"fail":          func(message string) (string, error) { return "", errors.New(message) },
		"lookup":        func(_, _, _, _ string) map[string]any { return map[string]any{} },
		"getHostByName": func(string) string { return "" },
	})
	maps.Copy(funcs, durations())
	return funcs
}

func required(message string, v any) (any, error) {
	if v == nil || v == "" {
		return v, errors.New(message)
	}
	return v, nil
}

func toYAML(v any) (string, error) {
	data, err := yaml.Marshal(v)
	return strings.TrimSuffix(string(data), "\n"), err
}

func toPrettyYAML(v any) (string, error) {
	var b bytes.Buffer
	encoder := yamlv3.NewEncoder(&b)
	encoder.SetIndent(2)
	err := encoder.Encode(v)
	return strings.TrimSuffix(b.String(), "\n"), err
}

func toJSON(v any) (string, error) {
	data, err := json.Marshal(v)
	return string(data), err
}

func toTOML(v any) (string, error) {
	var b bytes.Buffer
	err := toml.NewEncoder(&b).Encode(v)
	return b.String(), err
}

// lenient gives no text where a value has none, as most of Helm's functions do.
func lenient(f func(any) (string, error)) func(any) string {
	return func(v any) string {
		s, err := f(v)
		if err != nil {
			return ""
		}
		return s
	}
}

// orError gives the error in place of the text.
func orError(f func(any) (string, error)) func(any) string {
	return func(v any) string {
		s, err := f(v)
		if err != nil {
			return err.Error()
		}
		return s
	}
}

// parsed reads a mapping. What is wrong stands in it under "Error".
func parsed(unmarshal func([]byte, any) error) func(string) map[string]any {
	return func(s string) map[string]any {
		m := map[string]any{}
		if err := unmarshal([]byte(s), &m); err != nil {
			m["Error"] = err.Error()
		}
		return m
	}
}

func parsedList(unmarshal func([]byte, any) error) func(string) []any {
	return func(s string) []any {
		list := []any{}
		if err := unmarshal([]byte(s), &list); err != nil {
			return []any{err.Error()}
		}
		return list
	}
}

func fromYAML(data []byte, v any) error { return yaml.Unmarshal(data, v) }

// durations returns the functions that calculate with a time.Duration, or with
// what stands for one: text as "1h30m", or a number of seconds.
func durations() template.FuncMap {
	in := func(unit time.Duration) func(any) float64 {
		return func(v any) float64 {
			d, _ := duration(v)
			return float64(d) / float64(unit)
		}
	}
	whole := func(unit time.Duration) func(any) int64 {
		return func(v any) int64 {
			d, _ := duration(v)
			return int64(d / unit)
		}
	}
	to := func(f func(time.Duration, time.Duration) time.Duration) func(v, m any) time.Duration {
		return func(v, m any) time.Duration {
			d, err := duration(v)
			multiple, err2 := duration(m)
			if err != nil || err2 != nil {
				return d
			}
			return f(d, multiple)
		}
	}
	return template.FuncMap{
		"mustToDuration": duration, "durationSeconds": in(time.Second), "durationMinutes": in(time.Minute), "durationHours": in(time.Hour),
		"durationDays": in(24 * time.Hour), "durationWeeks": in(7 * 24 * time.Hour),
		"durationMilliseconds": whole(time.Millisecond), "durationMicroseconds": whole(time.Microsecond), "durationNanoseconds": whole(1),
		"durationRoundTo": to(time.Duration.Round), "durationTruncateTo": to(time.Duration.Truncate),
	}
}

func duration(v any) (time.Duration, error) {
	if d, ok := v.(time.Duration); ok {
		return d, nil
	}
	s := strings.TrimSpace(fmt.Sprint(v))
	if d, err := time.ParseDuration(s); err == nil {
		return d, nil
	}
	seconds, err := strconv.ParseFloat(s, 64)
	if err != nil || !(seconds > -9e9 && seconds < 9e9) {
		return 0, fmt.Errorf("%q is not a duration", s)
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

// chartFiles are the files of a chart that are no templates, as templates see
// them.
type chartFiles map[string][]byte

// Get returns the text of a file, or none.
func (f chartFiles) Get(name string) string { return string(f[name]) }

// GetBytes returns the content of a file, or none.
func (f chartFiles) GetBytes(name string) []byte { return append([]byte{}, f[name]...) }

// Glob returns the files whose names match.
func (f chartFiles) Glob(pattern string) chartFiles {
	matching := chartFiles{}
	g, err := glob.Compile(pattern, '/')
	for name, data := range f {
		if err != nil || g.Match(name) {
			matching[name] = data
		}
	}
	return matching
}

// Lines returns the lines of a file.
func (f chartFiles) Lines(name string) []string {
	text := strings.TrimSuffix(string(f[name]), "\n")
	if text == "" {
		return []string{}
	}
	return strings.Split(text, "\n")
}

// AsConfig returns the files as the data of a ConfigMap.
func (f chartFiles) AsConfig() string {
	return f.data(func(data []byte) string { return string(data) })
}

// AsSecrets returns the files as the data of a Secret.
func (f chartFiles) AsSecrets() string { return f.data(base64.StdEncoding.EncodeToString) }

func (f chartFiles) data(encode func([]byte) string) string {
	data := map[string]string{}
	for name, content := range f {
		data[path.Base(name)] = encode(content)
	}
	return lenient(toYAML)(data)
}

// byReference are functions that hand values on, or look at one level of them.
// What others take is weighed first.
var byReference = map[string]bool{
	"all": true, "any": true, "append": true, "coalesce": true, "default": true, "dict": true, "empty": true, "first": true,
	"get": true, "has": true, "hasKey": true, "initial": true, "keys": true, "kindIs": true, "kindOf": true, "last": true,
	"list": true, "lookup": true, "omit": true, "pick": true, "pluck": true, "prepend": true, "push": true, "required": true,
	"rest": true, "set": true, "ternary": true, "tuple": true, "typeIs": true, "typeIsLike": true, "typeOf": true,
	"unset": true, "values": true,
}

// steps are functions that take long whatever they are given.
var steps = map[string]int{
	"bcrypt": 50_000, "derivePassword": 100_000, "genCA": 100_000, "genCAWithKey": 50_000, "genPrivateKey": 100_000,
	"genSelfSignedCert": 100_000, "genSelfSignedCertWithKey": 50_000, "genSignedCert": 100_000, "genSignedCertWithKey": 50_000,
	"htpasswd": 50_000,
}

// costs say how many bytes a function makes of its arguments, where that can be
// far more than they are.
var costs = map[string]func(args []reflect.Value) int{
	"indent":                 func(a []reflect.Value) int { return times(lines(a[1]), a[0]) },
	"join":                   func(a []reflect.Value) int { return length(a[0]) * (1 + items(a[1])) },
	"nindent":                func(a []reflect.Value) int { return times(lines(a[1]), a[0]) },
	"printf":                 func(a []reflect.Value) int { return wide(a[0].String()) },
	"randAlpha":              func(a []reflect.Value) int { return times(1, a[0]) },
	"randAlphaNum":           func(a []reflect.Value) int { return times(1, a[0]) },
	"randAscii":              func(a []reflect.Value) int { return times(1, a[0]) },
	"randBytes":              func(a []reflect.Value) int { return times(2, a[0]) },
	"randNumeric":            func(a []reflect.Value) int { return times(1, a[0]) },
	"regexReplaceAll":        func(a []reflect.Value) int { return length(a[2]) * (1 + length(a[1])) / 64 },
	"regexReplaceAllLiteral": func(a []reflect.Value) int { return length(a[2]) * (1 + length(a[1])) / 64 },
	"repeat":                 func(a []reflect.Value) int { return times(length(a[1]), a[0]) },
	"replace": func(a []reflect.Value) int {
		return length(a[1]) * strings.Count(a[2].String(), a[0].String())
	},
	"seq":       func(a []reflect.Value) int { return 16 * span(a[0]) },
	"until":     func(a []reflect.Value) int { return times(8, a[0]) },
	"untilStep": func(a []reflect.Value) int { return 8 * distance(a[0], a[1]) },
	"wrapWith":  func(a []reflect.Value) int { return length(a[1]) * length(a[2]) },
}

func length(v reflect.Value) int { return v.Len() }
func lines(v reflect.Value) int  { return 1 + strings.Count(v.String(), "\n") }

// times multiplies without overflow.
func times(n int, v reflect.Value) int {
	by := int(v.Int())
	if by > maxMade || by < -maxMade {
		return maxMade + 1
	}
	return n * max(by, -by)
}

func distance(from, to reflect.Value) int {
	d := to.Int() - from.Int()
	return int(min(max(d, -d, 0), maxMade))
}

// span is the largest number of a list of them.
func span(list reflect.Value) int {
	n := 0
	for i := range list.Len() {
		v := list.Index(i).Int()
		n = int(min(max(int64(n), v, -v), maxMade))
	}
	return n
}

// items counts those of a list; another value is one.
func items(v reflect.Value) int {
	for v.Kind() == reflect.Interface {
		v = v.Elem()
	}
	if v.Kind() == reflect.Slice || v.Kind() == reflect.Array {
		return v.Len()
	}
	return 1
}

var wideFormat = regexp.MustCompile(`%[^%a-zA-Z]*(?:[0-9]{5}|\*)`)

// wide refuses formats that blow a value up.
func wide(format string) int {
	if wideFormat.MatchString(format) {
		return maxMade + 1
	}
	return 0
}
