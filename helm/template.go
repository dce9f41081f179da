package helm

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"text/template"
	"text/template/parse"
	"time"
)

// The bounds of rendering one chart. A template is a program, so it is not
// enough to look at its size.
const (
	renderTime     = 30 * time.Second
	maxSteps       = 2_000_000 // calls, turns of loops, and values that calls look at
	maxRenderDepth = 500       // of templates in templates
	maxNesting     = 200       // of blocks in one template
	maxDepth       = 256       // of values in values
	maxRendered    = 64 << 20  // bytes of all that is rendered
	maxMade        = 8 << 20   // bytes of one value that a call makes or takes
)

// A limitError says that a chart does more than any chart needs.
type limitError string

func (e limitError) Error() string { return string(e) }

// A chartTemplate is one file of templates.
type chartTemplate struct {
	text    string
	scope   map[string]any // what it sees
	base    string
	partial bool // it only defines templates for others
}

// An engine renders the templates of one chart with the functions that Helm
// has. Unlike Helm's own it can be stopped, bounds what templates do, and knows
// from which line of a template a line of the output comes.
type engine struct {
	ctx       context.Context // of the one chart
	display   string
	templates map[string]chartTemplate // by the name that Helm gives them
	origins   map[*byte]origin         // by the first byte of a text node
	prepared  map[*parse.Tree]bool
	steps     int
	depth     int
	output    int     // bytes
	top       *writer // of the file that is rendered
}

// An origin is where a piece of plain text stands in its template.
type origin struct{ line, size int }

func newEngine(ctx context.Context, display string) *engine {
	return &engine{
		ctx: ctx, display: display, templates: map[string]chartTemplate{},
		origins: map[*byte]origin{}, prepared: map[*parse.Tree]bool{},
	}
}

// file turns the name of a template into that of its file.
func (e *engine) file(name string) string {
	_, rest, _ := strings.Cut(name, "/")
	return filepath.Join(e.display, rest)
}

// render returns what the templates give.
func (e *engine) render() (out []Rendered, err error) {
	ctx, cancel := context.WithTimeout(e.ctx, renderTime)
	defer cancel()
	e.ctx = ctx
	root := template.New("chart").Option("missingkey=zero")
	root.Funcs(e.functions(root))
	names := e.names()
	for _, name := range names {
		if _, err := root.New(name).Parse(e.templates[name].text); err != nil {
			return nil, e.explain(err)
		}
	}
	if err := e.prepare(root); err != nil {
		return nil, e.explain(err)
	}
	for _, name := range names {
		t := e.templates[name]
		if t.partial {
			continue
		}
		t.scope["Template"] = map[string]any{"Name": name, "BasePath": t.base}
		w := &writer{engine: e}
		e.top = w
		if err := e.execute(root, w, name, t.scope); err != nil {
			return nil, e.explain(err)
		}
		if !strings.HasSuffix(name, "NOTES.txt") {
			out = append(out, Rendered{File: e.file(name), Text: strings.ReplaceAll(string(w.text), "<no value>", ""), line: w.line})
		}
	}
	return out, nil
}

// step counts work. It panics beyond the bounds, which ends the template.
func (e *engine) step(n int) {
	before := e.steps
	if e.steps += n; e.steps > maxSteps {
		panic(limitError(fmt.Sprintf("the chart takes more than %d steps to render", maxSteps)))
	}
	if e.steps>>8 != before>>8 && e.ctx.Err() != nil {
		panic(limitError("rendering was stopped: " + e.ctx.Err().Error()))
	}
}

// execute runs one template. All that run another come here.
func (e *engine) execute(set *template.Template, w *writer, name string, data any) error {
	if e.depth++; e.depth > maxRenderDepth {
		return limitError(fmt.Sprintf("templates call each other more than %d deep", maxRenderDepth))
	}
	defer func() { e.depth-- }()
	return set.ExecuteTemplate(w, name, data)
}

// include and tpl belong to a set of templates: what the text that tpl is given
// defines is there for that text only.
func (e *engine) include(set *template.Template) func(string, any) (string, error) {
	return func(name string, data any) (string, error) {
		e.step(20) // what running a template takes, compared to a call
		w := &writer{engine: e, part: true}
		err := e.execute(set, w, name, data)
		return string(w.text), err
	}
}

