package document

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify"
)

// The classes of OCSF that are written, of its category Findings. Only such
// attributes are used as versions 1.6 and 1.8 both have.
const (
	category  = 2
	detection = 2004
	incidents = 2005
)

// event is what both classes have.
type event struct {
	ActivityID   int            `json:"activity_id"`
	ActivityName string         `json:"activity_name"`
	CategoryUID  int            `json:"category_uid"`
	CategoryName string         `json:"category_name"`
	ClassUID     int            `json:"class_uid"`
	ClassName    string         `json:"class_name"`
	TypeUID      int            `json:"type_uid"`
	TypeName     string         `json:"type_name"`
	Time         int64          `json:"time"` // milliseconds, as all times
	StartTime    int64          `json:"start_time"`
	EndTime      int64          `json:"end_time"`
	Count        int            `json:"count"`
	SeverityID   int            `json:"severity_id"`
	Severity     string         `json:"severity"`
	StatusID     int            `json:"status_id"`
	Status       string         `json:"status"`
	Message      string         `json:"message"`
	Metadata     metadata       `json:"metadata"`
	Observables  []observable   `json:"observables,omitempty"`
	Unmapped     map[string]any `json:"unmapped,omitempty"`
}

type metadata struct {
	Version        string   `json:"version"`
	Product        product  `json:"product"`
	UID            string   `json:"uid"` // the same each time that it is sent
	CorrelationUID string   `json:"correlation_uid,omitempty"`
	LogName        string   `json:"log_name,omitempty"`
	Profiles       []string `json:"profiles,omitempty"`
}

type product struct {
	Name       string `json:"name"`
	VendorName string `json:"vendor_name"`
	Version    string `json:"version,omitempty"`
}

// detectionFinding is class 2004.
type detectionFinding struct {
	event
	FindingInfo findingInfo `json:"finding_info"`
	IsAlert     bool        `json:"is_alert"`
	Resources   []resource  `json:"resources,omitempty"`
	Evidences   []evidence  `json:"evidences"`
}

// incidentFinding is class 2005.
type incidentFinding struct {
	event
	Desc     string        `json:"desc"`
	Findings []findingInfo `json:"finding_info_list"`
	Attacks  []attack      `json:"attacks,omitempty"`
	Assignee *user         `json:"assignee,omitempty"`
	Comment  string        `json:"comment,omitempty"`
	SrcURL   string        `json:"src_url,omitempty"`
}

type findingInfo struct {
	UID       string   `json:"uid"`
	Title     string   `json:"title"`
	Desc      string   `json:"desc,omitempty"`
	Created   int64    `json:"created_time"`
	FirstSeen int64    `json:"first_seen_time,omitempty"`
	LastSeen  int64    `json:"last_seen_time,omitempty"`
	Analytic  analytic `json:"analytic"`
	Attacks   []attack `json:"attacks,omitempty"`
	Sources   []string `json:"data_sources,omitempty"`
	SrcURL    string   `json:"src_url,omitempty"`
}

type analytic struct {
	Name   string `json:"name"`
	TypeID int    `json:"type_id"`
	Type   string `json:"type"`
}

type attack struct {
	Tactic       *named `json:"tactic,omitempty"`
	Technique    *named `json:"technique,omitempty"`
	SubTechnique *named `json:"sub_technique,omitempty"`
}

type named struct {
	Name string `json:"name,omitempty"`
	UID  string `json:"uid,omitempty"`
}

