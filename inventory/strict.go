package inventory

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// A checker compares decoded values with the Go types of the Kubernetes API, as
// the API server's strict decoding would, and reports every difference with
// its path. (Decoding itself stops at the first wrong type and does not say
// where it is.)
type checker struct {
	fail   func(path []any, problem string)         // path is good until it returns
	fields map[reflect.Type]map[string]reflect.Type // a cache, filled as types are met
}

func (c *checker) check(t reflect.Type, v any, path []any) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if v == nil {
		return
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		c.custom(reflect.New(t).Interface().(json.Unmarshaler), v, path)
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		c.object(t, v, path)
	case reflect.Map:
		c.each(t, v, path)
	case reflect.Slice:
		c.list(t, v, path)
	case reflect.Interface:
	default:
		if want := scalarProblem(t, v); want != "" {
			c.wrong(path, v, want)
		}
	}
}

func (c *checker) wrong(path []any, v any, want string) {
	c.fail(path, fmt.Sprintf("%s is %s: want %s", name(path), describe(v), want))
}

// custom lets a type that decodes itself, such as a quantity, say whether it
// understands v.
func (c *checker) custom(u json.Unmarshaler, v any, path []any) {
	data, err := json.Marshal(v)
	if err == nil {
		err = u.UnmarshalJSON(data)
	}
	if err != nil {
		c.fail(path, fmt.Sprintf("%s is %s: %v", name(path), describe(v), err))
	}
}

func (c *checker) object(t reflect.Type, v any, path []any) {
	m, ok := v.(map[string]any)
	if !ok {
		c.wrong(path, v, "a mapping")
		return
	}
	fields := c.fieldsOf(t)
	for _, key := range sortedKeys(m) {
		at := append(path, key)
		if field, known := fields[key]; known {
			c.check(field, m[key], at)
			continue
		}
		if len(path) == 0 && key == "sops" {
			continue // what SOPS notes in a document that it encrypts
		}
		c.fail(at, fmt.Sprintf("unknown field %s%s", name(at), didYouMean(key, sortedKeys(fields))))
	}
}

func (c *checker) each(t reflect.Type, v any, path []any) {
	m, ok := v.(map[string]any)
	if !ok {
		c.wrong(path, v, "a mapping")
		return
	}
	for _, key := range sortedKeys(m) {
		c.check(t.Elem(), m[key], append(path, key))
	}
}

func (c *checker) list(t reflect.Type, v any, path []any) {
	bytes := t.Elem().Kind() == reflect.Uint8
	if s, ok := v.(string); ok && bytes {
		if _, err := base64.StdEncoding.DecodeString(s); err != nil {
			c.fail(path, name(path)+" is not base64") // never the value: it is a secret
		}
		return
	}
	items, ok := v.([]any)
	if !ok {
		want := "a list"
		if bytes {
			want = "text in base64"
		}
		c.wrong(path, v, want)
		return
	}
	for i, item := range items {
		c.check(t.Elem(), item, append(path, i))
	}
}

// scalarProblem says what t wants, or "" if it takes v.
func scalarProblem(t reflect.Type, v any) string {
	switch t.Kind() {
	case reflect.String:
		if _, ok := v.(string); !ok {
			return "text, so put it in quotes"
		}
	case reflect.Bool:
		if _, ok := v.(bool); !ok {
			return "true or false"
		}
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint8, reflect.Uint32:
		if n, ok := v.(int64); !ok || !fits(t, n) {
			return fmt.Sprintf("a whole number of %d bits", t.Bits())
		}
	case reflect.Float64:
		_, whole := v.(int64)
		if _, ok := v.(float64); !ok && !whole {
			return "a number"
		}
	}
	return ""
}

func fits(t reflect.Type, n int64) bool {
	if t.Kind() == reflect.Uint8 || t.Kind() == reflect.Uint32 {
		return n >= 0 && !reflect.Zero(t).OverflowUint(uint64(n))
	}
	return !reflect.Zero(t).OverflowInt(n)
}

// fieldsOf returns the JSON fields of a struct type with their types.
func (c *checker) fieldsOf(t reflect.Type) map[string]reflect.Type {
	if fields, ok := c.fields[t]; ok {
		return fields
	}
	fields := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case tag == "" && f.Anonymous:
			maps.Copy(fields, c.fieldsOf(f.Type))
		case tag != "" && tag != "-":
			fields[tag] = f.Type
		}
	}
	c.fields[t] = fields
	return fields
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// name writes a path as users know it: spec.containers[0].image.
func name(path []any) string {
	var b strings.Builder
	for _, step := range path {
		switch step := step.(type) {
		case int:
			fmt.Fprintf(&b, "[%d]", step)
		case string:
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(step)
		}
	}
	return b.String()
}

// describe names the type of a value, never the value: it may be a secret.
func describe(v any) string {
	switch v.(type) {
	case map[string]any:
		return "a mapping"
	case []any:
		return "a list"
	case string:
		return "text"
	case bool:
		return "a boolean"
	case int64, float64:
		return "a number"
	}
	return "null"
}

// didYouMean returns ": did you mean …?" if one of the names is at most two
// typing errors away, in any case of letters. Of several it takes the one of
// the same length: letters change places more often than they get lost.
func didYouMean(word string, names []string) string {
	best, least := "", 3.0
	for _, n := range slices.Sorted(slices.Values(names)) {
		d := float64(editDistance(strings.ToLower(word), strings.ToLower(n)))
		if len(n) != len(word) {
			d += 0.5
		}
		if d < least && d <= float64(len(word))/2 {
			best, least = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(": did you mean %s?", best)
}

// editDistance counts the insertions, deletions and replacements between a and
// b. It gives up at 3, which bounds the work for long foreign words.
func editDistance(a, b string) int {
	if len(a)-len(b) > 2 || len(b)-len(a) > 2 {
		return 3
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
