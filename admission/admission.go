// Package admission is the webhook that the API server asks before it stores
// an object: AdmissionReview in, decision out. It also holds the certificate
// authority of the webhooks and keeps the webhook registered.
//
// # Why it cannot lock a cluster out
//
// A webhook stands in the way of every request that its rules name, so it is
// built such that losing it, or misconfiguring it, loses checks and not the
// cluster:
//
//   - The failure policy is Ignore unless told otherwise: while the webhook does
//     not answer within the timeout, requests pass. The scan finds what slipped
//     through.
//   - kube-system, kube-public, kube-node-lease and the namespace of the webhook
//     itself are left out twice: by the namespace selector of the registration,
//     so that the API server does not even ask, and by the handler.
//   - Match conditions, which the API server evaluates itself, leave out what a
//     cluster needs to start and to heal: kubelets, the API server's own client,
//     nodes, leases, status and finalize.
//   - The API server never sends webhook configurations and admission policies
//     to webhooks, so that
//     "kubectl delete validatingwebhookconfiguration kubeguardian"
//     always works.
//   - An error or a panic in the evaluation of one request is answered with HTTP
//     500, which hands the request to the failure policy.
//
// # Why size does not get around it
//
// Whoever makes the webhook miss the timeout would have the failure policy
// decide. So policies that deny are judged first, all of them within four fifths
// of the timeout that the API server announces, and an object over 100 KiB for
// which that is too short is denied.
package admission

// SystemNamespaces returns the namespaces that are never checked.
func SystemNamespaces() []string {
	return []string{"kube-node-lease", "kube-public", "kube-system"}
}