func (e *engine) tpl(set *template.Template) func(string, any) (string, error) {
	return func(source string, data any) (string, error) {
		e.step(20 + len(e.templates))
		own, err := set.Clone()
		if err != nil {
			return "", err
		}
		own.Option("missingkey=zero")
		own.Funcs(template.FuncMap{"include": e.include(own), "tpl": e.tpl(own)})
		const name = "text of tpl"
		parsed, err := own.New(name).Parse(source)
		if err != nil {
			return "", err
		}
		if err := e.prepare(parsed); err != nil {
			return "", err
		}
		w := &writer{engine: e, part: true}
		err = e.execute(parsed, w, name, data)
		return strings.ReplaceAll(string(w.text), "<no value>", ""), err
	}
}

var (
	executing  = regexp.MustCompile(`template: ([^\n]*?):(\d+):\d+: executing "(?:[^"\\]|\\.)*" at <(?:[^>]|>[^:])*>: `)
	parsing    = regexp.MustCompile(`^template: ([^\n]*?):(\d+): `)
	errCalling = regexp.MustCompile(`^(?:error calling \w+: )+`)
)

// explain puts file and line in front of what a template says is wrong: of
// templates that call each other, those of the innermost.
func (e *engine) explain(err error) error {
	message, place := err.Error(), e.display
	at := executing.FindAllStringSubmatchIndex(message, -1)
	if at == nil {
		at = parsing.FindAllStringSubmatchIndex(message, 1)
	}
	for i := len(at) - 1; i >= 0; i-- {
		if name := message[at[i][2]:at[i][3]]; e.templates[name].text != "" {
			place = e.file(name) + ":" + message[at[i][4]:at[i][5]]
			break
		}
	}
	if at != nil {
		message = message[at[len(at)-1][1]:]
	}
	message, _, _ = strings.Cut(errCalling.ReplaceAllString(message, ""), "\n")
	return hint(fmt.Errorf("%s: %s", place, message), "a chart that needs values is given them by --values FILE and --set KEY=VALUE")
}

// functions returns all functions of templates, those that could make much of
// little under watch.
func (e *engine) functions(set *template.Template) template.FuncMap {
	funcs := helmFunctions()
	for name, f := range funcs {
		funcs[name] = e.watched(name, f)
	}
	maps.Copy(funcs, template.FuncMap{
		"include": e.include(set), "tpl": e.tpl(set),
		"_step": func() string { e.step(1); return "" },
		"_out": func(line int, v any) any {
			e.weigh(reflect.ValueOf(v))
			if e.depth == 1 {
				e.top.mark(line, 0)
			}
			return v
		},
	})
	return funcs
}

// watched makes a function count what it does and makes.
func (e *engine) watched(name string, f any) any {
	v, cost := reflect.ValueOf(f), costs[name]
	call := v.Call
	if v.Type().IsVariadic() {
		call = v.CallSlice
	}
	return reflect.MakeFunc(v.Type(), func(args []reflect.Value) []reflect.Value {
		e.step(1 + steps[name])
		if !byReference[name] {
			for _, a := range args {
				e.weigh(a)
			}
		}
		if cost != nil && cost(args) > maxMade {
			panic(limitError(fmt.Sprintf("%s would make a value of more than %d MiB", name, maxMade>>20)))
		}
		out := call(args)
		if s := out[0]; s.Kind() == reflect.String && s.Len() > maxMade {
			panic(limitError(fmt.Sprintf("%s makes a value of more than %d MiB", name, maxMade>>20)))
		}
		return out
	}).Interface()
}

// weigh refuses a value that is larger, written out, than any value needs to
// be: lists can hold the same list many times.
func (e *engine) weigh(v reflect.Value) {
	left := maxMade
	e.take(v, &left, 0)
	e.step((maxMade - left) >> 8)
}

func (e *engine) take(v reflect.Value, left *int, depth int) {
	for v.Kind() == reflect.Interface || v.Kind() == reflect.Pointer {
		v = v.Elem()
		if depth++; depth > maxDepth {
			break
		}
	}
	*left -= 16
	if v.Kind() == reflect.String {
		*left -= v.Len()
	}
	if *left < 0 || depth > maxDepth {
		panic(limitError(fmt.Sprintf("a value is of more than %d MiB or %d levels", maxMade>>20, maxDepth)))
	}
	switch v.Kind() {
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			*left -= v.Len()
			return
		}
		for i := range v.Len() {
			e.take(v.Index(i), left, depth+1)
		}
	case reflect.Map:
		for entries := v.MapRange(); entries.Next(); {
			e.take(entries.Key(), left, depth+1)
			e.take(entries.Value(), left, depth+1)
		}
	}
}
