package mutator

import (
	"fmt"
	"reflect"
)

// maxCopied bounds what mutators write into an object in one round. The API
// server takes no object over 3 MiB, so that no useful one writes as much.
const maxCopied = 16 << 20

// An application is one of a mutator to the object of a run, which it changes in
// place.
type application struct {
	*mutator
	in      *run
	changed bool
}

// apply applies a mutator and reports whether it changed anything.
func (m *mutator) apply(in *run) (changed bool, err error) {
	a := application{mutator: m, in: in}
	_, _, err = a.at(in.object.Object, 0)
	return a.changed, err
}

// at follows the location from a step on. It returns what becomes of a value,
// which is only to be kept when the action was taken somewhere below.
func (a *application) at(value any, i int) (result any, taken bool, err error) {
	if a.location[i].item {
		list, ok := value.([]any)
		if !ok {
			return nil, false, fmt.Errorf("%s: want a list, have %s", a.location[:i], typeName(value))
		}
		if i+1 == len(a.location) {
			return a.setItem(list, i)
		}
		return a.items(list, i)
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, false, fmt.Errorf("%s: want an object, have %s", a.location[:i], typeName(value))
	}
	return a.field(object, i)
}

// field follows a step to a field, which is made when it is missing.
func (a *application) field(object map[string]any, i int) (result any, taken bool, err error) {
	name := a.location[i].name
	value, exists := object[name]
	if !a.tests[i].holds(exists) {
		return object, false, nil
	}
	if i+1 == len(a.location) {
		return object, true, a.set(object, name)
	}
	if !exists && a.location[i+1].item {
		value = []any{}
	} else if !exists {
		value = map[string]any{}
	}
	value, taken, err = a.at(value, i+1)
	if err == nil && taken {
		object[name] = value
		a.changed = a.changed || !exists
	}
	return object, taken, err
}

// set takes the action for a field.
func (a *application) set(object map[string]any, name string) error {
	old, exists := object[name]
	value, set, err := a.action.value(old, exists, a.in)
	if err != nil {
		return fmt.Errorf("%s: %w", a.location, err)
	}
	if !set || exists && reflect.DeepEqual(old, value) {
		return nil
	}
	object[name], a.changed = value, true
	return a.in.count(value)
}

// items follows a step to items of a list. An item that is named is made when it
// is missing.
func (a *application) items(list []any, i int) (result any, taken bool, err error) {
	s, found := a.location[i], false
	if s.all && !a.tests[i].holds(true) {
		return list, false, nil
	}
	for _, item := range list { // each is an object, changed in place
		if !s.all && !s.selects(item) {
			continue
		}
		if found = true; !a.tests[i].holds(true) {
			return list, false, nil
		}
		_, did, err := a.at(item, i+1)
		if err != nil {
			return nil, false, err
		}
		taken = taken || did
	}
	if s.all || found || !a.tests[i].holds(false) {
		return list, taken, nil
	}
	item := map[string]any{s.name: s.key}
	if _, taken, err = a.at(item, i+1); taken {
		list, a.changed = append(list[:len(list):len(list)], item), true
	}
	return list, taken, err
}

// selects reports whether a step is about an item.
func (s step) selects(item any) bool {
	object, ok := item.(map[string]any)
	if !ok {
		return false
	}
	key, exists := object[s.name]
	return exists && key == s.key
}

// setItem replaces the first item with the key, or adds it to the list.
func (a *application) setItem(list []any, i int) (result any, taken bool, err error) {
	value, _, err := a.action.value(nil, false, a.in)
	if err != nil {
		return nil, false, fmt.Errorf("%s: %w", a.location, err)
	}
	for at, item := range list {
		if _, ok := item.(map[string]any); !ok {
			return nil, false, fmt.Errorf("%s: item %d: want an object, have %s", a.location[:i], at, typeName(item))
		}
		if !a.location[i].selects(item) {
			continue
		}
		if !a.tests[i].holds(true) {
			return list, false, nil
		}
		if !reflect.DeepEqual(item, value) {
			list[at], a.changed = value, true
		}
		return list, true, a.in.count(value)
	}
	if !a.tests[i].holds(false) {
		return list, false, nil
	}
	a.changed = true
	return append(list[:len(list):len(list)], value), true, a.in.count(value)
}

// count counts what was written in this round.
func (r *run) count(value any) error {
	if r.copied += size(value); r.copied > maxCopied {
		return fmt.Errorf("more than %d bytes are written in one round", maxCopied)
	}
	return nil
}

// size returns about the bytes that a value takes.
func size(value any) int {
	const each = 16
	n := each
	switch v := value.(type) {
	case map[string]any:
		for key, item := range v {
			n += len(key) + size(item)
		}
	case []any:
		for _, item := range v {
			n += size(item)
		}
	case string:
		n += len(v)
	}
	return n
}
