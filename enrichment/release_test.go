package enrichment_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/enrichment"
	"github.com/kubeguardian/kubeguardian/event"
)

// requests are of many kinds, so that what is left of one shows in another.
func requests() []string {
	token := `"user":{"username":"system:serviceaccount:shop:web","extra":{"authentication.kubernetes.io/credential-id":["JTI=%d"],"authentication.kubernetes.io/pod-name":["web-1-a"],"authentication.kubernetes.io/pod-uid":["p"],"authentication.kubernetes.io/node-name":["n"]}},"sourceIPs":["10.0.0.%d"],`
	status := `"verb":"patch","user":{"username":"system:node:n","groups":["system:nodes"]},"sourceIPs":["10.0.0.1"],"objectRef":{"resource":"pods","subresource":"status","namespace":"shop","name":"web-1-a"},"responseStatus":{"code":200},"requestObject":{"metadata":{"uid":"p"},"status":{"hostIPs":[{"ip":"10.0.0.1"}],"podIPs":[{"ip":"10.0.0.7"},{"ip":"fd00::7"}]}}`
	return slices.Concat(rollout(), []string{
		execOnPod, status,
		fmt.Sprintf(token, 1, 7) + `"verb":"list","objectRef":{"resource":"secrets"}`,
		fmt.Sprintf(token, 1, 9) + `"verb":"list","objectRef":{"resource":"secrets"}`,
		fmt.Sprintf(token, 2, 7) + `"verb":"create","objectRef":{"resource":"serviceaccounts","subresource":"token","namespace":"a","name":"b"},"annotations":{"authentication.kubernetes.io/issued-credential-id":"JTI=3"}`,
		newPod + `"requestObject":{"spec":{"hostPID":true,"hostIPC":true,"nodeName":"n","tolerations":[{"key":"a"},{"operator":"Exists"}],"containers":[{"image":"b","securityContext":{"capabilities":{"add":["SYS_ADMIN","ALL"]}}},{"image":"r:5000/a"}]}}`,
		newPod + `"requestObject":{"spec":{"containers":[{"image":"c:1"}]}}`,
		patched + inResponse,
		`"verb":"get","user":{"username":"alice"},"objectRef":{"resource":"pods","namespace":"shop","name":"none"}`,
		`"user":{"username":"system:anonymous"}`,
	})
}

// said is all that an enriched event says of our own, by field, and what an alert
// has of it.
func said(en *enrichment.Enricher, e *event.Event) string {
	var b strings.Builder
	for _, f := range event.Fields(event.K8sAudit) {
		if strings.HasPrefix(f.Name, "kg.") {
			fmt.Fprintln(&b, f.Name, value(e, f.Name))
		}
	}
	if a := en.Attribute(e, make([]alert.Alert, 1))[0].Attribution; a != nil {
		fmt.Fprintf(&b, "%+v", *a)
	}
	return b.String()
}

// TestRelease: nothing of an event that was released is in a later one, and what
// an alert has of it stays.
func TestRelease(t *testing.T) {
	kept, released := enrichment.New(), enrichment.New()
	var first *alert.Attribution
	for round := range 3 {
		for _, request := range requests() {
			e := read(t, released, request)
			have, want := said(released, e), said(kept, read(t, kept, request))
			if have != want {
				t.Errorf("round %d, %s:\nhave %s\nwant %s", round, request, have, want)
			}
			if request == execOnPod && first == nil {
				first = released.Attribute(e, make([]alert.Alert, 1))[0].Attribution
			}
			before := e.Record
			if released.Release(e); e.Record == before {
				t.Error("the event has our record still")
			}
			released.Release(e) // has no effect
		}
	}
	if first == nil || strings.Join(first.Chain, " ") != "Pod/web-1-a ReplicaSet/web-1 Deployment/web" {
		t.Errorf("attribution %+v", first)
	}
}

// TestEnrichDoesNotAllocate: an event that tells nothing new costs no memory.
func TestEnrichDoesNotAllocate(t *testing.T) {
	en := enrichment.New()
	var fields []event.Ref
	for _, f := range event.Fields(event.K8sAudit) {
		if strings.HasPrefix(f.Name, "kg.") && f.Name != "kg.role.powers" {
			ref, err := event.Resolve(f, nil)
			if err != nil {
				t.Fatal(err)
			}
			fields = append(fields, ref)
		}
	}
	for _, request := range requests() {
		if strings.Contains(request, "issued-credential-id") || strings.Contains(request, "10.0.0.9") {
			continue // a token that is made, and an address that an alert would have
		}
		e := read(t, en, request)
		en.Release(e)
		// The race detector makes pools forget at random, and the memory of an event
		// grows; then some runs are free.
		least := 100.0
		for range 20 {
			least = min(least, testing.AllocsPerRun(1, func() {
				en.Enrich(e)
				for _, ref := range fields {
					e.Value(ref)
				}
				en.Release(e)
			}))
		}
		if least > 0 {
			t.Errorf("%v allocations for %s", least, request)
		}
	}
}
