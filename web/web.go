// Package web serves the pages and the JSON API.
//
// Both need a login: pages by a session cookie, the API also by a token. Each
// route has the permission that it needs. Everything shown comes from a cluster and is treated as hostile text:
// templates escape it, scripts only ever set it as text, and the
// Content-Security-Policy allows no inline script or style. Pages work without
// script; script adds what is live.
package web

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/access"
	"github.com/kubeguardian/kubeguardian/action"
	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/audit"
	"github.com/kubeguardian/kubeguardian/bus/fleet"
	"github.com/kubeguardian/kubeguardian/bus/roster"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/health"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify/delivery"
	"github.com/kubeguardian/kubeguardian/playground"
	"github.com/kubeguardian/kubeguardian/web/live"
	"github.com/kubeguardian/kubeguardian/web/rest"
	"github.com/kubeguardian/kubeguardian/web/session"
)

// Alerts reads stored alerts.
type Alerts interface {
	// Alerts returns a page, newest first, and the cursor of the next one.
	Alerts(context.Context, alert.Query) ([]alert.Record, finding.Cursor, error)
	live.Alerts
	// Alert returns one alert, and whether there is one.
	Alert(ctx context.Context, id string) (alert.Record, bool, error)
	// AlertCounts counts the alerts since a time.
	AlertCounts(ctx context.Context, since time.Time) (map[alert.Priority]int, error)
}

// Incidents reads incidents, and changes what people may.
type Incidents interface {
	// Incidents returns a page, the one in which something happened last first,
	// and the cursor of the next one.
	Incidents(context.Context, incident.Query) ([]incident.Incident, finding.Cursor, error)
	// Incident returns one incident, and whether there is one.
	Incident(ctx context.Context, id string) (incident.Incident, bool, error)
	// ChangeIncident returns the incident after a change. Its error is what is
	// wrong with the change, an [incident.ChangeError], or of the store.
	ChangeIncident(ctx context.Context, id string, c incident.Change) (*incident.Incident, bool, error)
}

// Actions is the log of what people do here.
type Actions interface {
	// AppendAction adds an entry. It is on the disk when it returns.
	AppendAction(context.Context, action.Entry) (action.Entry, error)
	// Actions returns a page, newest first, and the cursor of the next one.
	Actions(ctx context.Context, before int64, limit int) ([]action.Entry, int64, error)
	// VerifyActions checks the chain, and that it still has the entries of heads
	// that were kept elsewhere. Its error may be an [action.BrokenError].
	VerifyActions(ctx context.Context, anchors ...action.Head) (action.Head, error)
}

// Deliveries reads what became of messages to destinations, and has them sent.
type Deliveries interface {
	// Destinations returns how each destination is doing.
	Destinations(context.Context) ([]delivery.Status, error)
	// Deliveries returns a page of messages, newest first, and the cursor of the
	// next one.
	Deliveries(context.Context, delivery.Query) ([]delivery.Message, int64, error)
	// Retry queues dead letters of a destination again, one or with seq 0 all, and
	// returns how many. Its error may be [delivery.ErrUnknownDestination].
	Retry(ctx context.Context, destination string, seq int64) (int, error)
	// Test sends a test message, and returns why it was not taken, or
	// [delivery.ErrUnknownDestination].
	Test(ctx context.Context, destination string) error
}

// Decisions reads stored admission decisions.
type Decisions interface {
	// Decisions returns a page, newest first, and the cursor of the next one.
	Decisions(context.Context, finding.DecisionQuery) ([]finding.Decision, finding.Cursor, error)
	// DecisionCounts counts the decisions since a time.
	DecisionCounts(ctx context.Context, since time.Time) (map[finding.Outcome]int, error)
}

// Findings reads the states of the last scan.
type Findings interface {
	// FindingPage returns a page, worst first, and where the next one starts.
	FindingPage(context.Context, finding.Query) ([]finding.Finding, string, error)
	// FindingGroups returns findings by control, worst first.
	FindingGroups(context.Context, finding.Query) ([]finding.Group, error)
	// FindingCounts counts all findings.
	FindingCounts(context.Context) (map[finding.Status]int, error)
	// FindingSpans returns for how long findings failed, or have failed: the open
	// ones first, then the latest.
	FindingSpans(context.Context, finding.SpanQuery) ([]finding.Span, error)
}

