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

// A node is a JSON value of an event. It is taken apart one level at a time,
// each at most once, when a rule asks for something below it. The zero node is
// absent. Its text stays as the API server wrote it, which a decoded tree would
// not keep; only escapes in strings are undone.
type node struct {
	r *record
	i uint32
}

func (n node) absent() bool { return n.r == nil || n.i == 0 }

func (n node) cell() *cell { return &n.r.arena.cells[n.i] }

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
	first := len(a.cells)
	in := reader{b: n.r.doc, i: int(c.start)}
	if in.b[in.i] == '{' {
		for more := in.open('{', '}'); more; more = in.more('}') {
			name := in.key()
			a.cells = append(a.cells, cell{span: in.value(maxDepth), name: name})
		}
	} else {
		for more := in.open('[', ']'); more; more = in.more(']') {
			a.cells = append(a.cells, cell{span: in.value(maxDepth)})
		}
	}
	c = n.cell() // the cells may have moved
	c.first, c.count = uint32(first), uint32(len(a.cells)-first)
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
