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
		{"GET", "/playground", "list policies", s.playgroundPage},
		{"POST", "/playground", "create evaluations", s.playgroundForm},
		{"GET", "/health", "get health", s.healthPage},
		{"GET", "/settings", "list settings", s.settingsPage},

		{"GET", "/api/v1/search", "get health", s.getSearch},
		{"GET", "/api/v1/entity/{kind}/{name...}", "list alerts", s.getEntity},
		{"GET", "/api/v1/rules", "list policies", s.listRules},
		{"GET", "/api/v1/rules/{name}", "get policies", s.getRule},
		{"POST", "/api/v1/evaluations/rule", "create evaluations", s.evaluateRule},
		{"POST", "/api/v1/evaluations/policy", "create evaluations", s.evaluatePolicy},
		{"GET", "/api/v1/health/checks", "get health", s.getChecks},
		{"GET", "/api/v1/settings", "list settings", s.getSettings},
	}
	lists := s.exportables()
	for _, name := range slices.Sorted(maps.Keys(lists)) {
		out = append(out, route{"GET", "/api/v1/export/" + name, lists[name].needs, s.export(name, lists[name])})
	}
	return out
}
