package chart

import (
	"strings"
	"testing"
	"time"
)

func TestTrend(t *testing.T) {
	at := func(day int) time.Time { return time.Date(2026, 11, day, 0, 0, 0, 0, time.UTC) }
	svg := string(Trend([]Point{{at(20), 100}, {at(1), 0}, {at(10), 50}}))
	checkXML(t, svg)
	for _, want := range []string{
		`d="M34.0 138.0 300.2`, "0.0 on 2026-11-01 to 100.0 on 2026-11-20", `596.0 12.0"`,
	} {
		if !strings.Contains(svg, want) {
			t.Errorf("no %s in\n%s", want, svg)
		}
	}
	checkXML(t, string(Trend([]Point{{at(1), 3}, {at(1), 4}}))) // two reports of one moment
	if Trend(nil) != "" {
		t.Error("a trend of nothing")
	}
}
