// Package admission is the webhook that the API server asks before it stores
// an object: AdmissionReview in, decision or JSON patch out. It also holds the
// certificate authority of the webhooks, keeps the webhooks registered, and
// watches over both.
//
// # Why it cannot lock a cluster out
//
// A webhook stands in the way of every request that its rules name, so it is
// built such that losing it, or misconfiguring it, loses checks and not the
// cluster:
//
//   - The failure policy is Ignore unless told otherwise: while the webhook does
//     not answer within the timeout, requests pass. The scan finds what slipped
//     through, and the [Heartbeat] tells that nobody is asked. Only resources
//     that the user names fail closed.
//   - kube-system, kube-public, kube-node-lease and the namespace of the webhook
//     itself are left out twice: by the namespace selector of the registration,
//     so that the API server does not even ask, and by the handler.
//   - Match conditions, which the API server evaluates itself, leave out what a
//     cluster needs to start and to heal: kubelets and their certificates, the
//     API server's own client, nodes, leases, events, reviews, status and
//     finalize.
//   - The API server never sends webhook configurations and admission policies
//     to webhooks, so that
//     "kubectl delete validatingwebhookconfiguration kubeguardian"
//     always works.
//   - A request that cannot be judged, for lack of time or memory or because of
//     a panic, has the answer of the failure policy: see [Cause].
//   - A [BreakGlass] turns denials into warnings for some hours.
//
// # Why size does not get around it
//
// Whoever makes the webhook miss the timeout would have the failure policy
// decide. So policies that deny are judged first, all of them within four fifths
// of the timeout that the API server announces, and an object over 100 KiB for
// which that is too short is denied, as is one that is too large or too deep to
// be read.
//
// # Why a replica can go
//
// The handler keeps no state between requests. Certificates are replaced while
// connections are made: see [Authority].
package admission

// SystemNamespaces returns the namespaces that are never checked.
func SystemNamespaces() []string {
	return []string{"kube-node-lease", "kube-public", "kube-system"}
}
