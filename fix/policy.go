package fix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubeguardian/kubeguardian/fix/edit"
	"github.com/kubeguardian/kubeguardian/fix/isolate"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// byPolicies are the controls that NetworkPolicies meet.
var byPolicies = map[string]bool{
	"CLU-NET-02": true, "CLU-NET-03": true, "CLU-NET-04": true, "CLU-NET-07": true, "CLU-NET-13": true, "CLU-NET-14": true,
}

// isolate adds the policies that candidates want to an inventory. Those of a
// namespace stand or fall together.
func (j *job) isolate(ctx context.Context, inv *inventory.Inventory) (*inventory.Inventory, error) {
	demands := j.demands(inv)
	if len(demands) == 0 {
		return j.offHost(ctx, inv)
	}
	planner, err := isolate.New(inv)
	if err != nil {
		return nil, fmt.Errorf("collect declared connections: %w", err)
	}
	objects := slices.Clone(inv.Objects())
	for _, ns := range slices.Sorted(maps.Keys(demands)) {
		n, err := planner.Propose(demands[ns])
		if err == nil && n != nil {
			err = j.put(ctx, n)
		}
		if unclear := (*isolate.UnclearError)(nil); errors.As(err, &unclear) && j.refuseEgress(ns, err) > 0 {
			return j.rewrite(ctx) // ingress can be closed all the same
		}
		if err != nil {
			j.refuseNetwork(ns, err)
			continue
		}
		if n == nil {
			continue
		}
		j.networks = append(j.networks, *n)
		objects = append(objects, n.Objects...)
		for _, c := range j.candidates {
			if c.refused == "" && c.network == ns {
				c.what = append(c.what, fmt.Sprintf("add %d network policies", len(n.Objects)))
			}
		}
	}
	after, err := inventory.New(inventory.Files, objects, nil)
	if err != nil {
		return nil, fmt.Errorf("index the proposed policies: %w", err)
	}
	proposals := make([]*isolate.Proposal, len(j.networks))
	for i := range j.networks {
		proposals[i] = &j.networks[i]
	}
	cut, err := planner.Simulate(after, proposals...)
	if err != nil {
		return nil, fmt.Errorf("simulate the proposed policies: %w", err)
	}
	refused := 0
	for ns, err := range cut {
		refused += j.refuseNetwork(ns, err)
	}
	if refused > 0 {
		return j.rewrite(ctx) // without them
	}
	return j.offHost(ctx, after)
}

// offHost simulates what policies do to pods that leave the host's network,
// where no policy held them, and refuses to cut what they declare.
func (j *job) offHost(ctx context.Context, after *inventory.Inventory) (*inventory.Inventory, error) {
	leaves := func(c *candidate) bool { return c.finding.Control == "CON-SEC-11" && c.refused == "" }
	if !slices.ContainsFunc(j.candidates, leaves) {
		return after, nil
	}
	planner, err := isolate.New(j.inv)
	if err != nil {
		return nil, fmt.Errorf("collect declared connections: %w", err)
	}
	cut, err := planner.Simulate(after)
	if err != nil {
		return nil, fmt.Errorf("simulate pods off the host's network: %w", err)
	}
	refused := false
	for _, c := range j.candidates {
		if leaves(c) && cut[j.inv.NamespaceOf(c.workload.Object)] != nil {
			c.refuse("%v", cut[j.inv.NamespaceOf(c.workload.Object)])
			refused = true
		}
	}
	if refused {
		return j.rewrite(ctx)
	}
	return after, nil
}

// refuseNetwork refuses all candidates that want policies in a namespace, and
// returns how many there were.
func (j *job) refuseNetwork(namespace string, err error) (refused int) {
	for _, c := range j.candidates {
		if c.network == namespace && c.refused == "" {
			c.refuse("%v", err)
			refused++
		}
	}
	return refused
}

// refuseEgress refuses the candidates that want egress of a namespace closed.
func (j *job) refuseEgress(namespace string, err error) (refused int) {
	for _, c := range j.candidates {
		if c.network == namespace && c.refused == "" && !slices.Contains([]string{"CLU-NET-02", "CLU-NET-13"}, c.finding.Control) {
			c.refuse("%v", err)
			refused++
		}
	}
	return refused
}

// demands returns what candidates want to be closed, by namespace.
func (j *job) demands(inv *inventory.Inventory) map[string]isolate.Demand {
	workloads := map[string]*inventory.Workload{}
	for _, w := range inv.Workloads() {
		workloads[w.Subject().String()+w.Source] = w
	}
	out := map[string]isolate.Demand{}
	for _, c := range j.candidates {
		if c.refused != "" || c.network == "" {
			continue
		}
		d, have := out[c.network]
		if !have {
			d = isolate.Demand{Namespace: c.network, Workloads: map[*inventory.Workload]isolate.Direction{}}
		}
		var w *inventory.Workload
		if c.workload != nil {
			w = workloads[c.workload.Subject().String()+c.workload.Source]
		}
		switch c.finding.Control {
		case "CLU-NET-02":
			d.All |= isolate.Ingress
		case "CLU-NET-03":
			d.All |= isolate.Egress
			d.DNS = true
		case "CLU-NET-04":
			d.Workloads[w] |= isolate.Ingress | isolate.Egress
		case "CLU-NET-13":
			d.Workloads[w] |= isolate.Ingress
		case "CLU-NET-07", "CLU-NET-14":
			d.Workloads[w] |= isolate.Egress
		}
		out[c.network] = d
	}
	return out
}

