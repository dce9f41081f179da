package web

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/access"
	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/chart"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/incident/timeline"
	"github.com/kubeguardian/kubeguardian/notify/delivery"
	"github.com/kubeguardian/kubeguardian/web/query"
	"github.com/kubeguardian/kubeguardian/web/rest"
	"github.com/kubeguardian/kubeguardian/web/session"
)

// A layout is what the frame around a page shows, and the page.
type layout struct {
	Title, Section   string
	Cluster, Version string
	Hub              bool    // other clusters report here
	Health           *Health // nil: without a login
	User             string  // who has logged in
	Refresh          string  // the page to go on to at once; "": none
	Page             any

	may func(access.Permission) bool
}

// May reports whether who looks at the page may do something.
func (l layout) May(p access.Permission) bool { return l.may != nil && l.may(p) }

var pages = []string{"login", "welcome", "error", "overview", "incidents", "incident", "alerts", "alert", "decisions", "audit", "readiness", "findings", "deliveries", "actions",
	"search", "entity", "rules", "rule", "policies", "health", "settings", "playground"}

func parseTemplates() (map[string]*template.Template, error) {
	frame, err := template.New("layout.html").Funcs(functions()).ParseFS(files, "templates/layout.html", "templates/parts.html")
	if err != nil {
		return nil, err
	}
	out := map[string]*template.Template{}
	for _, name := range pages {
		page, err := frame.Clone()
		if err == nil {
			page, err = page.ParseFS(files, "templates/"+name+".html")
		}
		if err != nil {
			return nil, err
		}
		out[name] = page
	}
	return out, nil
}

func functions() template.FuncMap {
	return template.FuncMap{
		"onion":        chart.Onion,
		"points":       func(v *float64, most float64) string { return chart.Points(*v, most) },
		"share":        chart.Share,
		"rfc3339":      func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) },
		"stamp":        func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") },
		"age":          age,
		"old":          func(t time.Time) bool { return time.Since(t) > 10*time.Minute },
		"isDefined":    func(t time.Time) bool { return !t.IsZero() },
		"row":          newAlertRow,
		"value":        valueText,
		"emptyRecord":  func() alert.Record { return alert.Record{} },
		"lower":        func(v any) string { return strings.ToLower(fmt.Sprint(v)) },
		"milli":        func(us int64) string { return fmt.Sprintf("%.1f ms", float64(us)/1000) },
		"outcome":      func(d finding.Decision) finding.Outcome { return d.Outcome() },
		"gradeClass":   gradeClass,
		"findingPage":  func(f finding.Finding) string { return timeline.PageOf(&f) },
		"href":         rest.With,
		"link":         func(path string, pairs ...string) string { return rest.With(path, nil, pairs...) },
		"entityLink":   entityLink,
		"depth":        func(n int) int { return min(n, 6) },
		"ruleLink":     func(name string) string { return "/rules/" + url.PathEscape(name) },
		"exported":     exported,
		"fixedAlerts":  func(rows []alert.Record) alertList { return alertList{Rows: rows, Max: len(rows)} },
		"levels":       finding.Levels,
		"enforcements": func() []string { return []string{"deny", "warn", "dryrun", "audit"} },
		"severities": func() []finding.Severity {
			return []finding.Severity{finding.Critical, finding.High, finding.Medium, finding.Low}
		},
		"outcomes": func() []finding.Outcome { return []finding.Outcome{finding.Denied, finding.Warned, finding.Allowed} },
	}
}

// gradeClass is how the grade of an entry of a timeline is coloured.
func gradeClass(e timeline.Entry) string {
	switch e.Kind {
	case timeline.Alert, timeline.Blind:
		return "prio-" + strings.ToLower(e.Grade)
	case timeline.Decision:
		return "out-" + e.Grade
	case timeline.Posture:
		return "sev-" + e.Grade
	case timeline.Response:
		switch e.Grade {
		case "killed", "blocked", "denied":
			return "state-ok"
		case "failed", "refused":
			return "sev-high"
		}
	case timeline.Message:
		if e.Grade == string(delivery.Dead) {
			return "sev-high"
		}
	}
	return ""
}

