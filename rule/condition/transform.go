package condition

import (
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/kubeguardian/kubeguardian/event"
)

func (r *Resolver) transformer(t *Term) *Input {
	out := &Input{Fun: t.Name, Type: event.TypeString}
	if t.Arg != nil {
		if t.Name != "getopt" {
			r.fail(t.Place, "transformer '%s' does not support field arguments", t.Name)
			return nil
		}
		if len(*t.Arg) != 1 {
			r.fail(t.Place, "argument '%s' of getopt must be one character", *t.Arg)
			return nil
		}
		out.Option = *t.Arg
	}
	texts := make([]string, len(t.Args))
	for i := range t.Args {
		arg := r.argument(t, &t.Args[i])
		if arg == nil {
			return nil
		}
		out.Args = append(out.Args, arg)
		texts[i] = arg.Text
	}
	out.Text = t.Name + "(" + strings.Join(texts, ", ") + ")"
	if out.Option != "" {
		out.Text += "[" + out.Option + "]"
	}
	if err := out.fit(); err != nil {
		r.Fail(t.Place, err.Error())
		return nil
	}
	return out
}

// argument resolves an argument of a transformer.
func (r *Resolver) argument(t *Term, o *Operand) *Input {
	switch {
	case o.Term != nil:
		in := r.Term(o.Term)
		if in != nil && (in.Ref.Plain() || in.Ref.Ancestors()) {
			r.fail(o.Place, "transformer '%s' is not supported for %s", t.Name, in.Text)
			return nil
		}
		return in
	case !o.IsList:
		return constant(quoteAlways(o.Const), event.Text(o.Const))
	}
	list := &Input{Fun: "list", Type: event.TypeList}
	var texts []string
	for i := range o.List {
		item := r.argument(t, &o.List[i])
		if item == nil {
			return nil
		}
		if item.Type != event.TypeString {
			r.fail(o.List[i].Place, "%s is a %s: a list holds strings", item.Text, item.Type)
			return nil
		}
		list.Args = append(list.Args, item)
		texts = append(texts, item.Text)
	}
	list.Text = "(" + strings.Join(texts, ", ") + ")"
	return list
}

func quoteAlways(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`).Replace(s) + `"`
}

// fit checks number and types of the arguments of a transformer, and sets the
// type of its result.
func (in *Input) fit() error {
	wrong := func(want string) error { return fmt.Errorf("transformer '%s' needs %s", in.Fun, want) }
	types := make([]event.Type, len(in.Args))
	for i, arg := range in.Args {
		types[i] = arg.Type
	}
	all := func(n int, ok ...event.Type) bool {
		if len(types) != n {
			return false
		}
		for i, typ := range types {
			if ok[i] != typ {
				return false
			}
		}
		return true
	}
	switch in.Fun {
	case "tolower", "toupper", "basename":
		if !all(1, event.TypeString) {
			return wrong("one string")
		}
	case "b64":
		if !all(1, event.TypeString) && !all(1, event.TypeBytes) {
			return wrong("one string or byte buffer")
		}
		in.Type = types[0]
	case "len":
		if !all(1, event.TypeString) && !all(1, event.TypeBytes) && !all(1, event.TypeList) {
			return wrong("one string, byte buffer or list")
		}
		in.Type = event.TypeUint
	case "join":
		if !all(2, event.TypeString, event.TypeList) {
			return wrong("a string and a list")
		}
	case "concat":
		if len(types) < 2 {
			return wrong("two strings or more")
		}
		for _, typ := range types {
			if typ != event.TypeString {
				return wrong("strings")
			}
		}
	case "getopt":
		if !all(2, event.TypeList, event.TypeString) && !all(2, event.TypeString, event.TypeString) {
			return wrong("a list of arguments and a string of options")
		}
		if in.Option == "" {
			in.Type = event.TypeList
		}
	}
	return nil
}

// A Getter returns the values of inputs in one event.
type Getter interface{ Get(*Input) event.Value }

// Compute returns what a transformer makes of its arguments. What has a missing
// part is missing.
func (in *Input) Compute(g Getter) event.Value {
	switch in.Fun {
	case "list", "concat":
		return in.gather(g)
	case "join", "getopt":
		a, b := g.Get(in.Args[0]), g.Get(in.Args[1])
		switch {
		case a.Missing() || b.Missing():
			return event.Value{}
		case in.Fun == "join":
			return event.Text(strings.Join(b.List, a.Text))
		}
		return getopt(a, b.Text, in.Option)
	}
	v := g.Get(in.Args[0])
	if v.Missing() {
		return v
	}
	switch in.Fun {
	case "tolower":
		v.Text = Lower(v.Text)
	case "toupper":
		v.Text = Upper(v.Text)
	case "basename":
		v.Text = v.Text[strings.LastIndexByte(v.Text, '/')+1:]
	case "b64":
		return decode(v)
	case "len":
		return event.Uint(uint64(len(v.Text) + len(v.List)))
	}
	return v
}

func (in *Input) gather(g Getter) event.Value {
	parts := make([]string, len(in.Args))
	for i, arg := range in.Args {
		v := g.Get(arg)
		if v.Missing() {
			return v
		}
		parts[i] = v.Text
	}
	if in.Fun == "concat" {
		return event.Text(strings.Join(parts, ""))
	}
	return event.List(parts)
}

// decode decodes base64, with or without padding.
func decode(v event.Value) event.Value {
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(v.Text, "="))
	if err != nil {
		return event.Value{}
	}
	v.Text = string(b)
	if v.Type == event.TypeString {
		v.Text = CString(v.Text)
	}
	return v
}

// getopt reads options as getopt(3) does; options is its string of options. It
// returns the options and their values, or the last value of one option. An
// option that is not known is "?".
func getopt(args event.Value, options, one string) event.Value {
	words := args.List
	if args.Type == event.TypeString {
		words = strings.Fields(args.Text)
	}
	var out []string
	last := event.Value{}
	for i := 0; i < len(words); i++ {
		word := words[i]
		if word == "--" || len(word) < 2 || word[0] != '-' {
			break
		}
		if word[1] == '-' {
			continue
		}
		for j := 1; j < len(word); j++ {
			option, value, takes := word[j:j+1], "", false
			k := strings.Index(options, option)
			if k < 0 || option == ":" {
				out = append(out, "?")
				continue
			}
			if takes = strings.HasPrefix(options[k+1:], ":"); takes {
				if value = word[j+1:]; value == "" && i+1 < len(words) {
					i++
					value = words[i]
				}
				j = len(word)
			}
			if out = append(out, option); takes {
				out = append(out, value)
			}
			if option == one {
				last = event.Text(value)
			}
		}
	}
	if one != "" {
		return last
	}
	return event.List(out)
}
