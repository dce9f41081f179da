package admission

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// HeartbeatObject is the name of the ConfigMap that the heartbeat pretends to
// change. It is in the namespace of the webhook.
const HeartbeatObject = "heartbeat"

// nonceKey is the annotation of the probe that comes back in the answer.
const nonceKey = "kubeguardian.dev/heartbeat"

// ErrBlind says that the API server let the probe through without asking the
// webhook.
var ErrBlind = errors.New("the API server does not ask the webhook")

// A Heartbeat finds out whether the API server really asks the webhook. That the
// webhook is registered does not say so: a network policy, a proxy or a
// certificate may be in the way, and then requests pass by the failure policy. A
// probe goes the way of any request: a dry run of an update of one ConfigMap,
// for which there is a webhook of its own beside the others, with the same
// address and trust. The handler answers it with a warning that says what the
// probe said, so that the answer of another time does not count.
type Heartbeat struct {
	client    kubernetes.Interface
	namespace string
	replies   *replies
}

// NewHeartbeat returns the heartbeat for a webhook in a namespace.
func NewHeartbeat(config *rest.Config, namespace string) (*Heartbeat, error) {
	config = rest.CopyConfig(config)
	h := &Heartbeat{namespace: namespace, replies: &replies{}}
	config.WarningHandler, config.WarningHandlerWithContext = h.replies, nil
	var err error
	if h.client, err = kubernetes.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("make client of the admission heartbeat: %w", err)
	}
	return h, nil
}

// Beat sends one probe. It returns an error that wraps [ErrBlind] when the API
// server answered and the webhook was not asked; any other error leaves open
// whether it would have been. It must not be called by several goroutines at
// once.
func (h *Heartbeat) Beat(ctx context.Context) error {
	nonce := fmt.Sprint(time.Now().UnixNano())
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{nonceKey: nonce}}})
	if err != nil {
		return fmt.Errorf("encode admission heartbeat: %w", err)
	}
	h.replies.expect(nonce)
	_, err = h.client.CoreV1().ConfigMaps(h.namespace).Patch(ctx, HeartbeatObject, types.MergePatchType, patch, metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
	switch {
	case h.replies.came():
		return nil
	case apierrors.IsNotFound(err):
		return fmt.Errorf("send admission heartbeat: %w; apply the output of `kubeguardian setup rbac`", err)
	case err != nil:
		return fmt.Errorf("send admission heartbeat: %w", err)
	}
	return fmt.Errorf("send admission heartbeat: %w", ErrBlind)
}

// replies catches the warning that answers a probe.
type replies struct {
	mu    sync.Mutex
	nonce string
	found bool
}

func (r *replies) expect(nonce string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nonce, r.found = nonce, false
}

func (r *replies) came() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.found
}

// HandleWarningHeader implements [rest.WarningHandler].
func (r *replies) HandleWarningHeader(_ int, _ string, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.found = r.found || strings.HasSuffix(text, reply(r.nonce))
}

func reply(nonce string) string { return "[" + HeartbeatName + "] " + nonce }

// heartbeat returns the webhook that only the probe is sent to. It is fail-open:
// a probe that is refused would say no more.
func (r *Registration) heartbeat() admissionregistrationv1.ValidatingWebhook {
	rules := []admissionregistrationv1.RuleWithOperations{{
		Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Update},
		Rule: admissionregistrationv1.Rule{
			APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}, Scope: new(admissionregistrationv1.NamespacedScope),
		},
	}}
	w := r.validating(HeartbeatName, ValidatePath, rules, admissionregistrationv1.Ignore, nil)
	w.NamespaceSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{
		Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpIn, Values: []string{r.opts.Namespace},
	}}}
	w.MatchConditions = []admissionregistrationv1.MatchCondition{
		{Name: "only-the-probe", Expression: fmt.Sprintf(`request.name == %q && request.?dryRun.orValue(false)`, HeartbeatObject)},
	}
	return w
}

// heartbeat answers a probe, and returns nil for any other review. It is the
// business of nobody else: it is neither judged nor recorded.
func (h *handler) heartbeat(r *review) *admissionv1.AdmissionResponse {
	q := r.Request
	if q.Resource.Resource != "configmaps" || q.Resource.Group != "" || q.Namespace != h.Namespace || q.Name != HeartbeatObject || !q.DryRun || q.Object == nil || r.unreadable != "" {
		return nil
	}
	nonce := object(q.Object).GetAnnotations()[nonceKey]
	return &admissionv1.AdmissionResponse{Allowed: true, Warnings: []string{cut(reply(nonce), maxWarningBytes)}}
}
