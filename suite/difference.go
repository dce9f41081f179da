package suite

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
)

// difference returns the first place at which two JSON values differ, with both,
// in the order of the keys.
func difference(path string, want, have any) (text string, differs bool) {
	a, object := want.(map[string]any)
	b, other := have.(map[string]any)
	if object && other {
		for _, key := range slices.Sorted(maps.Keys(union(a, b))) {
			if text, differs := difference(path+"."+key, a[key], b[key]); differs {
				return text, true
			}
		}
		return "", false
	}
	x, list := want.([]any)
	y, other := have.([]any)
	if list && other && len(x) == len(y) {
		for i := range x {
			if text, differs := difference(fmt.Sprintf("%s[%d]", path, i), x[i], y[i]); differs {
				return text, true
			}
		}
		return "", false
	}
	if reflect.DeepEqual(want, have) {
		return "", false
	}
	return fmt.Sprintf("at %s want %s, have %s", path[min(1, len(path)):], show(want), show(have)), true
}

func union(a, b map[string]any) map[string]any {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// show returns a value as JSON; a field that is not there is nothing.
func show(v any) string {
	if v == nil {
		return "nothing"
	}
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(data)
}
