package dashboard

import (
	"encoding/json"
	"fmt"
)

// The grid of Grafana is 24 wide.
const (
	gridWidth  = 24
	chartWidth = 8
	chartHigh  = 8
	statWidth  = 4
	statHigh   = 4
)

// source is the data source of all panels: the variable that a reader chooses.
func source() map[string]any { return map[string]any{"type": "prometheus", "uid": "${datasource}"} }

// JSON returns the dashboard as Grafana imports it, the same for the same
// dashboard.
func (d Dashboard) JSON() ([]byte, error) {
	var panels []map[string]any
	id, y := 0, 0
	for _, row := range d.Rows {
		id++
		panels = append(panels, map[string]any{
			"id": id, "type": "row", "title": row.Title, "collapsed": false, "panels": []any{},
			"gridPos": position(0, y, gridWidth, 1),
		})
		y++
		x, high := 0, 0
		for _, p := range row.Panels {
			id++
			w, h := p.size()
			if x+w > gridWidth {
				x, y = 0, y+high
			}
			panels = append(panels, p.json(id, position(x, y, w, h)))
			x, high = x+w, h
		}
		y += high
	}
	return json.MarshalIndent(map[string]any{
		"uid": d.Name, "title": d.Title, "description": d.Description, "tags": []string{"kubeguardian"},
		"schemaVersion": 39, "version": 1, "editable": true, "refresh": "30s", "timezone": "browser",
		"time": map[string]string{"from": "now-6h", "to": "now"},
		"templating": map[string]any{"list": []any{map[string]any{
			"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0, "refresh": 1,
		}}},
		"panels": panels,
	}, "", "  ")
}

func position(x, y, w, h int) map[string]int {
	return map[string]int{"x": x, "y": y, "w": w, "h": h}
}

func (p Panel) size() (w, h int) {
	if p.Stat {
		return statWidth, statHigh
	}
	return chartWidth, chartHigh
}

func (p Panel) json(id int, at map[string]int) map[string]any {
	var targets []map[string]any
	for i, q := range p.Queries {
		targets = append(targets, map[string]any{
			"refId": fmt.Sprintf("%c", 'A'+i), "expr": q.Expr, "legendFormat": q.Legend, "datasource": source(),
		})
	}
	defaults := map[string]any{"unit": p.Unit, "custom": map[string]any{"fillOpacity": 10, "showPoints": "never"}}
	if p.Least != nil {
		defaults["min"] = *p.Least
	}
	options := map[string]any{"legend": map[string]any{"displayMode": "list", "placement": "bottom"}, "tooltip": map[string]any{"mode": "multi"}}
	kind := "timeseries"
	if p.Stat {
		kind = "stat"
		defaults = map[string]any{"unit": p.Unit, "thresholds": thresholds(p.Bad)}
		options = map[string]any{"reduceOptions": map[string]any{"calcs": []string{"lastNotNull"}}, "colorMode": "background", "graphMode": "none"}
	}
	return map[string]any{
		"id": id, "type": kind, "title": p.Title, "description": p.Description, "datasource": source(), "gridPos": at,
		"targets": targets, "options": options, "fieldConfig": map[string]any{"defaults": defaults, "overrides": []any{}},
	}
}

// thresholds colour a value: green, or red from bad on; without bad it has no
// colour of its own.
func thresholds(bad *float64) map[string]any {
	steps := []map[string]any{{"color": "green", "value": nil}}
	if bad == nil {
		steps[0]["color"] = "blue"
	} else {
		steps = append(steps, map[string]any{"color": "red", "value": *bad})
	}
	return map[string]any{"mode": "absolute", "steps": steps}
}
