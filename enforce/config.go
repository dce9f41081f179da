package enforce

import (
	"fmt"
	"iter"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/rule/condition"
	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// What an [Order] does.
const (
	Kill        = "kill"         // the process that raised the alert, with all its threads
	BlockEgress = "block-egress" // its container may begin no connection but to the loopback
)

// An Order says what is done about alerts of some rules. In patterns, * stands
// for any text.
type Order struct {
	Rules      []string      `yaml:"rules"`      // patterns of their names
	Tags       []string      `yaml:"tags"`       // patterns of tags, one of which is enough; a rule is meant by its name or by a tag
	Action     string        `yaml:"action"`     // [Kill] or [BlockEgress]
	DryRun     bool          `yaml:"dryRun"`     // nothing is done, but it is noted what would have been
	Namespaces []string      `yaml:"namespaces"` // patterns; only there. None is everywhere
	Except     []string      `yaml:"except"`     // patterns of namespaces; not there
	Host       bool          `yaml:"host"`       // also processes outside containers, which is for [Kill] alone
	For        time.Duration `yaml:"for"`        // how long egress is blocked since the last alert; 10 minutes by default
}

// Modes of a [Drift].
const (
	Off   = "off"
	Alert = "alert"
	Deny  = "deny" // the program does not start, and who called it goes on; where the kernel cannot do that, as [Kill]
	// and [Kill]
)

// A Drift says what becomes of executables that did not come with the image of
// the container that runs them. All that it names has to fit; of several, the
// first that fits counts.
type Drift struct {
	Namespaces []string          `yaml:"namespaces"` // patterns, one of which is enough
	Labels     map[string]string `yaml:"labels"`     // of the pod: patterns of their values
	Images     []string          `yaml:"images"`     // patterns of repository, or of repository:tag
	Mode       string            `yaml:"mode"`       // [Off], [Alert], [Kill] or [Deny]
	DryRun     bool              `yaml:"dryRun"`     // nothing is killed or denied, but it is noted what would have been
	Except     []string          `yaml:"except"`     // patterns of paths of executables that are let be
}

// A Protect adds to what is never acted upon, see [Protected].
type Protect struct {
	Namespaces []string `yaml:"namespaces"` // patterns
	Processes  []string `yaml:"processes"`  // patterns of the file names of programs outside containers
}

const (
	defaultFor  = 10 * time.Minute
	minFor      = time.Second
	maxFor      = 24 * time.Hour
	maxOrders   = 256
	maxPatterns = 256 // of one list
)

// Problems yields what is wrong in orders: the key in the configuration, as
// [0].action, and why.
func Problems(orders []Order) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if len(orders) > maxOrders {
			yield("", fmt.Errorf("%d entries, at most %d", len(orders), maxOrders))
			return
		}
		for i, o := range orders {
			for _, p := range o.problems() {
				if p.err != nil && !yield(fmt.Sprintf("[%d]%s", i, p.key), p.err) {
					return
				}
			}
		}
	}
}

type problem struct {
	key string
	err error
}

func (o Order) problems() []problem {
	return []problem{
		{"", o.checkSubject()}, {".rules", checkPatterns(o.Rules)}, {".tags", checkPatterns(o.Tags)}, {".action", oneOf(o.Action, Kill, BlockEgress)},
		{".namespaces", checkPatterns(o.Namespaces)}, {".except", checkPatterns(o.Except)}, {".host", o.checkHost()}, {".for", o.checkFor()},
	}
}

func (o Order) checkSubject() error {
	if len(o.Rules) == 0 && len(o.Tags) == 0 {
		return fmt.Errorf("want rules or tags: an action is never about all alerts unless it says so")
	}
	return nil
}

func (o Order) checkHost() error {
	if o.Host && o.Action == BlockEgress {
		return fmt.Errorf("the node itself is not kept from its network")
	}
	return nil
}

func (o Order) checkFor() error {
	switch {
	case o.For == 0:
		return nil
	case o.Action == Kill:
		return fmt.Errorf("a process that was killed does not come back: for is about %s", BlockEgress)
	case o.For < minFor || o.For > maxFor:
		return fmt.Errorf("want %s to %s, have %s", minFor, maxFor, o.For)
	}
	return nil
}

// DriftProblems yields what is wrong in modes, as [Problems] does.
func DriftProblems(modes []Drift) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if len(modes) > maxOrders {
			yield("", fmt.Errorf("%d entries, at most %d", len(modes), maxOrders))
			return
		}
		for i, d := range modes {
			for _, p := range []problem{
				{".namespaces", checkPatterns(d.Namespaces)}, {".images", checkPatterns(d.Images)},
				{".mode", oneOf(d.Mode, Off, Alert, Kill, Deny)}, {".dryRun", d.checkDryRun()}, {".except", d.checkExcept()},
			} {
				if p.err != nil && !yield(fmt.Sprintf("[%d]%s", i, p.key), p.err) {
					return
				}
			}
		}
	}
}

