package k8saudit

import (
	"strconv"

	"github.com/kubeguardian/kubeguardian/event"
)

// maxCells bounds what one event is taken apart into. No request that the API
// server accepts has as many values: they have 3 MiB at most.
const maxCells = 2 << 20

// A cell is a JSON value of an event that has been asked for, and its name in
// the object that holds it. Its own values are the cells that follow first.
type cell struct {
	span
	name         span
	first, count uint32
	expanded     bool
}

// A node is a JSON value of an event. It is taken apart, at most once, when a
// rule asks for something below it. The zero node is
// absent. Its text stays as the API server wrote it, which a decoded tree would
// not keep; only escapes in strings are undone.
type node struct {
	r *record
	i uint32
}

func (n node) absent() bool { return n.r == nil || n.i == 0 }

func (n node) cell() *cell { return &n.r.arena.cells[n.i] }

// atOnce is the size of a value, in bytes, up to which all that is below it is
// taken apart with it: most of it will be asked for, and to skip it once for each
// level costs more. A larger one is taken apart one level at a time.
const atOnce = 64 << 10

// expand makes the cells below n. The event has been checked before, so that
// reading it again cannot fail.
func (n node) expand() {
	c := n.cell()
	if c.expanded {
		return
	}
	c.expanded = true
	a := n.r.arena
	if c.form != container || len(a.cells) > maxCells {
		return
	}
	in := reader{b: n.r.doc, i: int(c.start)}
	first, count := a.takeApart(&in, c.end-c.start <= atOnce)
	c = n.cell() // the cells may have moved
	c.first, c.count = first, count
}

// takeApart makes the cells of the values in the object or array that in is at,
// side by side, and before them those of what is below, if that is wanted.
func (a *arena) takeApart(in *reader, whole bool) (first, count uint32) {
	mark := len(a.siblings)
	if in.peek() == '{' {
		for more := in.open('{', '}'); more; more = in.more('}') {
			name := in.key()
			a.siblings = append(a.siblings, a.take(in, whole, name))
		}
	} else {
		for more := in.open('[', ']'); more; more = in.more(']') {
			a.siblings = append(a.siblings, a.take(in, whole, span{}))
		}
	}
	first, count = uint32(len(a.cells)), uint32(len(a.siblings)-mark)
	a.cells = append(a.cells, a.siblings[mark:]...)
	a.siblings = a.siblings[:mark]
	return first, count
}

func (a *arena) take(in *reader, whole bool, name span) cell {
	if c := in.peek(); !whole || c != '{' && c != '[' {
		return cell{span: in.value(maxDepth), name: name}
	}
	start := in.i
	first, count := a.takeApart(in, true)
	return cell{span{uint32(start), uint32(in.i), container}, name, first, count, true}
}

func (n node) isObject() bool {
	c := n.cell()
	return c.form == container && n.r.doc[c.start] == '{'
}

// at returns the node at a path of names and positions.
func (n node) at(path ...string) node {
	for _, key := range path {
		if n.absent() {
			return node{}
		}
		n = n.child(key)
	}
	return n
}

// child returns the value under a name or at a position. Of several with the
// same name the last one counts, as for the API server.
func (n node) child(key string) node {
	n.expand()
	c := n.cell()
	if !n.isObject() {
		i, err := strconv.ParseUint(key, 10, 31)
		if err != nil || uint32(i) >= c.count {
			return node{}
		}
		return node{n.r, c.first + uint32(i)}
	}
	for i := c.first + c.count; i > c.first; i-- {
		if name := n.r.arena.cells[i-1].name; n.r.is(name, key) {
			return node{n.r, i - 1}
		}
	}
	return node{}
}

// list returns how many elements an array has; element returns them.
func (n node) list() int {
	if n.absent() || n.isObject() {
		return 0
	}
	n.expand()
	return int(n.cell().count)
}

// element returns the element of an array, or the member of an object, at a
// position below what list or members returned.
func (n node) element(i int) node { return node{n.r, n.cell().first + uint32(i)} }

// members returns how many members an object has.
func (n node) members() int {
	if n.absent() || !n.isObject() {
		return 0
	}
	n.expand()
	return int(n.cell().count)
}

// name returns the name of a member.
func (n node) name() string { return n.r.text(n.cell().name) }

// text returns a string without quotes and any other value as compact JSON; ok
// is false if the node is absent.
func (n node) text() (s string, ok bool) {
	if n.absent() {
		return "", false
	}
	return n.r.arena.text(n.r.doc, n.cell().span), true
}

func (n node) value() event.Value {
	if s, ok := n.text(); ok {
		return event.Text(s)
	}
	return event.Value{}
}
