package fix

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"github.com/kubeguardian/kubeguardian/fix/edit"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// podRepairs are the changes to pods that make a control pass, by its id. Each
// looks at what is written only: whether that is enough is for the control to
// say, afterwards.
var podRepairs = map[string]func(p *pod) ([]edit.Op, error){
	"CLU-RBA-19": withoutToken,
	"CON-IMG-02": pinned,
	"CON-IMG-12": pulled,
	"CON-SEC-01": unprivileged,
	"CON-SEC-02": withoutEscalation,
	"CON-SEC-04": withoutAddedCapabilities,
	"CON-SEC-05": withoutCapabilities,
	"CON-SEC-06": withoutRawNetwork,
	"CON-SEC-08": withSeccomp,
	"CON-SEC-09": confined,
	"CON-SEC-10": withoutHostNamespaces,
	"CON-SEC-11": withoutHostNetwork,
	"CON-SEC-16": withMaskedProc,
}

// errValue says that a change needs a value that nobody has given.
var errValue = errors.New("a value is missing")

// A pod is the pod template of an object under repair.
type pod struct {
	path       []any // of the template
	template   map[string]any
	containers []container
	offending  []string // containers that the finding names; none for all
	digest     func(image string) (string, bool)
}

// A container is one of a pod, of any kind.
type container struct {
	path   []any
	fields map[string]any
}

func newPod(o *inventory.Object, content map[string]any, offending string) *pod {
	p := &pod{template: content}
	path, _ := inventory.TemplatePath(o.GroupVersionKind().GroupKind())
	for _, key := range path {
		p.path = append(p.path, key)
		p.template = mapping(p.template[key])
	}
	if offending != "" {
		p.offending = strings.Split(offending, ",")
	}
	for _, list := range []string{"initContainers", "containers", "ephemeralContainers"} {
		items, _ := p.spec()[list].([]any)
		for i, item := range items {
			p.containers = append(p.containers, container{p.at("spec", list, i), mapping(item)})
		}
	}
	return p
}

func (p *pod) spec() map[string]any { return mapping(p.template["spec"]) }

// at returns a path within the object from one within the template.
func (p *pod) at(path ...any) []any { return slices.Concat(p.path, path) }

func (c container) at(path ...any) []any { return slices.Concat(c.path, path) }

// setting returns a part of the security context of a container or a pod.
func setting(fields map[string]any, path ...string) any {
	m := mapping(fields["securityContext"])
	for _, key := range path[:len(path)-1] {
		m = mapping(m[key])
	}
	return m[path[len(path)-1]]
}

// named returns the containers that the finding speaks of.
func (p *pod) named() []container {
	if len(p.offending) == 0 {
		return p.containers
	}
	return slices.DeleteFunc(slices.Clone(p.containers), func(c container) bool {
		name, _ := c.fields["name"].(string)
		return !slices.Contains(p.offending, name)
	})
}

