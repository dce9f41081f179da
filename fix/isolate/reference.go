package isolate

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubeguardian/kubeguardian/inventory"
)

// The bounds of what is searched for references.
const (
	maxText       = 64 << 10 // bytes of one value
	maxReferences = 200      // of one workload
)

// A reference is a host that a setting names.
type reference struct {
	scheme, host string
	port         int    // 0 if it is not said
	setting      string // what names it
	secret       bool   // the setting is in a Secret
}

// hosts finds [scheme://][user@]host[:port].
var hosts = regexp.MustCompile(`(?:([a-zA-Z][a-zA-Z0-9+.-]*)://)?(?:[^\s/@,;'"<>()=\[\]{}]*@)?([a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?)(?::([0-9]{1,5}))?`)

// notHosts are endings of settings that name something else than a host, and
// hostLike are words in settings that do name one.
var (
	notHosts = regexp.MustCompile(`(?i)(name|user|username|db|database|password|schema|role|realm|tenant|level|mode|env|environment|profile|prefix|topic|queue|group)$`)
	hostWord = regexp.MustCompile(`(?i)(host|hostname|addr|address|server|endpoint)$`)
	hostLike = regexp.MustCompile(`(?i)(host|addr|url|uri|endpoint|server|upstream|broker|peer|target|backend|^-h$)`)
)

// referencesIn returns the hosts that the value of a setting names. A bare word
// counts if it is the whole value, or if it follows a word that asks for a host.
func referencesIn(setting, value string) []reference {
	value = value[:min(len(value), maxText)]
	words := strings.Fields(value)
	var out []reference
	before := setting
	for _, word := range words {
		name := before
		if i := strings.IndexAny(word, "=:"); i > 0 && hostLike.MatchString(word[:i]) && i+1 < len(word) && word[i+1] != '/' && !digits(word[i+1:]) {
			name, word = word[:i], word[i+1:]
		}
		out = append(out, inWord(name, word, len(words) == 1)...)
		before = strings.TrimRight(word, ":=")
	}
	return out
}

func digits(s string) bool { return strings.Trim(s, "0123456789") == "" }

func inWord(name, word string, whole bool) []reference {
	var out []reference
	bare := strings.Trim(word, `"',;`)
	for _, m := range hosts.FindAllStringSubmatch(word, -1) {
		r := reference{scheme: strings.ToLower(m[1]), host: strings.ToLower(m[2]), setting: name}
		r.port, _ = strconv.Atoi(m[3])
		isBare := r.scheme == "" && r.port == 0
		switch {
		case r.host == "localhost" || digits(r.host):
		case isBare && (m[2] != bare || !hostLike.MatchString(name) && (!whole || notHosts.MatchString(name))):
		default:
			out = append(out, r)
		}
	}
	return out
}

// collect turns what all workloads declare into flows.
func (p *Planner) collect() error {
	settings, err := newSettings(p.inv)
	if err != nil {
		return err
	}
	for _, w := range p.inv.Workloads() {
		found, given := 0, settings.of(w)
		for _, s := range given {
			for _, r := range referencesIn(s.name, s.value) {
				if found++; found <= maxReferences {
					r.port, r.secret = cmp.Or(r.port, portBeside(given, r.setting)), s.secret
					p.refer(w, r)
				}
			}
		}
		ns := p.inv.NamespaceOf(w.Object)
		if found > maxReferences {
			p.note(ns, "%s names more than %d hosts; the rest is left out", w.Subject(), maxReferences)
		}
		for _, hidden := range settings.hidden(w) {
			p.note(ns, "%s takes settings from %s, which is not among the files: what it names is not allowed", w.Subject(), hidden)
		}
		p.replicas(w)
	}
	p.entries()
	if err := p.callers(); err != nil {
		return err
	}
	slices.SortStableFunc(p.flows, compareFlows)
	return nil
}

// portBeside returns the port that the setting next to one that names a host
// gives: SMTP_PORT for SMTP_HOST.
func portBeside(given []setting, host string) int {
	stem := hostWord.ReplaceAllString(host, "")
	for _, s := range given {
		if stem != host && strings.EqualFold(s.name, stem+"port") {
			n, _ := strconv.Atoi(s.value)
			return n
		}
	}
	return 0
}

