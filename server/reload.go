package server

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// reloadInterval is how often files are looked at. A mounted ConfigMap changes by a
// switch of links, which the contents show and notifications may not.
const reloadInterval = 2 * time.Second

// maxReason bounds what the page of health quotes of a mistake, in bytes.
const maxReason = 400

// A reload follows files that may change while the server runs. When changed files
// are refused, what was in force stays so, and log, health and metrics say it.
type reload struct {
	of      string            // what the files have: rules or policies
	seen    [sha256.Size]byte // the files at the last look
	refused atomic.Pointer[string]
	times   *prometheus.CounterVec // by result
	failed  prometheus.Gauge
}

// newReload makes a reload and its metrics.
func newReload(of string) *reload {
	r := &reload{
		of: of,
		times: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "kubeguardian", Name: of + "_reloads_total", Help: "Times that changed files of " + of + " were loaded, by result.",
		}, []string{"result"}),
		failed: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "kubeguardian", Name: of + "_refused", Help: "1 while files of " + of + " are refused and the " + of + " before them are in force.",
		}),
	}
	r.times.WithLabelValues("loaded")
	r.times.WithLabelValues("refused")
	return r
}

// reloads are those of the server.
type reloads struct{ rules, policies *reload }

func (r reloads) collectors() []prometheus.Collector {
	return []prometheus.Collector{r.rules.times, r.rules.failed, r.policies.times, r.policies.failed}
}

// follow looks at the files until ctx ends. look says what they are now, and how to
// put that in force.
func (r *reload) follow(ctx context.Context, s *Server, look func() (now [sha256.Size]byte, use func(context.Context) error)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(reloadInterval):
		}
		now, use := look()
		if now == r.seen {
			continue
		}
		if err := use(ctx); err == nil {
			r.refused.Store(nil)
			r.times.WithLabelValues("loaded").Inc()
			r.failed.Set(0)
			s.log.Info(r.of + " loaded again")
		} else if ctx.Err() == nil {
			r.refused.Store(new(err.Error()))
			r.times.WithLabelValues("refused").Inc()
			r.failed.Set(1)
			s.log.Error("changed files of "+r.of+" are refused: the "+r.of+" before them stay in force", "error", err)
		}
		r.seen = now
	}
}

// problem says why files are refused, for the page of health.
func (r *reload) problem() []string {
	refused := r.refused.Load()
	if refused == nil {
		return nil
	}
	first, others, _ := strings.Cut(*refused, "\n") // one mistake each
	if len(first) > maxReason {
		first = strings.ToValidUTF8(first[:maxReason], "") + "…"
	}
	if others != "" {
		first += "; the log has all mistakes"
	}
	return []string{fmt.Sprintf("Changed files are refused, and the %s before them are in force: %s.", r.of, first)}
}

// fingerprint identifies the names and contents of files, or why they cannot be
// read.
func fingerprint[F ~struct {
	Name string
	Data []byte
}](files []F, err error) [sha256.Size]byte {
	h := sha256.New()
	fmt.Fprintf(h, "%v\n", err)
	for _, f := range files {
		file := struct {
			Name string
			Data []byte
		}(f)
		fmt.Fprintf(h, "%q %d\n", file.Name, len(file.Data))
		h.Write(file.Data)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
