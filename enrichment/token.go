package enrichment

import (
	"hash/maphash"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/event"
)

// Limits of what is remembered of tokens, pods and nodes.
const (
	maxTokens    = 20_000
	maxAddresses = 16 // of one token, pod or node
	graceOfDead  = time.Minute
)

// A use is the first request from an address. It is remembered by a hash of its
// id, so that an event that comes again says the same again.
type use struct {
	address netip.Addr
	request uint64
}

// A token is what is known of one credential.
type token struct {
	uses     []use
	mintedBy string   // who asked for it; empty if that was not seen
	chain    []string // whose tokens led to it, the first one first
}

// A place is where a pod or node is, as far as that is known.
type place struct {
	addresses []netip.Addr
	dead      time.Time // when the pod was removed; zero if it lives
}

func (p place) has(address netip.Addr) bool { return slices.Contains(p.addresses, address) }

func (p place) with(addresses ...netip.Addr) place {
	for _, a := range addresses {
		if a.IsValid() && !p.has(a) && len(p.addresses) < maxAddresses {
			p.addresses = append(slices.Clone(p.addresses), a)
		}
	}
	return p
}

// tokens remembers from where tokens are used, and who made them.
type tokens struct {
	seed  maphash.Seed // of the hashes of ids
	known *memory[string, token]
	pods  *memory[string, place] // by uid
	nodes *memory[string, place] // by name
}

func newTokens() tokens {
	return tokens{maphash.MakeSeed(), newMemory[string, token](maxTokens), newMemory[string, place](maxTokens), newMemory[string, place](maxTokens)}
}

// tokenFacts are what an event says of the token that was sent with it. They last
// as long as the event.
type tokenFacts struct {
	id, pod, node string
	elsewhere     string // the address, if it is neither the pod's nor the node's
	before        string // another address from which the token was used
	dead          string // the pod, if it was gone
	mintedBy      string
	chain         []string
	firstUse      bool
}

// learn takes in an event, and finds what is to be said of its token.
func (ts *tokens) learn(r *record, e *event.Event) {
	if r.class == node {
		ts.learnNode(r, cut(strings.TrimPrefix(r.user, "system:node:")), lastAddress(r), e.Time)
		return
	}
	if strings.HasPrefix(r.user, accountPrefix) {
		ts.judge(r, e, lastAddress(r))
	}
	ts.learnMint(r)
}

// lastAddress is the only one of the source addresses that a client cannot forge.
func lastAddress(r *record) netip.Addr {
	ips := r.Record.Value(r.enricher.refs.sourceIPs).List
	if len(ips) == 0 {
		return netip.Addr{}
	}
	address, err := netip.ParseAddr(ips[len(ips)-1])
	if err != nil {
		return netip.Addr{}
	}
	return address.Unmap().WithZone("")
}

// learnNode takes in what a kubelet says of its pods, and from where it says so.
func (ts *tokens) learnNode(r *record, name string, address netip.Addr, at time.Time) {
	refs := &r.enricher.refs
	known, _ := ts.nodes.get(name)
	here := known.with(address)
	if r.resource == "pods" && strings.HasPrefix(r.text(refs.code), "2") {
		body := func(path ...string) string { return cut(r.below(refs.request, nil, path...).Text) }
		switch {
		case r.text(refs.subresource) == "status":
			if uid := body("metadata", "uid"); uid != "" {
				old, _ := ts.pods.get(uid)
				if pod := old.with(r.addresses("podIPs")...); len(pod.addresses) > len(old.addresses) {
					ts.pods.set(clip(uid), pod)
				}
				here = here.with(r.addresses("hostIPs")...)
			}
		case r.verb == "delete":
			// Only the kubelet removes a pod at last; whoever deletes one asks it to.
			uid := body("preconditions", "uid")
			if pod, _ := ts.pods.get(uid); uid != "" && pod.dead.IsZero() {
				pod.dead = at
				ts.pods.set(clip(uid), pod)
			}
		}
	}
	if len(here.addresses) > len(known.addresses) {
		ts.nodes.set(clip(name), here)
	}
}

// addresses returns those of a list in the status that a request writes. They last
// until it is called again.
func (r *record) addresses(list string) []netip.Addr {
	out := r.addressed[:0]
	for i := range maxAddresses {
		v := r.below(r.enricher.refs.request, nil, "status", list, strconv.Itoa(i), "ip")
		if v.Missing() {
			break
		}
		if a, err := netip.ParseAddr(v.Text); err == nil {
			out = append(out, a.Unmap().WithZone(""))
		}
	}
	return out
}

// judge finds what is to be said of the token of a service account.
func (ts *tokens) judge(r *record, e *event.Event, address netip.Addr) {
	refs, facts := &r.enricher.refs, &r.token
	id := r.text(refs.credential)
	if id == "" {
		return
	}
	*facts = tokenFacts{id: cut(id), pod: cut(r.text(refs.boundPod)), node: cut(r.text(refs.boundNode))}
	t, _ := ts.known.get(facts.id)
	facts.mintedBy, facts.chain = t.mintedBy, t.chain
	pod, _ := ts.pods.get(cut(r.text(refs.boundPodUID)))
	host, _ := ts.nodes.get(facts.node)
	home := pod.has(address) || host.has(address)
	seen := len(t.uses)
	if fresh := t.see(address, maphash.String(ts.seed, e.ID)); fresh && address.IsValid() {
		facts.firstUse = t.uses[0].address == address
		if facts.pod != "" && len(pod.addresses) > 0 && !home {
			facts.elsewhere = address.String()
		}
		facts.before = t.another(address, home, pod, host)
	}
	if facts.pod != "" && !pod.dead.IsZero() && e.Time.After(pod.dead.Add(graceOfDead)) {
		facts.dead = facts.pod
	}
	if len(t.uses) > seen {
		ts.known.set(clip(id), t)
	}
}

// see takes in an address, and reports whether this is the first event from it.
func (t *token) see(address netip.Addr, request uint64) bool {
	for _, u := range t.uses {
		if u.address == address {
			return u.request == request
		}
	}
	if len(t.uses) < maxAddresses {
		t.uses = append(slices.Clone(t.uses), use{address, request})
	}
	return true
}

// another returns an address from which the token was used before, unless both
// are at home or of different families: a pod has one of each.
func (t *token) another(address netip.Addr, home bool, pod, host place) string {
	for _, u := range t.uses {
		if u.address == address {
			break
		}
		if u.address.Is4() == address.Is4() && !(home && (pod.has(u.address) || host.has(u.address))) {
			return u.address.String()
		}
	}
	return ""
}

// learnMint takes in that somebody asked for a token, and with whose token.
func (ts *tokens) learnMint(r *record) {
	refs, by := &r.enricher.refs, &r.token
	if r.resource != "serviceaccounts" || r.text(refs.subresource) != "token" {
		return
	}
	id := clip(r.text(refs.issued))
	if id == "" || r.class == controlPlane {
		return
	}
	t, _ := ts.known.get(id)
	t.mintedBy = clip(r.user)
	t.chain = []string{t.mintedBy}
	if by.id != "" {
		t.chain = append(slices.Clone(by.chain[:min(len(by.chain), maxChain-1)]), t.mintedBy)
	}
	ts.known.set(id, t)
}

func ofToken(get func(*tokenFacts) string) extractor {
	return func(r *record) event.Value {
		if s := get(&r.token); s != "" {
			return event.Text(s)
		}
		return event.Value{}
	}
}

func tokenChain(r *record) event.Value {
	return event.List(r.token.chain)
}
