package health_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/health"
)

func TestSort(t *testing.T) {
	checks := []health.Check{
		health.Of("a", "fine", "do"), {Name: "b", State: health.Off}, health.Of("c", "fine", "do", append(health.If(true, "%d lost.", 3), health.If(false, "no")...)...), {Name: "d", State: health.Warn},
	}
	health.Sort(checks)
	if have := fmt.Sprint(checks); have != "[{c bad 3 lost. do} {d warn  } {a ok fine } {b off  }]" {
		t.Error(have)
	}
	if have := health.Moment(time.Time{}) + health.Moment(time.Unix(0, 0)); have != "never1970-01-01T00:00:00Z" {
		t.Error(have)
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		720 * time.Hour: "30 days", 24 * time.Hour: "1 day", 36 * time.Hour: "36h", 90 * time.Minute: "1h30m", 20 * time.Second: "20s", 0: "0s", time.Minute: "1m", 10 * time.Hour: "10h",
	} {
		if have := health.Span(d); have != want {
			t.Errorf("%s is %q, want %q", d, have, want)
		}
	}
}
