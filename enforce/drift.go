package enforce

import (
	"fmt"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/rule"
	"github.com/kubeguardian/kubeguardian/sensor/record"
	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// DriftRule is the name of the rule that alerts of a [Drift] have.
const DriftRule = "Executable that did not come with the image"

// DeniedRule is that of programs which the kernel denied: they have not run, so that
// it has no [alert.DriftTag], and the process of the alert is the one that called them.
const DeniedRule = DriftRule + " was denied"

// driftRule renders the alert. Whether there is one is not for it to say: no
// field tells of each executable that did not come with the image.
const driftRule = `
- rule: ` + DriftRule + `
  desc: A container runs a program that is not in its image
  condition: evt.type in (execve, execveat) and evt.failed = false
  output: >
    A container runs a program that did not come with its image (exe=%proc.exepath command=%proc.cmdline parent=%proc.pname
    user=%user.name upper_layer=%proc.is_exe_upper_layer memfd=%proc.is_exe_from_memfd container=%container.id name=%container.name
    image=%container.image.repository:%container.image.tag pod=%k8s.pod.name namespace=%k8s.ns.name)
  priority: CRITICAL
  tags: [container, process, ` + alert.DriftTag + `, mitre_execution, T1204]
- rule: ` + DeniedRule + `
  desc: A container was kept from running a program that is not in its image
  condition: evt.type in (execve, execveat)
  output: >
    A program that did not come with the image was denied to a container (exe=%evt.arg.trusted_exepath by=%proc.exepath command=%proc.cmdline
    parent=%proc.pname user=%user.name container=%container.id name=%container.name
    image=%container.image.repository:%container.image.tag pod=%k8s.pod.name namespace=%k8s.ns.name)
  priority: CRITICAL
  tags: [container, process, mitre_execution, T1204]
`

func loadDrift() (*rule.Set, error) {
	set, err := rule.Load(rule.File{Name: "zero-drift.yaml", Data: []byte(driftRule)})
	if err != nil {
		return nil, fmt.Errorf("load the rule about images: %w", err)
	}
	return set, nil
}

// DriftTypes are the types of events that zero drift needs.
func DriftTypes() []string { return []string{"execve", "execveat"} }

// judgeDrift returns the alert about an executable that did not come with the
// image, if there is to be one.
func (e *Enforcer) judgeDrift(ev Event, t target) []alert.Alert {
	denied := t.marked && t.mark == record.Denied
	if len(e.o.Drift) == 0 || !denied && (t.onHost() || !isExec(ev.Record)) {
		return nil
	}
	if flags, _ := ev.Record.Named("flags").Uint(); flags&record.ExeAdded == 0 {
		return nil
	}
	if denied {
		return e.judgeDenial(ev, t)
	}
	alerts := e.drift.Match(ev.Matched, rule.First)
	if len(alerts) == 0 {
		return nil
	}
	a := &alerts[0]
	if !t.container.Known && !e.o.Drift[0].general() {
		e.waitDrift(t, a)
		return nil
	}
	i := e.mode(t.container)
	if i < 0 || e.o.Drift[i].Mode == Off || e.excepted(i, t) {
		return nil
	}
	if e.o.Drift[i].acts() {
		e.act(e.driftOrder(i), t, a)
	}
	return alerts
}

func isExec(r *record.Record) bool {
	name := r.Type.String()
	return r.Result >= 0 && (name == "execve" || name == "execveat")
}

// mode returns which entry is about a container, -1 if none is.
func (e *Enforcer) mode(c *syscall.Container) int {
	for i, d := range e.o.Drift {
		if d.fits(c) {
			return i
		}
	}
	return -1
}

func (e *Enforcer) excepted(i int, t target) bool {
	return t.process != nil && fits(t.process.ExePath, e.o.Drift[i].Except)
}

func (e *Enforcer) driftOrder(i int) named {
	return named{Order{Action: e.o.Drift[i].Mode, DryRun: e.o.Drift[i].DryRun}, fmt.Sprintf("%s[%d]", driftOrigin, i)}
}

// waitDrift holds an alert until it is known which mode the container has. The
// process is held on to meanwhile, if that may be to kill.
func (e *Enforcer) waitDrift(t target, a *alert.Alert) {
	w := &wait{t: t, alert: a, until: time.Now().Add(waitTime)}
	for _, d := range e.o.Drift {
		if d.acts() && !w.opened {
			h, err := open(e.o.Proc, t.key)
			w.handle, w.opened = h, err == nil
		}
	}
	if !e.addWait(w) {
		e.giveUp(w, "")
	}
}

// settleDrift decides about an alert that has waited.
func (e *Enforcer) settleDrift(w *wait) {
	defer w.close()
	i := e.mode(w.t.container)
	if i < 0 || e.o.Drift[i].Mode == Off || e.excepted(i, w.t) {
		return
	}
	describe(w.alert, w.t.container)
	if e.o.Drift[i].acts() {
		w.o = e.driftOrder(i)
		w.act = e.action(w.o, w.t, w.alert)
		e.settleDriftKill(w)
	}
	e.o.Emit(*w.alert)
}

func (e *Enforcer) settleDriftKill(w *wait) {
	switch reason := e.refuse(w.t); {
	case reason != "":
		w.act.Outcome, w.act.Reason = Refused, reason
	case !w.opened:
		w.act.Outcome, w.act.By = Gone, agentsWay
	default:
		e.late(w)
	}
	e.finish(w.act, w.alert)
}

// describe completes an alert by what the container has turned out to be.
func describe(a *alert.Alert, c *syscall.Container) {
	a.OutputFields["container.name"] = c.Name
	a.OutputFields["container.image.repository"], a.OutputFields["container.image.tag"] = c.Repository, c.Tag
	if pod := c.Pod; pod != nil {
		a.OutputFields["k8s.pod.name"], a.OutputFields["k8s.ns.name"] = pod.Name, pod.Namespace
		a.Subject.APIVersion, a.Subject.Kind, a.Subject.Namespace, a.Subject.Name, a.Subject.Container = "v1", "Pod", pod.Namespace, pod.Name, c.Name
	}
}
