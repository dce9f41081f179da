// Package chart draws scores as SVG, with text that says the same, for pages and
// reports. Colours come from the style sheet of the page, by class.
package chart

import (
	"bytes"
	"fmt"
	"html/template"
	"math"
	"strings"

	"github.com/kubeguardian/kubeguardian/control"
)

// The onion: five rings around the total, infrastructure outside, code inside.
// A full ring is three quarters of a circle; the quarter that is left has the
// names. Colours come from the style sheet, by class.
const (
	onionSize   = 380.0
	onionRadius = 172.0 // of the middle of the outer ring
	onionStep   = 25.0
	onionWidth  = 19.0
	onionSweep  = 1.5 * math.Pi
)

// Onion draws the score. What has no data is a dashed ring, which looks like
// neither a pass nor a failure.
func Onion(s control.Score) template.HTML {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg class="onion" viewBox="0 0 %g %g" role="img" aria-labelledby="onion-title onion-desc">`+"\n", onionSize, onionSize)
	fmt.Fprintf(&b, "<title id=\"onion-title\">%s</title>\n", esc(onionTitle(s)))
	fmt.Fprintf(&b, "<desc id=\"onion-desc\">%s</desc>\n", esc(onionDescription(s)))
	b.WriteString(`<defs><pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">` +
		`<rect class="hatch-ground" width="5" height="5"/><rect class="hatch-line" width="2" height="5"/></pattern></defs>` + "\n")
	for i, level := range s.Levels {
		drawRing(&b, level, onionRadius-onionStep*float64(i))
	}
	drawCentre(&b, s)
	b.WriteString("</svg>")
	return template.HTML(b.String()) // all text in it is escaped by esc
}

func drawRing(b *bytes.Buffer, level control.LevelScore, radius float64) {
	const centre = onionSize / 2
	points := "no data"
	if level.Score == nil {
		arc(b, "ring-none", radius, 0, 1, string(level.Level)+": no data")
	} else {
		points = Points(*level.Score, 20)
		from := 0.0
		for _, part := range Parts(level) {
			if part.Share > 0 {
				title := fmt.Sprintf("%s: %s %s", level.Level, Share(part.Share), part.Name)
				arc(b, "ring-"+part.Name, radius, from, min(from+part.Share, 1), title)
				from += part.Share
			}
		}
	}
	fmt.Fprintf(b, `<text class="ring-name" x="%g" y="%g">%s <tspan class="ring-points">%s</tspan></text>`+"\n",
		centre-9, centre-radius+4.5, esc(string(level.Level)), points)
}

// A Part is a share of a level's bar, by the state that it stands for.
type Part struct {
	Name  string
	Share float64
}

// Parts are the shares of a level's bar in the order in which they are drawn.
func Parts(level control.LevelScore) []Part {
	return []Part{{"pass", level.Pass}, {"accepted", level.Accepted}, {"unknown", level.Unknown}, {"fail", level.Fail}}
}

// arc draws the part of a ring from one share to another, clockwise from the
// top.
func arc(b *bytes.Buffer, class string, radius, from, to float64, title string) {
	point := func(share float64) (x, y float64) {
		sin, cos := math.Sincos(share * onionSweep)
		return onionSize/2 + radius*sin, onionSize/2 - radius*cos
	}
	x1, y1 := point(from)
	x2, y2 := point(to)
	large := 0
	if (to-from)*onionSweep > math.Pi {
		large = 1
	}
	fmt.Fprintf(b, `<path class="ring %s" d="M%.2f %.2fA%g %g 0 %d 1 %.2f %.2f" stroke-width="%g"><title>%s</title></path>`+"\n",
		class, x1, y1, radius, radius, large, x2, y2, onionWidth, esc(title))
}

func drawCentre(b *bytes.Buffer, s control.Score) {
	const centre = onionSize / 2
	text := func(class string, dy float64, text string) {
		fmt.Fprintf(b, `<text class="%s" x="%g" y="%g">%s</text>`+"\n", class, centre, centre+dy, text)
	}
	if s.Total == nil {
		text("onion-none", 6, "no data")
		return
	}
	text("onion-total", 10, Points(*s.Total, 100))
	text("onion-range", 30, scoreRange(s))
}

func onionTitle(s control.Score) string {
	if s.Total == nil {
		return "Security score: no data"
	}
	return fmt.Sprintf("Security score: %s of 100", Points(*s.Total, 100))
}

func onionDescription(s control.Score) string {
	var lines []string
	for _, level := range s.Levels {
		if level.Score == nil {
			lines = append(lines, fmt.Sprintf("%s: no data", level.Level))
			continue
		}
		line := fmt.Sprintf("%s: %s of 20", level.Level, Points(*level.Score, 20))
		for _, p := range Parts(level) {
			line += fmt.Sprintf(", %s %s", Share(p.Share), p.Name)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "; ") + "."
}

func esc(s string) string { return template.HTMLEscapeString(s) }

// Points prints a score with one decimal. It shows the maximum only when
// it is reached, and zero only when nothing passed.
func Points(v, most float64) string {
	r := math.Round(v*10) / 10
	switch {
	case v < most && r >= most:
		r = most - 0.1
	case v > 0 && r <= 0:
		r = 0.1
	}
	return fmt.Sprintf("%.1f", r)
}

// scoreRange prints where the truth lies when not everything was verified.
func scoreRange(s control.Score) string {
	low, high := Points(s.Low, 100), Points(s.High, 100)
	if low == high {
		return "of 100"
	}
	return low + "–" + high + " of 100"
}

// Share prints a share in percent, with 0% and 100% only when it is that.
func Share(v float64) string {
	switch p := math.Round(v * 100); {
	case v > 0 && p < 1:
		return "<1%"
	case v < 1 && p > 99:
		return ">99%"
	default:
		return fmt.Sprintf("%.0f%%", p)
	}
}
