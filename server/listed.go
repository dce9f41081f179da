package server

import "github.com/kubeguardian/kubeguardian/web"

// listedRules returns the rules in force for pages, and why some of them raise
// no alert.
func (s *Server) listedRules() (out []web.Rule) {
	for _, d := range s.rules.Load().Definitions() {
		r := web.Rule{
			Name: d.Name, Desc: d.Desc, Source: d.Source, Priority: d.Priority, Tags: d.Tags, File: d.File, Line: d.Line,
			Condition: d.Condition, Output: d.Output, Exceptions: d.Exceptions,
		}
		if !d.Enabled {
			r.Silent = "it is disabled, in its file or by detection.select"
		} else if !d.Live {
			r.Silent = "it is less urgent than detection.priority, which is " + s.cfg.Detection.Priority
		}
		out = append(out, r)
	}
	return out
}
