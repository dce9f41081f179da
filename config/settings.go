package config

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// A Setting is one value of a configuration, for people.
type Setting struct {
	Name  string `json:"name"` // as in the file, with dots
	Value string `json:"value"`
}

// Settings lists all values of the configuration. Neither a secret nor the section
// of a destination is among them.
func (c *Config) Settings() []Setting { return settingsOf("", reflect.ValueOf(*c)) }

func settingsOf(name string, v reflect.Value) (out []Setting) {
	switch x := v.Interface().(type) {
	case Secret, Section:
		return []Setting{{Name: name, Value: "(not shown)"}}
	case Text:
		return []Setting{{Name: name, Value: x.Text}}
	case time.Duration:
		return []Setting{{Name: name, Value: x.String()}}
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			key, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
			if !v.Type().Field(i).IsExported() || key == "-" {
				continue
			}
			out = append(out, settingsOf(strings.TrimPrefix(name+"."+cmp.Or(key, v.Type().Field(i).Name), "."), v.Field(i))...)
		}
	case reflect.Slice:
		if v.Len() == 0 || v.Type().Elem().Kind() != reflect.Struct {
			return []Setting{{Name: name, Value: strings.Trim(fmt.Sprint(v.Interface()), "[]")}}
		}
		for i := range v.Len() {
			out = append(out, settingsOf(fmt.Sprintf("%s[%d]", name, i), v.Index(i))...)
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			out = append(out, settingsOf(name+"."+fmt.Sprint(key.Interface()), v.MapIndex(key))...)
		}
		slices.SortFunc(out, func(a, b Setting) int { return cmp.Compare(a.Name, b.Name) })
	default:
		return []Setting{{Name: name, Value: fmt.Sprint(v.Interface())}}
	}
	return out
}
