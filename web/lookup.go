package web

import (
	"maps"
	"slices"
)

// lookupRoutes lists the pages by which people look something up, and what they
// can take away.
func (s *Server) lookupRoutes() []route {
	out := []route{
		{"GET", "/search", "get health", s.searchPage}, // finds only what its reader may list
		{"GET", "/entity/{kind}/{name...}", "list alerts", s.entityPage},
		{"GET", "/rules", "list policies", s.rulesPage},
		{"GET", "/rules/{name}", "get policies", s.rulePage},
		{"GET", "/policies", "list policies", s.policiesPage},

		{"GET", "/api/v1/search", "get health", s.getSearch},
		{"GET", "/api/v1/entity/{kind}/{name...}", "list alerts", s.getEntity},
		{"GET", "/api/v1/rules", "list policies", s.listRules},
		{"GET", "/api/v1/rules/{name}", "get policies", s.getRule},
	}
	lists := s.exportables()
	for _, name := range slices.Sorted(maps.Keys(lists)) {
		out = append(out, route{"GET", "/api/v1/export/" + name, lists[name].needs, s.export(name, lists[name])})
	}
	return out
}