type resource struct {
	UID       string `json:"uid"`
	Name      string `json:"name,omitempty"`
	Type      string `json:"type,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Owner     *user  `json:"owner,omitempty"`
}

type evidence struct {
	Actor       *actor         `json:"actor,omitempty"`
	Process     *process       `json:"process,omitempty"`
	Container   *container     `json:"container,omitempty"`
	SrcEndpoint *endpoint      `json:"src_endpoint,omitempty"`
	Data        map[string]any `json:"data,omitempty"`
}

type actor struct {
	User *user `json:"user"`
}

type user struct {
	Name string `json:"name"`
}

type process struct {
	Name    string `json:"name,omitempty"`
	PID     int64  `json:"pid"`
	CmdLine string `json:"cmd_line,omitempty"`
}

type container struct {
	UID   string `json:"uid,omitempty"`
	Name  string `json:"name,omitempty"`
	Image *image `json:"image,omitempty"`
}

type image struct {
	UID  string `json:"uid"`
	Name string `json:"name"`
}

type endpoint struct {
	IP string `json:"ip"`
}

type observable struct {
	Name   string `json:"name"`
	TypeID int    `json:"type_id"`
	Type   string `json:"type"`
	Value  string `json:"value"`
}

func (w Writer) detectionFinding(n *notify.Notification) *detectionFinding {
	a := &n.Alert
	f := &detectionFinding{event: w.event(n, detection, "Detection Finding", 1, "Create"), IsAlert: true}
	f.StatusID, f.Status = 1, "New"
	f.SeverityID, f.Severity = severity(a.Priority)
	f.FindingInfo = info(a.ID, a.Rule, a.Output, a.Source, a.Time, attacks(a.Tactics, a.Tags))
	f.FindingInfo.FirstSeen, f.FindingInfo.LastSeen, f.FindingInfo.SrcURL = n.First.UnixMilli(), n.Last.UnixMilli(), n.URL
	f.Resources = resources(a)
	f.Evidences = []evidence{evidenceOf(a)}
	f.Observables = observables(&f.Evidences[0])
	return f
}

// maxFindings bounds the findings in an incident: the receiver has the others by
// themselves.
const maxFindings = 100

func (w Writer) incidentFinding(n *notify.Notification) *incidentFinding {
	i := n.Incident
	activity, name := 1, "Create"
	switch i.State {
	case incident.Closed:
		activity, name = 3, "Close"
	case incident.Acknowledged, incident.Contained:
		activity, name = 2, "Update"
	}
	f := &incidentFinding{event: w.event(n, incidents, "Incident Finding", activity, name), Desc: i.Story, Attacks: attacks(i.Tactics, nil), Comment: i.Reason, SrcURL: n.URL}
	f.StatusID, f.Status = status(i.State)
	f.SeverityID, f.Severity = severity(i.Worst)
	f.Message, f.StartTime, f.EndTime, f.Count = i.Story, i.First.UnixMilli(), i.Last.UnixMilli(), max(len(i.Signals)+i.Dropped, 1)
	f.Metadata.CorrelationUID, f.Metadata.Profiles = i.ID, []string{"incident"}
	if i.Assignee != "" {
		f.Assignee = &user{i.Assignee}
	}
	for _, s := range i.Signals[:min(len(i.Signals), maxFindings)] {
		f.Findings = append(f.Findings, info(s.Alert, s.Rule, s.Output, s.Source, s.Time, attacks(s.Tactics, nil)))
	}
	if len(f.Findings) == 0 { // it is required
		a := &n.Alert
		f.Findings = []findingInfo{info(a.ID, a.Rule, a.Output, a.Source, a.Time, attacks(a.Tactics, a.Tags))}
	}
	f.Unmapped["score"] = i.Score
	if len(i.Owners) > 0 {
		f.Unmapped["owners"] = i.Owners
	}
	return f
}

func (w Writer) event(n *notify.Notification, class int, className string, activity int, activityName string) event {
	a := &n.Alert
	cluster := a.Cluster
	if cluster == "" {
		cluster = w.cluster
	}
	return event{
		ActivityID: activity, ActivityName: activityName, CategoryUID: category, CategoryName: "Findings",
		ClassUID: class, ClassName: className, TypeUID: class*100 + activity, TypeName: className + ": " + activityName,
		Time: a.Time.UnixMilli(), StartTime: n.First.UnixMilli(), EndTime: n.Last.UnixMilli(), Count: max(n.Count, 1), Message: a.Output,
		Metadata: metadata{
			Version: w.version, Product: product{"KubeGuardian", "KubeGuardian", w.product}, UID: n.Key, LogName: a.Source,
		},
		Unmapped: map[string]any{"cluster": cluster, "priority": a.Priority.String(), "tags": a.Tags},
	}
}

func severity(p alert.Priority) (int, string) {
	switch p {
	case alert.Emergency:
		return 6, "Fatal"
	case alert.AlertPriority, alert.Critical:
		return 5, "Critical"
	case alert.Error:
		return 4, "High"
	case alert.Warning:
		return 3, "Medium"
	case alert.Notice:
		return 2, "Low"
	}
	return 1, "Informational"
}

func status(s incident.State) (int, string) {
	switch s {
	case incident.Acknowledged, incident.Contained:
		return 2, "In Progress"
	case incident.Closed:
		return 5, "Closed"
	}
	return 1, "New"
}

func info(id, rule, output, source string, at time.Time, attacks []attack) findingInfo {
	f := findingInfo{UID: id, Title: rule, Desc: output, Created: at.UnixMilli(), Analytic: analytic{rule, 1, "Rule"}, Attacks: attacks}
	if source != "" {
		f.Sources = []string{source}
	}
	return f
}

// tacticID returns the id of one of ATT&CK's tactics for enterprises.
func tacticID(tactic string) string {
	return map[string]string{
		"reconnaissance": "TA0043", "resource-development": "TA0042", "initial-access": "TA0001", "execution": "TA0002",
		"persistence": "TA0003", "privilege-escalation": "TA0004", "defense-evasion": "TA0005", "credential-access": "TA0006",
		"discovery": "TA0007", "lateral-movement": "TA0008", "collection": "TA0009", "exfiltration": "TA0010",
		"command-and-control": "TA0011", "impact": "TA0040",
	}[tactic]
}

var technique = regexp.MustCompile(`^(T\d{4})(\.\d{3})?$`)

// attacks returns the tactics, and the techniques among the tags. Which technique
// is of which tactic is not known, so each has an object of its own.
func attacks(tactics, tags []string) []attack {
	var out []attack
	for _, t := range tactics {
		if id := tacticID(t); id != "" {
			out = append(out, attack{Tactic: &named{title(t), id}})
		}
	}
	for _, tag := range tags {
		parts := technique.FindStringSubmatch(tag)
		if parts == nil {
			continue
		}
		a := attack{Technique: &named{UID: parts[1]}}
		if parts[2] != "" {
			a.SubTechnique = &named{UID: tag}
		}
		out = append(out, a)
	}
	return out
}

// title writes "lateral-movement" as "Lateral Movement".
func title(tactic string) string {
	words := strings.Split(tactic, "-")
	for i, w := range words {
		if w != "and" && w != "" {
			words[i] = strings.ToUpper(w[:1]) + w[1:]
		}
	}
	return strings.Join(words, " ")
}

func resources(a *alert.Alert) []resource {
	var out []resource
	if a.Subject.Kind != "" {
		r := resource{UID: a.Subject.String(), Name: a.Subject.Name, Type: a.Subject.Kind, Namespace: a.Subject.Namespace}
		if a.Owner != "" {
			r.Owner = &user{a.Owner}
		}
		out = append(out, r)
	}
	node := finding.Subject{Kind: "Node", Name: a.Hostname}
	if a.Hostname != "" && (a.Subject.Kind != node.Kind || a.Subject.Name != node.Name) {
		out = append(out, resource{UID: node.String(), Name: node.Name, Type: node.Kind})
	}
	return out
}

func evidenceOf(a *alert.Alert) evidence {
	e := evidence{Data: a.OutputFields}
	if len(e.Data) == 0 {
		e.Data = map[string]any{"rule": a.Rule} // an evidence has something
	}
	if name := first(Field(a, "ka.user.name"), Field(a, "user.name")); name != "" {
		e.Actor = &actor{&user{name}}
	}
	if pid, err := strconv.ParseInt(Field(a, "proc.pid"), 10, 32); err == nil {
		e.Process = &process{Field(a, "proc.name"), pid, Field(a, "proc.cmdline")}
	}
	c := container{UID: Field(a, "container.id"), Name: first(a.Subject.Container, Field(a, "container.name"))}
	if ref := reference(a); ref != "" {
		c.Image = &image{ref, ref}
	}
	if c != (container{}) && c.UID != "host" {
		e.Container = &c
	}
	for _, entity := range a.Entities {
		if entity.Kind == alert.Address {
			e.SrcEndpoint = &endpoint{entity.Name}
		}
	}
	return e
}

// reference returns the image of a container.
func reference(a *alert.Alert) string {
	for _, entity := range a.Entities {
		if entity.Kind == alert.Image {
			return entity.Name
		}
	}
	name, tag := Field(a, "container.image.repository"), Field(a, "container.image.tag")
	if name != "" && tag != "" {
		return name + ":" + tag
	}
	return name
}

func observables(e *evidence) []observable {
	var out []observable
	if e.Actor != nil {
		out = append(out, observable{"evidences[0].actor.user.name", 4, "User Name", e.Actor.User.Name})
	}
	if e.SrcEndpoint != nil {
		out = append(out, observable{"evidences[0].src_endpoint.ip", 2, "IP Address", e.SrcEndpoint.IP})
	}
	if e.Process != nil && e.Process.Name != "" {
		out = append(out, observable{"evidences[0].process.name", 9, "Process Name", e.Process.Name})
	}
	return out
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