// Health says what the server can see. It keeps "nothing happened" apart from
// "nothing was seen".
type Health struct {
	LastAuditEvent time.Time `json:"lastAuditEvent,omitzero"` // zero: none since the start
	AuditEvents    int64     `json:"auditEvents"`             // since the start
	Admission      bool      `json:"admission"`               // the webhook is registered
	Problems       []string  `json:"problems"`                // what is blind or broken, one sentence each
}

// Login says what the login page asks for.
type Login struct {
	Token    bool         // there is a login token
	Audience string       // whom tokens of the cluster are for; "": there are none
	OIDC     *access.OIDC // nil: no issuer
}

// Options are what a [Server] shows. All fields but Version and Login are needed.
type Options struct {
	Cluster   string
	Version   string
	Access    *access.Gate
	Login     Login
	Sessions  session.Sessions
	Actions   Actions
	Alerts    Alerts
	Incidents Incidents
	Decisions Decisions
	Findings  Findings
	// Deliveries may be of no destination.
	Deliveries Deliveries
	// Posture returns the score, what to fix next and when both were made; the
	// zero time before the first scan. It is called for each page, and must be
	// quick.
	Posture func() (control.Score, []control.Fix, time.Time)
	// Audit returns what the last audit said and when it ended; the zero time
	// before the first. It is called for each page, and must be quick.
	Audit func() (audit.Result, time.Time)
	// Readiness returns what policies that do not deny would have denied in the
	// last days, and since when that is counted.
	Readiness func(ctx context.Context, days int) ([]finding.Readiness, time.Time, error)
	Entities  Entities
	// Rules returns the detection rules. It must be quick.
	Rules func() []Rule
	// Checks returns what the server watches about itself. It must be quick.
	Checks func() []health.Check
	// Settings returns the configuration, without the value of any secret.
	Settings   func() []config.Setting
	Playground *playground.Playground
	// Policies returns what is judged by. It must be quick.
	Policies func() Policies
	// Agents returns what is known of node agents; nil: none can report. It must
	// be quick.
	Agents func() []fleet.Agent
	// Clusters returns what is known of those that report to this hub; none if it is
	// none. It must be quick.
	Clusters func() []roster.Cluster
	// Health is called for each page, and must be quick.
	Health func() Health
	Log    *slog.Logger
}

// A Server is the [http.Handler] of all pages and of the API.
type Server struct {
	Options
	handler   http.Handler
	templates map[string]*template.Template
	sessions  *session.Guard
	live      *live.Feed
}

//go:embed templates static openapi.yaml
var files embed.FS

