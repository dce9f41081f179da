package server

import (
	"fmt"

	"github.com/kubeguardian/kubeguardian/web"
)

// listedRules returns the rules in force for pages, and why some of them raise
// no alert.
func (s *Server) listedRules() []web.Rule {
	definitions := s.rules.Load().Definitions()
	out := make([]web.Rule, len(definitions))
	for i, d := range definitions {
		r := web.Rule{
			Name: d.Name, Desc: d.Desc, Source: d.Source, Priority: d.Priority, Tags: d.Tags, File: d.File, Line: d.Line,
			Condition: d.Condition, Output: d.Output, Exceptions: d.Exceptions,
		}
		switch {
		case !d.Enabled:
			r.Silent = "it is disabled, in its file or by detection.select"
		case !d.Live:
			r.Silent = fmt.Sprintf("it is less urgent than detection.priority, which is %s", s.cfg.Detection.Priority)
		}
		out[i] = r
	}
	return out
}