func (d Drift) checkDryRun() error {
	if d.DryRun && !d.acts() {
		return fmt.Errorf("nothing is done in mode %s: dryRun is about %s and %s", d.Mode, Kill, Deny)
	}
	return nil
}

func (d Drift) checkExcept() error {
	if d.Mode == Deny && len(d.Except) > 0 {
		return fmt.Errorf("the kernel that denies does not compare paths: except is about the other modes")
	}
	return checkPaths(d.Except)
}

// acts reports whether a mode does more than to raise alerts.
func (d Drift) acts() bool { return d.Mode == Kill || d.Mode == Deny }

// Denies reports whether one of the modes is [Deny], so that the kernel has to be asked
// whether it can.
func Denies(modes []Drift) bool {
	return slices.ContainsFunc(modes, func(d Drift) bool { return d.Mode == Deny })
}

// Check returns what is wrong.
func (p Protect) Check() error {
	for _, list := range [][]string{p.Namespaces, p.Processes} {
		if err := checkPatterns(list); err != nil {
			return err
		}
	}
	return nil
}

func oneOf(have string, want ...string) error {
	if !slices.Contains(want, have) {
		return fmt.Errorf("want %s or %s, have %q", strings.Join(want[:len(want)-1], ", "), want[len(want)-1], have)
	}
	return nil
}

func checkPatterns(patterns []string) error {
	if len(patterns) > maxPatterns {
		return fmt.Errorf("%d patterns, at most %d", len(patterns), maxPatterns)
	}
	if slices.Contains(patterns, "") {
		return fmt.Errorf("a pattern is empty")
	}
	return nil
}

func checkPaths(patterns []string) error {
	for _, p := range patterns {
		if !strings.HasPrefix(p, "/") && !strings.HasPrefix(p, "*") {
			return fmt.Errorf("want absolute paths, have %q", p)
		}
	}
	return checkPatterns(patterns)
}

func fits(s string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return condition.Wildcard(p, s) })
}

// About reports whether an order is about a rule.
func (o Order) About(rule string, tags []string) bool {
	return fits(rule, o.Rules) || slices.ContainsFunc(tags, func(tag string) bool { return fits(tag, o.Tags) })
}

// covers reports whether an order is about a container. Of one that the runtime
// has not told of yet it is not known.
func (o Order) covers(c *syscall.Container) (covered, known bool) {
	if len(o.Namespaces) == 0 && len(o.Except) == 0 {
		return true, true
	}
	if !c.Known {
		return false, false
	}
	namespace := namespaceOf(c)
	return (len(o.Namespaces) == 0 || fits(namespace, o.Namespaces)) && !fits(namespace, o.Except), true
}

// fits reports whether a mode is about a container.
func (d Drift) fits(c *syscall.Container) bool {
	if len(d.Namespaces) > 0 && !fits(namespaceOf(c), d.Namespaces) {
		return false
	}
	if len(d.Images) > 0 && !fits(c.Repository, d.Images) && !fits(c.Repository+":"+c.Tag, d.Images) {
		return false
	}
	for key, pattern := range d.Labels {
		if c.Pod == nil {
			return false
		}
		if value, ok := c.Pod.Labels[key]; !ok || !condition.Wildcard(pattern, value) {
			return false
		}
	}
	return true
}

// general reports whether a mode is about each container.
func (d Drift) general() bool { return len(d.Namespaces)+len(d.Images)+len(d.Labels) == 0 }

func namespaceOf(c *syscall.Container) string {
	if c.Pod == nil {
		return ""
	}
	return c.Pod.Namespace
}

// Protected are the namespaces and the programs of the node that are never acted
// upon, besides those that a configuration names: what the node, its containers
// and its way in for people depend on.
func Protected() Protect {
	return Protect{
		Namespaces: []string{"kube-system", "kube-public", "kube-node-lease", "kubeguardian", "kubeguardian-*"},
		Processes: []string{
			"init", "systemd", "systemd-*", "dbus-daemon", "dbus-broker*", "udevd", "kubelet", "kube-proxy", "kubeguardian-agent",
			"containerd", "containerd-shim*", "dockerd", "docker-proxy", "crio", "conmon", "conmonrs", "cri-dockerd", "podman", "runc", "crun", "runsc", "youki", "kata-*", "k3s*", "rke2*",
			"sshd", "sshd-*", "login", "agetty", "getty", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler",
		},
	}
}

// isProtected reports whether a program outside containers is.
func (p Protect) isProtected(executable, name string) bool {
	return fits(path.Base(executable), p.Processes) || executable == "" && fits(name, p.Processes)
}
