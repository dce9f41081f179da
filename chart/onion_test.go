package chart

import (
	"encoding/xml"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/finding"
)

var update = flag.Bool("update", false, "write the golden files")

func ptr(v float64) *float64 { return &v }

// mixedScore has every kind of ring: none, full, and of several parts.
func mixedScore() control.Score {
	return control.Score{
		Total: ptr(52.3), Low: 52.3, High: 71.9,
		Levels: []control.LevelScore{
			{Level: finding.Infrastructure, Score: nil},
			{Level: finding.Cluster, Score: ptr(9.4), Pass: 0.47, Fail: 0.33, Unknown: 0.2},
			{Level: finding.Container, Score: ptr(13.8), Pass: 0.72, Fail: 0.18, Unknown: 0.04, Accepted: 0.06},
			{Level: finding.Application, Score: ptr(19.99), Pass: 0.9995, Fail: 0.0005},
			{Level: finding.Code, Score: ptr(0), Unknown: 1},
		},
	}
}

func emptyScore() (s control.Score) {
	for _, l := range finding.Levels() {
		s.Levels = append(s.Levels, control.LevelScore{Level: l})
	}
	return s
}

func perfectScore() control.Score {
	s := emptyScore()
	s.Total, s.Low, s.High = ptr(100), 100, 100
	for i := range s.Levels {
		s.Levels[i].Score, s.Levels[i].Pass, s.Levels[i].Coverage = ptr(20), 1, 1
	}
	return s
}

func TestOnion(t *testing.T) {
	tests := []struct {
		name  string
		score control.Score
		parts int // coloured parts of rings
	}{
		{"mixed", mixedScore(), 10},
		{"empty", emptyScore(), 0},
		{"perfect", perfectScore(), 5},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			have := string(Onion(tt.score)) + "\n"
			file := filepath.Join("testdata", "onion-"+tt.name+".svg")
			if *update {
				if err := os.WriteFile(file, []byte(have), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if have != string(want) {
				t.Errorf("have\n%s\nwant\n%s\n(-update writes it)", have, want)
			}
			checkXML(t, have)
			none := strings.Count(have, "ring-none")
			if n := strings.Count(have, `class="ring ring-`) - none; n != tt.parts {
				t.Errorf("%d parts are drawn, want %d", n, tt.parts)
			}
		})
	}
}

func checkXML(t *testing.T, svg string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		_, err := d.Token()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatalf("not well-formed: %v", err)
		}
	}
}

// Rounding never hides a failure, and never a pass.
func TestFormat(t *testing.T) {
	points := []struct {
		v, most float64
		want    string
	}{{100, 100, "100.0"}, {99.999, 100, "99.9"}, {0, 100, "0.0"}, {0.001, 100, "0.1"}, {52.25, 100, "52.3"}, {19.96, 20, "19.9"}, {20, 20, "20.0"}}
	for _, tt := range points {
		if have := Points(tt.v, tt.most); have != tt.want {
			t.Errorf("Points(%v, %v) = %s, want %s", tt.v, tt.most, have, tt.want)
		}
	}
	shares := map[float64]string{0: "0%", 1: "100%", 0.001: "<1%", 0.999: ">99%", 0.5: "50%", 0.012: "1%", 0.99: "99%", math.Nextafter(1, 0): ">99%"}
	for v, want := range shares {
		if have := Share(v); have != want {
			t.Errorf("Share(%v) = %s, want %s", v, have, want)
		}
	}
	if have := scoreRange(control.Score{Low: 50, High: 50}); have != "of 100" {
		t.Errorf("a range without width is %q", have)
	}
}
