package web

import (
	"time"

	"github.com/kubeguardian/kubeguardian/bus/roster"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/finding"
)

// A clusterRow is what the overview of a hub shows of a cluster.
type clusterRow struct {
	Name     string
	Status   roster.Status // empty: the hub's own
	Score    *roster.Score
	Levels   []levelCell // of each level, in their order
	Scanned  time.Time   // zero: never
	LastSeen time.Time   // zero: never
}

type levelCell struct {
	Name  finding.Level
	Score *float64 // 0 to 20; nil: nothing could be verified
}

// clusterRows returns the clusters of a hub with their scores, its own first; none if
// this is no hub.
func (s *Server) clusterRows(own *control.Score, scanned time.Time) []clusterRow {
	reporting := s.Clusters()
	if len(reporting) == 0 {
		return nil
	}
	score := &roster.Score{Total: own.Total, At: scanned}
	for _, l := range own.Levels {
		score.Levels = append(score.Levels, roster.Level{Level: string(l.Level), Score: l.Score})
	}
	rows := []clusterRow{newClusterRow(&roster.Cluster{Name: s.Cluster, State: roster.State{Score: score}})}
	for i := range reporting {
		rows = append(rows, newClusterRow(&reporting[i]))
	}
	return rows
}

func newClusterRow(c *roster.Cluster) clusterRow {
	row := clusterRow{Name: c.Name, Status: c.Status, Score: c.Score, LastSeen: c.LastSeen}
	by := map[string]*float64{}
	if c.Score != nil {
		row.Scanned = c.Score.At
		for _, l := range c.Score.Levels {
			by[l.Level] = l.Score
		}
	}
	for _, level := range finding.Levels() {
		row.Levels = append(row.Levels, levelCell{level, by[string(level)]})
	}
	return row
}