// New returns a server that is ready to handle requests.
func New(opts Options) (*Server, error) {
	s := &Server{Options: opts}
	s.sessions = session.New(session.Options{Access: opts.Access, OIDC: opts.Login.OIDC, Sessions: opts.Sessions, Actions: opts.Actions, Log: opts.Log})
	s.live = live.New(opts.Alerts, s.sessions.StillAllowed, opts.Log)
	var err error
	if s.templates, err = parseTemplates(); err != nil {
		return nil, fmt.Errorf("parse page templates: %w", err)
	}
	mux := http.NewServeMux()
	for _, r := range s.routes() {
		mux.Handle(r.method+" "+r.path, s.guard(r))
	}
	s.handler = secure(http.NewCrossOriginProtection().Handler(mux))
	return s, nil
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Publish tells the live pages that the store has new alerts. It waits for no
// client.
func (s *Server) Publish(added []alert.Alert) {
	if len(added) > 0 {
		s.live.Wake()
	}
}

// Wake is Publish when it is not known which alerts are new.
func (s *Server) Wake() { s.live.Wake() }

// Close ends all live streams, which would otherwise keep an [http.Server] from
// shutting down. Register it with RegisterOnShutdown.
func (s *Server) Close() { s.live.Close() }

type route struct {
	method, path string
	needs        access.Permission // "": open to everybody
	handle       rest.Handler
}

func (r *route) api() bool { return strings.HasPrefix(r.path, "/api/") }

// routes lists everything that is served, and what whoever asks for it must be
// allowed to do. Only what it takes to log in and out is open to everybody.
func (s *Server) routes() []route {
	return append(s.lookupRoutes(), []route{
		{"GET", "/login", "", s.loginPage},
		{"POST", "/login", "", s.login},
		{"GET", "/login/oidc", "", s.oidcLogin},
		{"GET", "/login/oidc/callback", "", s.oidcCallback},
		{"POST", "/logout", "", s.logout},
		{"GET", "/static/{file}", "", static},

		{"GET", "/{$}", "list alerts", s.overview},
		{"GET", "/alerts", "list alerts", s.alertsPage},
		{"GET", "/alerts/{id}", "get alerts", s.alertPage},
		{"GET", "/incidents", "list incidents", s.incidentsPage},
		{"GET", "/incidents/{id}", "get incidents", s.incidentPage},
		{"POST", "/incidents/{id}", "update incidents", s.incidentForm},
		{"GET", "/decisions", "list decisions", s.decisionsPage},
		{"GET", "/audit", "list findings", s.auditPage},
		{"GET", "/readiness", "list decisions", s.readinessPage},
		{"GET", "/findings", "list findings", s.findingsPage},
		{"GET", "/deliveries", "list deliveries", s.deliveriesPage},
		{"POST", "/deliveries/{destination}/retry", "update deliveries", s.retryForm},
		{"POST", "/deliveries/{destination}/test", "update deliveries", s.testForm},
		{"GET", "/actions", "list actions", s.actionsPage},
		{"GET", "/", "get health", func(http.ResponseWriter, *http.Request) error { return rest.ErrNotFound }},

		{"GET", "/api/v1/alerts", "list alerts", s.listAlerts},
		{"GET", "/api/v1/alerts/stream", "list alerts", s.live.Stream},
		{"GET", "/api/v1/alerts/{id}", "get alerts", s.getAlert},
		{"GET", "/api/v1/incidents", "list incidents", s.listIncidents},
		{"GET", "/api/v1/incidents/{id}", "get incidents", s.getIncident},
		{"GET", "/api/v1/incidents/{id}/timeline", "get incidents", s.getTimeline},
		{"POST", "/api/v1/incidents/{id}", "update incidents", s.changeIncident},
		{"GET", "/api/v1/decisions", "list decisions", s.listDecisions},
		{"GET", "/api/v1/findings", "list findings", s.listFindings},
		{"GET", "/api/v1/audit", "list findings", s.getAudit},
		{"GET", "/api/v1/admission/readiness", "list decisions", s.getReadiness},
		{"GET", "/api/v1/policies", "list policies", s.listPolicies},
		{"GET", "/api/v1/agents", "get health", s.listAgents},
		{"GET", "/api/v1/clusters", "get health", s.listClusters},
		{"GET", "/api/v1/posture", "list findings", s.getPosture},
		{"GET", "/api/v1/deliveries", "list deliveries", s.listDeliveries},
		{"GET", "/api/v1/destinations", "list deliveries", s.listDestinations},
		{"POST", "/api/v1/destinations/{destination}/retry", "update deliveries", s.retryDeliveries},
		{"POST", "/api/v1/destinations/{destination}/test", "update deliveries", s.testDestination},
		{"GET", "/api/v1/actions", "list actions", s.listActions},
		{"GET", "/api/v1/actions/head", "get actions", s.getActionsHead},
		{"GET", "/api/v1/health", "get health", s.getHealth},
		{"GET", "/api/v1/openapi.yaml", "get health", s.getOpenAPI},
		{"GET", "/api/", "get health", func(http.ResponseWriter, *http.Request) error { return rest.ErrNotFound }},
	}...)
}

// secure sets the headers that keep a browser from doing more than we want.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "+
			"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		r.Body = http.MaxBytesReader(w, r.Body, maxBody(r))
		next.ServeHTTP(w, r)
	})
}

func static(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("file")
	data, err := files.ReadFile("static/" + name)
	if err != nil {
		return rest.ErrNotFound
	}
	// The files are the same for as long as the program runs, and few.
	w.Header().Set("Cache-Control", "max-age=60")
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(data))
	return nil
}
