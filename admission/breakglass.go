package admission

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kubeguardian/kubeguardian/finding"
)

// BreakGlassObject is the name of the ConfigMap, in the namespace of the
// webhook, by which people switch enforcement off for a time. Who may write it
// is a matter of RBAC.
const BreakGlassObject = "break-glass"

// Keys of its data.
const (
	untilKey  = "until"  // RFC 3339
	reasonKey = "reason" // for whoever reads the alert
)

// maxRelaxation bounds how long enforcement stays off after the ConfigMap was
// written, so that nobody forgets it.
const maxRelaxation = 4 * time.Hour

// A Relaxation is the time in which denials only warn and nothing is changed.
// The zero value is none.
type Relaxation struct {
	Until  time.Time
	Reason string
}

// ParseRelaxation reads the ConfigMap. Without until there is none. It ends at
// most four hours after the last write, whatever until says.
func ParseRelaxation(config *corev1.ConfigMap) (Relaxation, error) {
	text := strings.TrimSpace(config.Data[untilKey])
	if text == "" {
		return Relaxation{}, nil
	}
	until, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return Relaxation{}, fmt.Errorf("read ConfigMap %s/%s: data.until: want a time such as 2006-01-02T15:04:05Z, have %q", config.Namespace, config.Name, cut(text, maxWarningBytes))
	}
	reason := cut(strings.Join(strings.Fields(config.Data[reasonKey]), " "), maxWarningBytes)
	if reason == "" {
		return Relaxation{}, fmt.Errorf("read ConfigMap %s/%s: data.reason is missing: say why enforcement is switched off", config.Namespace, config.Name)
	}
	if last := written(config).Add(maxRelaxation); until.After(last) {
		until = last
	}
	return Relaxation{until.UTC(), reason}, nil
}

// written returns when an object was last written, as the API server noted.
func written(config *corev1.ConfigMap) time.Time {
	last := config.CreationTimestamp.Time
	for _, f := range config.ManagedFields {
		if f.Time != nil && f.Time.After(last) {
			last = f.Time.Time
		}
	}
	return last
}

// A BreakGlass follows the ConfigMap. It is safe for concurrent use.
type BreakGlass struct {
	client    kubernetes.Interface
	namespace string
	now       func() time.Time

	mu      sync.RWMutex
	current Relaxation
}

// NewBreakGlass returns the break-glass of a webhook in a namespace.
func NewBreakGlass(client kubernetes.Interface, namespace string) *BreakGlass {
	return &BreakGlass{client: client, namespace: namespace, now: time.Now}
}

// Check reads the ConfigMap. When it cannot be read, what was known before
// stays, and ends by itself.
func (b *BreakGlass) Check(ctx context.Context) error {
	config, err := b.client.CoreV1().ConfigMaps(b.namespace).Get(ctx, BreakGlassObject, metav1.GetOptions{})
	var next Relaxation
	switch {
	case apierrors.IsNotFound(err):
	case err != nil:
		return fmt.Errorf("read ConfigMap %s/%s: %w", b.namespace, BreakGlassObject, err)
	default:
		if next, err = ParseRelaxation(config); err != nil {
			next = Relaxation{} // enforced: it was not said for how long, or why, it should not be
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.current = next
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// Active returns the relaxation that is in force now, if there is one.
func (b *BreakGlass) Active() (Relaxation, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.current, b.now().Before(b.current.Until)
}

// relaxed returns what is in force for a review.
func (h *handler) relaxed() (Relaxation, bool) {
	if h.BreakGlass == nil {
		return Relaxation{}, false
	}
	return h.BreakGlass.Active()
}

// relax turns the denials of a decision into warnings that say so.
func (h *handler) relax(d *finding.Decision, relaxation Relaxation) {
	for i, v := range d.Violations {
		if denies(v) {
			d.Violations[i].Enforcement = "warn"
			d.Violations[i].Message = fmt.Sprintf("break-glass until %s, else denied: %s", relaxation.Until.Format(time.RFC3339), v.Message)
		}
	}
	h.Log.Warn("denial not enforced: break-glass", "subject", d.Subject.String(), "user", d.User, "until", relaxation.Until, "reason", relaxation.Reason)
}
