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