// put writes a proposal into a file beside the manifests of its namespace, or
// behind them where a file was named, and reads it again.
func (j *job) put(ctx context.Context, n *isolate.Proposal) error {
	s, err := j.home(n.Namespace)
	if err != nil {
		return err
	}
	text := n.Text
	if s.data != nil {
		text = append([]byte("---\n"), text...)
	}
	first := 1 + len(edit.Lines(s.data)) // about where it will be
	if bytes.Contains(s.data, []byte("\r\n")) {
		text = bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))
	}
	objects, err := objectsIn(ctx, n.Text)
	if err != nil {
		return fmt.Errorf("read the proposed policies: %w", err)
	}
	for _, o := range objects {
		n.Objects = append(n.Objects, &inventory.Object{Unstructured: o.Unstructured, Source: fmt.Sprintf("%s:%d", s.name, first)})
	}
	s.added = append(s.added, text...)
	if s.data == nil {
		j.added = append(j.added, s)
	}
	return nil
}

// home returns the file that policies of a namespace are put into.
func (j *job) home(namespace string) (*source, error) {
	var beside string
	if o := j.inv.Get("", "Namespace", "", namespace); o != nil {
		beside, _ = place(o.Source)
	}
	for _, w := range j.inv.Workloads() {
		if beside == "" && j.inv.NamespaceOf(w.Object) == namespace {
			beside, _ = place(w.Source)
		}
	}
	for _, o := range j.inv.Kind("networking.k8s.io", "NetworkPolicy") {
		if beside == "" && j.inv.NamespaceOf(o) == namespace {
			beside, _ = place(o.Source)
		}
	}
	if beside == "" {
		return nil, errors.New("no file belongs to the namespace")
	}
	if beside == stdin || slices.ContainsFunc(j.in.Paths, func(p string) bool { return filepath.Clean(p) == beside }) {
		if strings.HasSuffix(beside, ".json") {
			return nil, fmt.Errorf("%s: a JSON file cannot take a second document: name its folder", beside)
		}
		return j.source(beside)
	}
	name := filepath.Join(filepath.Dir(beside), "networkpolicy-"+namespace+".yaml")
	if _, err := os.Lstat(name); err != nil {
		return &source{name: name}, nil
	}
	if !slices.ContainsFunc(j.inv.Objects(), func(o *inventory.Object) bool { f, _ := place(o.Source); return f == name }) {
		return nil, fmt.Errorf("%s exists already, and holds no manifests", name)
	}
	return j.source(name)
}

// broadPolicies returns the policies that let a workload reach whole ranges of
// addresses with the metadata service among them.
func (j *job) broadPolicies(control string, w *inventory.Workload) []*inventory.Object {
	if control != "CLU-NET-07" {
		return nil
	}
	var out []*inventory.Object
	for _, o := range j.inv.Kind("networking.k8s.io", "NetworkPolicy") {
		var np networkingv1.NetworkPolicy
		if j.inv.NamespaceOf(o) != j.inv.NamespaceOf(w.Object) || runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &np) != nil {
			continue
		}
		pods, err := metav1.LabelSelectorAsSelector(&np.Spec.PodSelector)
		if err == nil && pods.Matches(labels.Set(w.Template.Labels)) && len(withoutMetadata(o.Object)) > 0 {
			out = append(out, o)
		}
	}
	return out
}

// withoutMetadata leaves the metadata service out of the ranges that the egress
// rules of a policy admit.
func withoutMetadata(content map[string]any) (ops []edit.Op) {
	address := netip.MustParsePrefix(isolate.Metadata).Addr()
	rules, _ := mapping(content["spec"])["egress"].([]any)
	for i, rule := range rules {
		peers, _ := mapping(rule)["to"].([]any)
		for k, peer := range peers {
			block := mapping(mapping(peer)["ipBlock"])
			text, _ := block["cidr"].(string)
			cidr, err := netip.ParsePrefix(text)
			if err != nil || !cidr.Contains(address) || cidr.Bits() == 32 || excepts(block, address) {
				continue
			}
			ops = append(ops, edit.Append(isolate.Metadata, "spec", "egress", i, "to", k, "ipBlock", "except"))
		}
	}
	return ops
}

func excepts(block map[string]any, address netip.Addr) bool {
	return slices.ContainsFunc(texts(block["except"]), func(text string) bool {
		cidr, err := netip.ParsePrefix(text)
		return err == nil && cidr.Contains(address)
	})
}
