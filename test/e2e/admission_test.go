package e2e

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TestReplicas is one story of two replicas on one API server.
func TestReplicas(t *testing.T) {
	d := deploy(t)
	t.Run("nothing is lost by restarts and rotations", d.testRollingRestart)
	t.Run("policies of all kinds", d.testKinds)
	t.Run("policies of the cluster", d.testClusterPolicies)
	t.Run("break-glass", d.testBreakGlass)
	t.Run("ways around", d.testBypass)
	t.Run("a webhook that is not reached is noticed", d.testBlind)
	t.Run("cluster works while all are down", d.testAllDown)
	t.Run("mutation", d.testMutation)
}

// A load creates ConfigMaps at a rate: one in four is to be denied, the others
// are admitted with a warning, which shows that they were judged.
type load struct {
	d       *deployment
	created atomic.Int64

	mu    sync.Mutex
	wrong []string
}

func (l *load) complain(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = append(l.wrong, fmt.Sprintf(format, args...))
}

// run creates until ctx ends, and waits for the answers.
func (l *load) run(ctx context.Context, perSecond int) {
	client := l.d.heard()
	names := make(chan int, perSecond)
	var group sync.WaitGroup
	for range 64 {
		group.Go(func() {
			for i := range names {
				bad := i%4 == 0
				object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("load-", i)}, Data: map[string]string{"bad": fmt.Sprint(bad)}}
				heard, warnings := listen(context.WithoutCancel(ctx))
				_, err := client.CoreV1().ConfigMaps("default").Create(heard, object, metav1.CreateOptions{})
				switch judged := strings.Contains(strings.Join(warnings.texts, "\n"), "[judged] this was judged"); {
				case bad && (err == nil || !strings.Contains(err.Error(), "[bad-data]")):
					l.complain("%d: %v, want a denial", i, err)
				case !bad && (err != nil || !judged):
					l.complain("%d: %v, warnings %q, want a verdict", i, err, warnings.texts)
				}
				l.created.Add(1)
			}
		})
	}
	start, sent := time.Now(), 0
	for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
		for due := int(time.Since(start).Seconds() * float64(perSecond)); sent < due && ctx.Err() == nil; sent++ {
			names <- sent
		}
	}
	close(names)
	group.Wait()
}

// testRollingRestart restarts both replicas one after the other and rotates the
// authority twice, under 200 creates a second, and expects a verdict for each.
func (d *deployment) testRollingRestart(t *testing.T) {
	l := &load{d: d}
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	start := time.Now()
	group.Go(func() { l.run(ctx, 200) })
	rotate := func(want int) {
		d.run(t, nil, d.bin("kubeguardian"), "setup", "rotate", "--config", d.replicas[0].config)
		for deadline := time.Now().Add(2 * time.Minute); d.generations(t) != want; time.Sleep(100 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Errorf("the registration trusts %d generations, want %d", d.generations(t), want)
				return
			}
		}
	}
	rotate(2)
	for _, r := range d.replicas {
		r.stop(t)
		d.service.await(t, 1)
		r.start(t)
		d.service.await(t, 2)
	}
	rotate(3)
	stop()
	group.Wait()
	took := time.Since(start)
	t.Logf("%d creates in %s, %.0f a second, %d wrong", l.created.Load(), took.Round(time.Millisecond), float64(l.created.Load())/took.Seconds(), len(l.wrong))
	for _, text := range l.wrong[:min(len(l.wrong), 10)] {
		t.Error(text)
	}
	for _, r := range d.replicas {
		metrics, err := r.get("/metrics")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(metrics) {
			if strings.HasPrefix(line, "kubeguardian_admission_unjudged_total") && !strings.HasSuffix(line, " 0\n") {
				t.Errorf("%s: %s", r.name, line)
			}
		}
	}
}

// generations returns how many authorities the API server trusts.
func (d *deployment) generations(t *testing.T) int {
	t.Helper()
	config, err := d.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(t.Context(), "kubeguardian", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(config.Webhooks[0].ClientConfig.CABundle, []byte("BEGIN CERTIFICATE"))
}

// tryBad creates what is to be denied, as a dry run, until the answer is as
// wanted.
func (d *deployment) tryBad(t *testing.T, want bool) (warned []string) {
	t.Helper()
	client := d.heard()
	bad := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "bad"}, Data: map[string]string{"bad": "true"}}
	var err error
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		ctx, warnings := listen(t.Context())
		_, err = client.CoreV1().ConfigMaps("default").Create(ctx, bad, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if (err == nil) == want {
			return warnings.texts
		}
	}
	t.Fatalf("create = %v, want it admitted: %v", err, want)
	return nil
}

func (d *deployment) testBreakGlass(t *testing.T) {
	patch := func(until string) {
		t.Helper()
		text := fmt.Sprintf(`{"data":{"until":%q,"reason":"INC-1: rehearsal"}}`, until)
		if _, err := d.client.CoreV1().ConfigMaps("kubeguardian").Patch(t.Context(), "break-glass", types.MergePatchType, []byte(text), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	patch(time.Now().Add(20 * time.Second).UTC().Format(time.RFC3339))
	if warned := strings.Join(d.tryBad(t, true), "\n"); !strings.Contains(warned, "[bad-data] break-glass until") {
		t.Errorf("warnings = %s", warned)
	}
	used := d.replicas[0].awaitAlert(t, "Admission break-glass used")
	if !strings.Contains(used.Output, "INC-1: rehearsal") {
		t.Errorf("alert = %+v", used)
	}
	d.tryBad(t, false) // it ended by itself
	d.replicas[0].awaitAlert(t, "Admission break-glass ended")
	patch("")
}

// testBlind cuts the way from the API server to the replicas.
func (d *deployment) testBlind(t *testing.T) {
	d.service.cut.Store(true)
	d.service.hangUp()
	blind := d.replicas[0].awaitAlert(t, "Admission is blind")
	t.Logf("%s: %s", blind.Priority, blind.Output)
	if health, err := d.replicas[0].get("/api/v1/health"); err != nil || !strings.Contains(health, "Admission is blind since") {
		t.Errorf("health = %s, %v", health, err)
	}
	d.service.cut.Store(false)
	d.replicas[0].awaitAlert(t, "Admission is no longer blind")
	d.tryBad(t, false)
}

// testAllDown leaves no replica running.
func (d *deployment) testAllDown(t *testing.T) {
	for _, r := range d.replicas {
		r.stop(t)
	}
	for _, namespace := range []string{"default", "kube-system"} {
		if _, err := d.client.CoreV1().Pods(namespace).Create(t.Context(), pod(namespace, "while-down", true), metav1.CreateOptions{}); err != nil {
			t.Errorf("create in %s: %v", namespace, err)
		}
	}
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "closed"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
	if _, err := d.client.CoreV1().Services("default").Create(t.Context(), service, metav1.CreateOptions{}); !apierrors.IsInternalError(err) || !strings.Contains(err.Error(), "closed.kubeguardian.dev") {
		t.Errorf("create of what fails closed = %v, want that the webhook was not reached", err)
	}
	if _, err := d.client.CoreV1().Services("kube-system").Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
		t.Errorf("create in kube-system of what fails closed: %v", err)
	}
	d.run(t, nil, d.bin("kubeguardian"), "uninstall", "--config", d.replicas[0].config)
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		_, err := d.client.CoreV1().Services("default").Create(t.Context(), service, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("create after uninstall: %v", err)
		}
	}
}
