package correlate

import (
	"fmt"
	"strconv"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/finding"
)

const (
	// EnteredRule is the built-in rule whose alerts are commands.
	EnteredRule = "Command entered a container"
	// Rule is the name of the alert for a command that is unexplained.
	Rule = "Command in a container without a request"
)

// FromAlert returns the command that an alert of [EnteredRule] is about; false
// for any other alert, and for one outside pods, which no request can explain.
func FromAlert(a alert.Alert) (Exec, bool) {
	if a.Rule != EnteredRule || a.Source != event.Syscall {
		return Exec{}, false
	}
	text := func(field string) string { return fieldText(a.OutputFields[field]) }
	e := Exec{
		ID: a.ID, Time: a.Time, Node: a.Hostname,
		Namespace: text("k8s.ns.name"), Pod: text("k8s.pod.name"), Container: a.Subject.Container,
		ContainerID: text("container.id"), Image: text("container.image.repository"),
		Command: text("proc.exeline"), User: text("user.name"),
		Ancestors: text("proc.pname"),
	}
	e.Process = fmt.Sprintf("%s/%s/%s", a.Hostname, text("proc.pid"), text("proc.pid.ts"))
	return e, e.Namespace != "" && e.Pod != ""
}

// fieldText writes the value of an output field, as it is or as JSON has made
// it.
func fieldText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case float64:
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return fmt.Sprint(v)
}

// Alert returns the alert for a command that is unexplained. It involves the
// kubelet's own API, by which such commands come: so does the request by which that
// asks who has called it.
func (v Verdict) Alert(cluster string) alert.Alert {
	e := v.Exec
	fields := map[string]any{
		"evt.time": e.Time.UnixNano(), "proc.exeline": e.Command, "user.name": e.User, "proc.pname": e.Ancestors,
		"container.id": e.ContainerID, "container.image.repository": e.Image,
		"k8s.ns.name": e.Namespace, "k8s.pod.name": e.Pod,
	}
	tags := []string{"T1609", "container", "mitre_execution"}
	return alert.Alert{
		ID: alert.NewID(event.Syscall, e.ID, Rule), Time: e.Time, Rule: Rule, Priority: alert.Critical, Source: event.Syscall,
		Output: fmt.Sprintf("%s: Critical A command entered a container past the API server: %s (command=%s user=%s parent=%s container=%s image=%s pod=%s namespace=%s node=%s)",
			e.Time.Local().Format("15:04:05.000000000"), v.Reason, e.Command, e.User, e.Ancestors, e.ContainerID, e.Image, e.Pod, e.Namespace, e.Node),
		OutputFields: fields, Hostname: e.Node, Tags: tags, Cluster: cluster, Tactics: alert.Tactics(tags),
		Entities: []alert.Entity{{Kind: alert.Object, Name: "nodes/" + e.Node + "/proxy"}},
		Subject:  finding.Subject{APIVersion: "v1", Kind: "Pod", Namespace: e.Namespace, Name: e.Pod, Container: e.Container},
	}
}