func mapping(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

func texts(v any) []string {
	items, _ := v.([]any)
	var out []string
	for _, item := range items {
		if s, ok := item.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

func withoutToken(p *pod) ([]edit.Op, error) {
	return []edit.Op{edit.Set(false, p.at("spec", "automountServiceAccountToken")...)}, nil
}

func unprivileged(p *pod) (ops []edit.Op, err error) {
	for _, c := range p.named() {
		if setting(c.fields, "privileged") == true {
			ops = append(ops, edit.Set(false, c.at("securityContext", "privileged")...))
		}
	}
	return ops, nil
}

// withoutEscalation comes after the changes that it depends on: the API server
// refuses allowPrivilegeEscalation: false where it contradicts the rest.
func withoutEscalation(p *pod) (ops []edit.Op, err error) {
	for _, c := range p.named() {
		switch {
		case setting(c.fields, "privileged") == true:
			return nil, errors.New("a privileged container cannot do without it: fix CON-SEC-01 as well")
		case slices.Contains(texts(setting(c.fields, "capabilities", "add")), "CAP_SYS_ADMIN"):
			return nil, errors.New("a container with CAP_SYS_ADMIN cannot do without it: fix CON-SEC-04 as well")
		}
		ops = append(ops, edit.Set(false, c.at("securityContext", "allowPrivilegeEscalation")...))
	}
	return ops, nil
}

// usual are the capabilities that the baseline of the Pod Security Standards
// lets containers add.
var usual = []string{
	"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP",
	"SETUID", "SYS_CHROOT",
}

func withoutAddedCapabilities(p *pod) ([]edit.Op, error) {
	return withoutAdded(p, func(capability string) bool { return !slices.Contains(usual, capability) }), nil
}

func withoutAdded(p *pod, unwanted func(string) bool) (ops []edit.Op) {
	for _, c := range p.named() {
		added := texts(setting(c.fields, "capabilities", "add"))
		slices.Sort(added)
		for _, capability := range slices.Compact(added) {
			if unwanted(capability) {
				ops = append(ops, edit.Remove(capability, c.at("securityContext", "capabilities", "add")...))
			}
		}
	}
	return ops
}

func withoutCapabilities(p *pod) ([]edit.Op, error) {
	ops := withoutAdded(p, func(capability string) bool { return capability != "NET_BIND_SERVICE" })
	for _, c := range p.named() {
		ops = append(ops, edit.Append("ALL", c.at("securityContext", "capabilities", "drop")...))
	}
	return ops, nil
}

func withoutRawNetwork(p *pod) ([]edit.Op, error) {
	ops := withoutAdded(p, func(capability string) bool {
		return slices.Contains([]string{"ALL", "NET_RAW", "CAP_NET_RAW"}, capability)
	})
	for _, c := range p.named() {
		if !slices.Contains(texts(setting(c.fields, "capabilities", "drop")), "ALL") {
			ops = append(ops, edit.Append("NET_RAW", c.at("securityContext", "capabilities", "drop")...))
		}
	}
	return ops, nil
}

// withSeccomp gives the pod a profile, and containers that have another of
// their own.
func withSeccomp(p *pod) (ops []edit.Op, err error) {
	confining := []any{"RuntimeDefault", "Localhost"}
	if !slices.Contains(confining, setting(p.spec(), "seccompProfile", "type")) {
		ops = append(ops, edit.Set("RuntimeDefault", p.at("spec", "securityContext", "seccompProfile", "type")...))
	}
	for _, c := range p.containers {
		if own := setting(c.fields, "seccompProfile", "type"); own != nil && !slices.Contains(confining, own) {
			ops = append(ops, edit.Set("RuntimeDefault", c.at("securityContext", "seccompProfile", "type")...))
		}
	}
	return ops, nil
}

const appArmorAnnotation = "container.apparmor.security.beta.kubernetes.io/"

// confined leaves AppArmor and SELinux to the runtime.
func confined(p *pod) (ops []edit.Op, err error) {
	annotations := mapping(mapping(p.template["metadata"])["annotations"])
	for key, value := range annotations {
		if strings.HasPrefix(key, appArmorAnnotation) && value == "unconfined" {
			ops = append(ops, edit.Set("runtime/default", p.at("metadata", "annotations", key)...))
		}
	}
	slices.SortFunc(ops, func(a, b edit.Op) int { return cmp.Compare(edit.Name(a.Path), edit.Name(b.Path)) })
	for _, c := range append([]container{{p.at("spec"), p.spec()}}, p.containers...) {
		if setting(c.fields, "appArmorProfile", "type") == "Unconfined" {
			ops = append(ops, edit.Set("RuntimeDefault", c.at("securityContext", "appArmorProfile", "type")...))
		}
		ops = append(ops, withoutLabels(c)...)
	}
	return ops, nil
}

// confinedTypes are the SELinux types that the Pod Security Standards allow.
var confinedTypes = []any{nil, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}

func withoutLabels(c container) (ops []edit.Op) {
	for _, field := range []string{"user", "role"} {
		if v := setting(c.fields, "seLinuxOptions", field); v != nil && v != "" {
			ops = append(ops, edit.Delete(c.at("securityContext", "seLinuxOptions", field)...))
		}
	}
	if !slices.Contains(confinedTypes, setting(c.fields, "seLinuxOptions", "type")) {
		ops = append(ops, edit.Delete(c.at("securityContext", "seLinuxOptions", "type")...))
	}
	return ops
}

func withoutHostNamespaces(p *pod) (ops []edit.Op, err error) {
	for _, field := range []string{"hostPID", "hostIPC"} {
		if p.spec()[field] == true {
			ops = append(ops, edit.Set(false, p.at("spec", field)...))
		}
	}
	return ops, nil
}

func withoutHostNetwork(p *pod) ([]edit.Op, error) {
	return []edit.Op{edit.Set(false, p.at("spec", "hostNetwork")...)}, nil
}

func withMaskedProc(p *pod) (ops []edit.Op, err error) {
	for _, c := range p.named() {
		ops = append(ops, edit.Set("Default", c.at("securityContext", "procMount")...))
	}
	return ops, nil
}
