package chart

import (
	"bytes"
	"fmt"
	"html/template"
	"slices"
	"time"
)

// A Point is a total score, 0 to 100, at a time.
type Point struct {
	Time  time.Time
	Value float64
}

// The trend is drawn in a box of this size, with room for the labels.
const (
	trendWidth, trendHeight = 640.0, 160.0
	trendLeft, trendRight   = 34.0, 44.0
	trendTop, trendBottom   = 12.0, 22.0
)

// Trend draws totals over time, whatever their order, from 0 to 100. With no
// point it returns nothing.
func Trend(points []Point) template.HTML {
	if len(points) == 0 {
		return ""
	}
	points = slices.SortedStableFunc(slices.Values(points), func(a, b Point) int { return a.Time.Compare(b.Time) })
	first, last := points[0], points[len(points)-1]
	span := max(1, last.Time.Sub(first.Time).Seconds())
	x := func(p Point) float64 {
		return trendLeft + (trendWidth-trendLeft-trendRight)*p.Time.Sub(first.Time).Seconds()/span
	}
	y := func(v float64) float64 { return trendTop + (trendHeight-trendTop-trendBottom)*(1-v/100) }
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg class="trend" viewBox="0 0 %g %g" role="img"><title>Score from %s on %s to %s on %s</title>`+"\n",
		trendWidth, trendHeight, Points(first.Value, 100), day(first), Points(last.Value, 100), day(last))
	for _, v := range []float64{0, 50, 100} {
		fmt.Fprintf(&b, `<path class="trend-grid" d="M%g %.1fH%g"/><text class="trend-label" x="%g" y="%.1f">%g</text>`+"\n",
			trendLeft, y(v), trendWidth-trendRight, trendLeft-8, y(v)+4, v)
	}
	line := "M"
	for _, p := range points {
		line += fmt.Sprintf("%.1f %.1f ", x(p), y(p.Value))
	}
	fmt.Fprintf(&b, `<path class="trend-line" d="%s"/>`+"\n", line[:len(line)-1])
	for _, p := range points {
		fmt.Fprintf(&b, `<circle class="trend-point" cx="%.1f" cy="%.1f" r="3.5"><title>%s: %s</title></circle>`+"\n", x(p), y(p.Value), day(p), Points(p.Value, 100))
	}
	fmt.Fprintf(&b, `<text class="trend-last" x="%.1f" y="%.1f">%s</text>`+"\n", x(last)+8, y(last.Value)+5, Points(last.Value, 100))
	fmt.Fprintf(&b, `<text class="trend-day" x="%g" y="%g">%s</text>`+"\n", trendLeft, trendHeight-4, day(first))
	fmt.Fprintf(&b, `<text class="trend-day end" x="%g" y="%g">%s</text>`+"\n</svg>", trendWidth-trendRight, trendHeight-4, day(last))
	return template.HTML(b.String()) // numbers and days only
}

func day(p Point) string { return p.Time.UTC().Format(time.DateOnly) }