// refer adds the flow of one reference.
func (p *Planner) refer(w *inventory.Workload, r reference) {
	why := fmt.Sprintf("%s names %s in %s", w.GetName(), r.host, cmp.Or(r.setting, "its arguments"))
	own := p.inv.NamespaceOf(w.Object)
	namespace, name, inside := split(r.host, own)
	if s := p.services[namespace+"/"+name]; s != nil {
		p.toService(w, s, r.port, why)
		return
	}
	if r.secret { // what is no URL may be part of a credential
		if r.scheme == "" {
			return
		}
		why = fmt.Sprintf("%s names a host in %s of a Secret", w.GetName(), r.setting)
	}
	address, err := netip.ParseAddr(r.host)
	dotted := strings.Contains(r.host, ".")
	switch {
	case err == nil && (address.IsLoopback() || address.IsUnspecified()):
	case err == nil:
		p.outward(w, address.String()+map[bool]string{true: "/32", false: "/128"}[address.Is4()], r, why)
	case inside:
		p.toNamespace(w, namespace, r, why)
	case dotted && (r.scheme != "" || r.port > 0 || hostLike.MatchString(r.setting)):
		p.outward(w, "0.0.0.0/0", r, why)
	case !dotted && r.scheme != "":
		p.toNamespace(w, own, r, why)
	case !dotted && r.port > 0 && hostLike.MatchString(r.setting):
		p.note(own, "%s, which is no Service among the files: it is not allowed", why)
	}
}

// split reads the name of a Service: name, name.namespace, name.namespace.svc or
// with the domain of the cluster. Inside is true if it can be nothing else.
func split(host, own string) (namespace, name string, inside bool) {
	parts := strings.Split(host, ".")
	if len(parts) == 1 {
		return own, host, false
	}
	return parts[1], parts[0], len(parts) > 2 && parts[2] == "svc"
}

// toService adds flows to the pods of a Service.
func (p *Planner) toService(w *inventory.Workload, s *service, port int, why string) {
	ports := s.ports(port)
	if len(s.selector) == 0 {
		p.note(p.inv.NamespaceOf(w.Object), "%s, a Service without selector: it is not allowed", why)
		return
	}
	if len(s.workloads) == 0 {
		p.flows = append(p.flows, flow{from: w, service: s, ports: ports, why: why})
	}
	for _, to := range s.workloads {
		p.flows = append(p.flows, flow{from: w, to: to, service: s, ports: ports, why: why})
	}
}

// toNamespace adds a flow to a Service that is not among the files.
func (p *Planner) toNamespace(w *inventory.Workload, namespace string, r reference, why string) {
	peer := networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{}}
	if namespace != p.inv.NamespaceOf(w.Object) {
		peer = networkingv1.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": namespace}}}
	}
	p.flows = append(p.flows, flow{from: w, peer: &peer, ports: r.ports(), why: why + ", a Service that is not among the files"})
}

// outward adds a flow to addresses; the metadata service is never among them.
func (p *Planner) outward(w *inventory.Workload, cidr string, r reference, why string) {
	block := &networkingv1.IPBlock{CIDR: cidr}
	if cidr == "0.0.0.0/0" {
		block.Except = []string{Metadata}
	}
	if cidr == Metadata {
		p.note(p.inv.NamespaceOf(w.Object), "%s, the metadata service: it is not allowed", why)
		return
	}
	ports := r.ports()
	if len(ports) == 0 && len(block.Except) > 0 { // any address on any port would undo the rest
		p.unclear[w] = append(p.unclear[w], why)
		return
	}
	p.flows = append(p.flows, flow{from: w, peer: &networkingv1.NetworkPolicyPeer{IPBlock: block}, ports: ports, why: why})
}

// usual are the ports of protocols, where a reference does not say one.
var usual = map[string][]int{
	"http": {80}, "ws": {80}, "https": {443}, "wss": {443}, "postgres": {5432}, "postgresql": {5432}, "mysql": {3306}, "redis": {6379},
	"rediss": {6379}, "amqp": {5672}, "amqps": {5671}, "mongodb": {27017}, "nats": {4222}, "kafka": {9092}, "ldap": {389}, "ldaps": {636},
	"smtp": {25, 465, 587},
}

// ports returns the ports of a reference: the one that it says, else those of
// its scheme or of a protocol that the name of the setting has; nil if it can be
// any.
func (r reference) ports() []networkingv1.NetworkPolicyPort {
	if r.port > 0 && r.port <= 65535 {
		return []networkingv1.NetworkPolicyPort{port("TCP", r.port)}
	}
	for _, word := range append([]string{r.scheme}, strings.FieldsFunc(strings.ToLower(r.setting), func(c rune) bool { return c == '_' || c == '-' || c == '.' })...) {
		var out []networkingv1.NetworkPolicyPort
		for _, n := range usual[word] {
			out = append(out, port("TCP", n))
		}
		if out != nil {
			return out
		}
	}
	return nil
}
