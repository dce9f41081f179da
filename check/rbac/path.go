package rbac

import (
	"fmt"
	"slices"
	"strings"
)

// paths are for each vertex the next step on its shortest way to administrator.
type paths struct {
	next map[vertex]step
}

func (p *paths) reached(v vertex) bool { _, ok := p.next[v]; return ok }

// search walks backwards from administrator, breadth first; steps out of a hub
// are no grants and cost nothing.
func (g *graph) search(unsure bool) *paths {
	type edge struct {
		from vertex
		step step
	}
	into := make([][]edge, len(g.steps))
	for v, steps := range g.steps {
		for _, s := range steps {
			if unsure || !s.unsure {
				into[s.to] = append(into[s.to], edge{vertex(v), s})
			}
		}
	}
	p := &paths{next: map[vertex]step{administrator: {}}}
	for level := []vertex{administrator}; len(level) > 0; {
		var further []vertex
		for i := 0; i < len(level); i++ {
			for _, e := range into[level[i]] {
				if p.reached(e.from) {
					continue
				}
				p.next[e.from] = e.step
				if e.step.how == "" {
					level = append(level, e.from)
				} else {
					further = append(further, e.from)
				}
			}
		}
		level = further
	}
	return p
}

// maxSteps bounds the chain that a finding shows.
const maxSteps = 12

// chain writes the way of a vertex to administrator, with the binding that
// grants each step.
func (g *graph) chain(v vertex, p *paths) string {
	text := g.names[v]
	for range maxSteps {
		if v == administrator {
			return text
		}
		s := p.next[v]
		if s.how == "" {
			text += ", such as " + g.names[s.to]
		} else {
			text += fmt.Sprintf(" may %s%s → %s", s.how, g.grants(g.ids[v], s), g.names[s.to])
		}
		v = s.to
	}
	return text + " …"
}

// grants names the bindings by which an identity can take a step.
func (g *graph) grants(id identity, s step) string {
	var by []string
	if s.by != nil {
		by = append(by, s.by.Subject().String())
	}
	missing := s.right
	for _, b := range g.access.held(id) {
		r := g.access.roles[b.role]
		if r != nil && r.rights&missing != 0 && (b.namespace == "" || b.namespace == s.scope) {
			by = append(by, b.Subject().String())
			missing &^= r.rights
		}
	}
	if len(by) == 0 {
		return ""
	}
	slices.Sort(by)
	return " (" + strings.Join(slices.Compact(by), ", ") + ")"
}
