package gateway

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics count what comes in.
type metrics struct {
	requests *prometheus.HistogramVec // by method and status code
	limited  prometheus.Counter
	attacks  *prometheus.CounterVec // by rule of the firewall
}

func newMetrics() *metrics {
	return &metrics{
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gateway_request_duration_seconds", Help: "How long requests took.", Buckets: prometheus.DefBuckets,
		}, []string{"method", "code"}),
		limited: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gateway_rate_limited_requests_total", Help: "Requests of clients that asked too often.",
		}),
		attacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gateway_firewall_matches_total", Help: "Rules of the firewall that matched.",
		}, []string{"rule"}),
	}
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.limited, m.attacks}
}

type requestKey struct{}

// requestID names a request in logs and in its answer.
func requestID(ctx context.Context) string {
	id, _ := ctx.Value(requestKey{}).(string)
	return id
}

// A recorder remembers the status code.
type recorder struct {
	http.ResponseWriter
	code int
}

func (r *recorder) WriteHeader(code int) {
	if r.code == 0 {
		r.code = code
	}
	r.ResponseWriter.WriteHeader(code)
}

// methods are those of the API; others share a label, since clients invent
// them.
var methods = map[string]bool{"GET": true, "HEAD": true, "POST": true, "PUT": true, "DELETE": true}

// observe counts and logs every request, and survives a handler's panic. Logs
// have no address of a page with its query, no body and no name.
func observe(m *metrics, log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start, id := time.Now(), uuid.NewString()
		w.Header().Set("X-Request-Id", id)
		rec := &recorder{ResponseWriter: w}
		defer func() {
			if p := recover(); p != nil {
				log.Error("panic", "request", id, "panic", p)
				if rec.code == 0 {
					writeJSON(rec, http.StatusInternalServerError, problem{Title: "Internal Server Error", Status: http.StatusInternalServerError})
				}
			}
			code, method := max(rec.code, http.StatusOK), r.Method
			if !methods[method] {
				method = "other"
			}
			took := time.Since(start)
			m.requests.WithLabelValues(method, strconv.Itoa(code)).Observe(took.Seconds())
			log.Debug("request", "request", id, "method", method, "code", code, "took", took)
		}()
		next.ServeHTTP(rec, r.WithContext(context.WithValue(r.Context(), requestKey{}, id)))
	})
}