// age says how long ago t was, in one unit. The script says the same.
func age(t time.Time) string {
	switch d := time.Since(t); {
	case d < time.Second:
		return "now"
	case d < time.Minute:
		return fmt.Sprintf("%d s ago", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", d/time.Hour)
	default:
		return fmt.Sprintf("%d d ago", d/(24*time.Hour))
	}
}

// valueText prints an output field: a text as it is, a list as JSON.
func valueText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case []any: // a list of words, such as addresses
		words := make([]string, 0, len(v))
		for _, item := range v {
			if word, ok := item.(string); ok {
				words = append(words, word)
			}
		}
		if len(words) == len(v) {
			return strings.Join(words, ", ")
		}
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // the template escapes
	if e.Encode(v) != nil {
		return fmt.Sprint(v)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// render writes a page, whole or not at all.
func (s *Server) render(w http.ResponseWriter, code int, name string, l layout) error {
	l.Cluster, l.Version, l.Hub = s.Cluster, s.Version, len(s.Clusters()) > 0
	var b bytes.Buffer
	if err := s.templates[name].ExecuteTemplate(&b, "layout.html", l); err != nil {
		return fmt.Errorf("render page %s: %w", name, err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	w.Write(b.Bytes()) // a client that has gone is no error of ours
	return nil
}

// show renders a page behind the login.
func (s *Server) show(w http.ResponseWriter, r *http.Request, name, title string, page any) error {
	health := s.Health()
	return s.render(w, http.StatusOK, name, layout{
		Title: title, Section: name, Health: &health, Page: page, User: session.Who(r).User, may: s.sessions.May(r),
	})
}

// page wraps the handler of a page: its error is shown as a page.
func (s *Server) page(handle rest.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := handle(w, r)
		if err == nil {
			return
		}
		known := rest.Told(s.Log, r, err)
		l := layout{Title: http.StatusText(known.Code), Page: known.Text}
		if !slices.Contains([]int{http.StatusUnauthorized, http.StatusTooManyRequests, http.StatusServiceUnavailable}, known.Code) {
			s.frame(&l, r)
		}
		if err := s.render(w, known.Code, "error", l); err != nil {
			http.Error(w, known.Text, known.Code)
		}
	})
}

// frame puts what is around all pages around an error, for who has logged in.
func (s *Server) frame(l *layout, r *http.Request) {
	r = s.sessions.Known(r)
	may := s.sessions.May(r)
	if l.User = session.Who(r).User; l.User != "" && may("get health") {
		health := s.Health()
		l.Health, l.may = &health, may
	}
}

// An alertRow is what a list shows of an alert. The script makes the same of a
// live one.
type alertRow struct {
	alert.Record
	User, Action, Object, From string
}

func newAlertRow(r alert.Record) alertRow {
	field := func(names ...string) string {
		for _, name := range names {
			if v := r.OutputFields[name]; valueText(v) != "" {
				return valueText(v)
			}
		}
		return ""
	}
	action := field("ka.verb", "evt.type")
	if resource := field("ka.target.resource", "proc.name"); resource != "" {
		action += " " + resource
		if sub := field("ka.target.subresource"); sub != "" {
			action += "/" + sub
		}
	}
	object := r.Subject.String()
	if object == "" {
		object = field("ka.target.name")
	}
	return alertRow{r, field("ka.user.name", "user.name"), action, object, field("ka.sourceips")}
}

type alertList struct {
	Rows   []alert.Record
	Stream string // the URL of the stream that continues the list; "" for none
	Max    int    // rows that the list keeps when live ones are added
}

type alertsData struct {
	List                alertList
	Query               url.Values
	Filtered            bool
	Newest, Older, JSON string
	Priorities          []alert.Priority
	Windows             []window
	Clusters            []string // to choose from; none if there is but one
}

// A window is a choice of "how far back".
type window struct{ Value, Name string }

func windows() []window {
	return []window{{"1h", "last hour"}, {"24h", "last 24 hours"}, {"168h", "last 7 days"}}
}

func (s *Server) alertsPage(w http.ResponseWriter, r *http.Request) error {
	p := rest.Parse(r.URL, query.AlertParams...)
	q := query.Alerts(p)
	if p.Err != nil {
		return p.Err
	}
	last, err := s.Alerts.LastAlert(r.Context()) // first, so that the stream misses nothing
	if err != nil {
		return err
	}
	rows, next, err := s.Alerts.Alerts(r.Context(), q)
	if err != nil {
		return err
	}
	data := alertsData{
		List:     alertList{Rows: rows, Max: 500},
		Query:    p.Values,
		Filtered: rest.With("", p.Values, "before", "", "limit", "") != "",
		JSON:     rest.With("/api/v1/alerts", p.Values),
		Windows:  windows(),
		Clusters: s.clusterNames(),
	}
	for pr := alert.Emergency; pr <= alert.Debug; pr++ {
		data.Priorities = append(data.Priorities, pr)
	}
	if next != (finding.Cursor{}) {
		data.Older = rest.With("/alerts", p.Values, "before", next.String())
	}
	if p.Text("before") != "" {
		data.Newest = rest.With("/alerts", p.Values, "before", "")
	} else if p.Text("until") == "" {
		data.List.Stream = streamURL(p.Values, last)
	}
	return s.show(w, r, "alerts", "Alerts", data)
}

// streamURL is the stream that continues a list of alerts. Its time window
// starts in the past, so everything new is in it.
func streamURL(filters url.Values, last int64) string {
	return rest.With("/api/v1/alerts/stream", filters, "since", "", "limit", "", "after", fmt.Sprint(last))
}

type alertData struct {
	alertRow
	Involves []alert.Entity
	JSON     string
}

func (s *Server) alertPage(w http.ResponseWriter, r *http.Request) error {
	record, found, err := s.Alerts.Alert(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	if !found {
		return &rest.Error{Code: http.StatusNotFound, Text: "there is no alert with this id; it may be older than the retention"}
	}
	raw, err := json.MarshalIndent(record.Alert, "", "  ")
	if err != nil {
		return err
	}
	return s.show(w, r, "alert", record.Rule, alertData{newAlertRow(record), record.Involves(), string(raw)})
}

type overviewData struct {
	Clusters   []clusterRow        // of a hub, its own first
	Incidents  []incident.Incident // new ones that need a person
	Score      control.Score
	Fixes      []control.Fix
	ObservedAt time.Time
	Failing    int
	List       alertList
	Priorities []priorityCount
	Decisions  []finding.Decision
	Outcomes   map[finding.Outcome]int
}

type priorityCount struct {
	Priority alert.Priority
	Count    int
}

func (s *Server) overview(w http.ResponseWriter, r *http.Request) error {
	const few = 8
	ctx, day := r.Context(), time.Now().Add(-24*time.Hour)
	var data overviewData
	last, err := s.Alerts.LastAlert(ctx)
	if err != nil {
		return err
	}
	if data.Incidents, _, err = s.Incidents.Incidents(ctx, incident.Query{State: incident.New, Paged: true, Limit: few}); err != nil {
		return err
	}
	data.Incidents = slices.DeleteFunc(data.Incidents, func(i incident.Incident) bool { return !i.Pages(time.Now()) }) // muted
	data.List = alertList{Stream: streamURL(nil, last), Max: few}
	if data.List.Rows, _, err = s.Alerts.Alerts(ctx, alert.Query{Limit: few}); err != nil {
		return err
	}
	byPriority, err := s.Alerts.AlertCounts(ctx, day)
	if err != nil {
		return err
	}
	for p := alert.Emergency; p <= alert.Debug; p++ {
		if n := byPriority[p]; n > 0 {
			data.Priorities = append(data.Priorities, priorityCount{p, n})
		}
	}
	if data.Decisions, _, err = s.Decisions.Decisions(ctx, finding.DecisionQuery{Limit: few}); err != nil {
		return err
	}
	if data.Outcomes, err = s.Decisions.DecisionCounts(ctx, day); err != nil {
		return err
	}
	counts, err := s.Findings.FindingCounts(ctx)
	if err != nil {
		return err
	}
	data.Failing = counts[finding.Fail]
	data.Score, data.Fixes, data.ObservedAt = s.Posture()
	data.Fixes = data.Fixes[:min(len(data.Fixes), 5)]
	data.Clusters = s.clusterRows(&data.Score, data.ObservedAt)
	return s.show(w, r, "overview", "Overview", data)
}

type decisionsData struct {
	Rows                []finding.Decision
	Query               url.Values
	Filtered            bool
	Newest, Older, JSON string
	Windows             []window
}

func (s *Server) decisionsPage(w http.ResponseWriter, r *http.Request) error {
	p := rest.Parse(r.URL, query.DecisionParams...)
	q := query.Decisions(p)
	if p.Err != nil {
		return p.Err
	}
	rows, next, err := s.Decisions.Decisions(r.Context(), q)
	if err != nil {
		return err
	}
	data := decisionsData{
		Rows: rows, Query: p.Values, Windows: windows(),
		Filtered: rest.With("", p.Values, "before", "", "limit", "") != "",
		JSON:     rest.With("/api/v1/decisions", p.Values),
	}
	if next != (finding.Cursor{}) {
		data.Older = rest.With("/decisions", p.Values, "before", next.String())
	}
	if p.Text("before") != "" {
		data.Newest = rest.With("/decisions", p.Values, "before", "")
	}
	return s.show(w, r, "decisions", "Admission decisions", data)
}

type findingsData struct {
	Groups            []findingGroup
	Flat              bool // one control or a search: all of it, in pages
	ObservedAt        time.Time
	Tabs              []tab
	Query             url.Values
	First, More, JSON string
}

type tab struct {
	Name, URL string
	Count     int
	Current   bool
}

// findingsPage shows findings by control, a few of each, and the pages of one
// control or of a search. Without a status it shows what fails.
func (s *Server) findingsPage(w http.ResponseWriter, r *http.Request) error {
	p := rest.Parse(r.URL, query.FindingParams...)
	if p.Text("status") == "" {
		p.Values.Set("status", string(finding.Fail))
	}
	q := query.Findings(p)
	if p.Err != nil {
		return p.Err
	}
	data := findingsData{Query: p.Values, Flat: q.Control != "", JSON: rest.With("/api/v1/findings", p.Values)}
	counts, err := s.Findings.FindingCounts(r.Context())
	if err != nil {
		return err
	}
	for _, status := range []finding.Status{finding.Fail, finding.Unknown, finding.Excepted, finding.Pass, finding.NotApplicable} {
		data.Tabs = append(data.Tabs, tab{
			Name: string(status), Count: counts[status], Current: status == q.Status,
			URL: rest.With("/findings", p.Values, "status", string(status), "after", ""),
		})
	}
	groups, err := s.Findings.FindingGroups(r.Context(), q)
	if err != nil {
		return err
	}
	if data.Flat && len(groups) > 0 {
		var next string
		if groups[0].Findings, next, err = s.Findings.FindingPage(r.Context(), q); err != nil {
			return err
		}
		if next != "" {
			data.More = rest.With("/findings", p.Values, "after", next)
		}
		if q.After != "" {
			data.First = rest.With("/findings", p.Values, "after", "")
		}
	}
	s.addGains(groups, &data)
	return s.show(w, r, "findings", "Findings", data)
}

// A findingGroup is the findings of one control with what fixing them all would
// give, which is not the sum of what fixing each alone would.
type findingGroup struct {
	finding.Group
	Gain float64
}

// addGains fills in the groups: worst severity first, then what gives most.
func (s *Server) addGains(groups []finding.Group, data *findingsData) {
	_, fixes, observed := s.Posture()
	gains := map[string]float64{}
	for _, f := range fixes {
		gains[f.Control] = f.Gain
	}
	data.ObservedAt = observed
	for _, g := range groups {
		gain := 0.0
		if g.Findings[0].Status == finding.Fail {
			gain = gains[g.Findings[0].Control]
		}
		data.Groups = append(data.Groups, findingGroup{g, gain})
	}
	slices.SortStableFunc(data.Groups, func(a, b findingGroup) int {
		return cmp.Or(cmp.Compare(b.Findings[0].Severity.Weight(), a.Findings[0].Severity.Weight()), cmp.Compare(b.Gain, a.Gain))
	})
}
