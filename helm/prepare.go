package helm

import (
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"text/template"
	"text/template/parse"
)

// prepare makes parsed templates countable: each turn of a loop and each value
// that is printed passes through a function of ours, and the template action
// becomes a call of include, which does the same.
func (e *engine) prepare(set *template.Template) error {
	for _, t := range set.Templates() {
		if t.Tree == nil || t.Root == nil || e.prepared[t.Tree] {
			continue
		}
		e.prepared[t.Tree] = true
		if t.Tree.Name == t.Tree.ParseName {
			e.locate(t.Root, e.templates[t.Tree.Name].text)
		}
		if err := e.list(t.Tree, t.Root, 0); err != nil {
			return fmt.Errorf("template: %s:1: %w", t.Tree.ParseName, err)
		}
	}
	return nil
}

func (e *engine) list(tree *parse.Tree, list *parse.ListNode, depth int) error {
	if list == nil {
		return nil
	}
	if depth > maxNesting {
		return limitError(fmt.Sprintf("blocks are nested more than %d deep", maxNesting))
	}
	for i, n := range list.Nodes {
		var err error
		switch n := n.(type) {
		case *parse.ActionNode:
			if len(n.Pipe.Decl) == 0 {
				n.Pipe.Cmds = append(n.Pipe.Cmds, command(tree, n.Pos, parse.NewIdentifier("_out"), number(n.Pos, e.lineOf(tree, n.Line))))
			}
		case *parse.TemplateNode:
			call := includes(tree, n)
			call.Pipe.Cmds = append(call.Pipe.Cmds, command(tree, n.Pos, parse.NewIdentifier("_out"), number(n.Pos, e.lineOf(tree, n.Line))))
			list.Nodes[i] = call
		case *parse.RangeNode:
			err = e.branch(tree, &n.BranchNode, depth)
			tick := action(n.Pos, n.Line, command(tree, n.Pos, parse.NewIdentifier("_step")))
			n.List.Nodes = append([]parse.Node{tick}, n.List.Nodes...)
		case *parse.IfNode:
			err = e.branch(tree, &n.BranchNode, depth)
		case *parse.WithNode:
			err = e.branch(tree, &n.BranchNode, depth)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *engine) branch(tree *parse.Tree, b *parse.BranchNode, depth int) error {
	return errors.Join(e.list(tree, b.List, depth+1), e.list(tree, b.ElseList, depth+1))
}

// includes writes {{template "x" .}} as {{include "x" .}}, which prints the same.
func includes(tree *parse.Tree, n *parse.TemplateNode) *parse.ActionNode {
	quoted := &parse.StringNode{NodeType: parse.NodeString, Pos: n.Pos, Quoted: n.Name, Text: n.Name}
	var data parse.Node = &parse.NilNode{NodeType: parse.NodeNil, Pos: n.Pos}
	if n.Pipe != nil {
		data = n.Pipe
	}
	return action(n.Pos, n.Line, command(tree, n.Pos, parse.NewIdentifier("include"), quoted, data))
}

func command(tree *parse.Tree, at parse.Pos, function *parse.IdentifierNode, args ...parse.Node) *parse.CommandNode {
	return &parse.CommandNode{NodeType: parse.NodeCommand, Pos: at, Args: append([]parse.Node{function.SetPos(at).SetTree(tree)}, args...)}
}

func number(at parse.Pos, n int) *parse.NumberNode {
	return &parse.NumberNode{NodeType: parse.NodeNumber, Pos: at, IsInt: true, Int64: int64(n), Text: strconv.Itoa(n)}
}

// lineOf returns the line of an action, or 0 for one that does not print to the
// file itself.
func (e *engine) lineOf(tree *parse.Tree, line int) int {
	if tree.Name != tree.ParseName {
		return 0
	}
	return line
}

func action(at parse.Pos, line int, c *parse.CommandNode) *parse.ActionNode {
	return &parse.ActionNode{
		NodeType: parse.NodeAction, Pos: at, Line: line,
		Pipe: &parse.PipeNode{NodeType: parse.NodePipe, Pos: at, Line: line, Cmds: []*parse.CommandNode{c}},
	}
}

// locate notes where the plain text of a file stands in it.
func (e *engine) locate(list *parse.ListNode, file string) {
	parts := []*parse.ListNode{list}
	for len(parts) > 0 {
		list, parts = parts[len(parts)-1], parts[:len(parts)-1]
		if list == nil {
			continue
		}
		for _, n := range list.Nodes {
			switch n := n.(type) {
			case *parse.TextNode:
				if len(n.Text) > 0 && int(n.Pos) <= len(file) {
					e.origins[&n.Text[0]] = origin{1 + strings.Count(file[:n.Pos], "\n"), len(n.Text)}
				}
			case *parse.RangeNode:
				parts = append(parts, n.List, n.ElseList)
			case *parse.IfNode:
				parts = append(parts, n.List, n.ElseList)
			case *parse.WithNode:
				parts = append(parts, n.List, n.ElseList)
			}
		}
	}
}

// A writer takes the output of one template. The templates write their plain
// text in the very slices that the parser made, by which it is recognised.
type writer struct {
	*engine
	part  bool // the output becomes a value
	text  []byte
	lines int
	marks []mark
}

// A mark says that what begins on a line of the output comes from a line of the
// template, and the height lines after it from those after that: none for the
// output of an action.
type mark struct{ line, source, height int }

// mark notes that the output goes on with what stands on a line of the template.
func (w *writer) mark(source, height int) {
	if source > 0 && !w.part {
		w.marks = append(w.marks, mark{w.lines + 1, source, height})
	}
}

func (w *writer) Write(p []byte) (int, error) {
	w.output += len(p)
	switch {
	case len(p) == 0:
		return 0, nil
	case w.output > maxRendered:
		return 0, limitError(fmt.Sprintf("the chart renders to more than %d MiB", maxRendered>>20))
	case w.part && len(w.text)+len(p) > maxMade:
		return 0, limitError(fmt.Sprintf("a template makes a value of more than %d MiB", maxMade>>20))
	}
	height := strings.Count(string(p), "\n")
	if o, ok := w.origins[&p[0]]; ok && o.size == len(p) {
		w.mark(o.line, height)
	}
	w.lines += height
	w.text = append(w.text, p...)
	return len(p), nil
}

// line leads from a line of the output to that of the template on which what
// begins there stands: plain text, or the action that made it.
func (w *writer) line(n int) int {
	i := sort.Search(len(w.marks), func(i int) bool { return w.marks[i].line >= n })
	switch {
	case len(w.marks) == 0:
		return 1
	case i == 0:
		return w.marks[0].source
	}
	m := w.marks[i-1]
	return m.source + min(n-m.line, m.height)
}
