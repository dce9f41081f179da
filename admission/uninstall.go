package admission

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// uninstallMark is the ConfigMap in the server's namespace by which servers know
// that they are going to be removed, and that the webhook goes first.
const uninstallMark = "uninstall"

// ErrUninstalled is why the webhook is not registered any more.
var ErrUninstalled = errors.New("the server is being uninstalled")

// Uninstalled reports whether the servers in a namespace are going to be removed:
// whoever has seen it once must not register the webhook again, because the mark
// goes before the server does.
func Uninstalled(ctx context.Context, client kubernetes.Interface, namespace string) (bool, error) {
	_, err := client.CoreV1().ConfigMaps(namespace).Get(ctx, uninstallMark, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return false, fmt.Errorf("read ConfigMap %s/%s: %w", namespace, uninstallMark, err)
	}
	return err == nil, nil
}

// Uninstall removes the registration from a cluster. Where the servers in the
// namespace are marked as [Uninstalled] it returns once the registration has
// stayed away while each of them checked it twice, and reports that it is gone
// for good.
func Uninstall(ctx context.Context, client kubernetes.Interface, namespace string, check time.Duration, log *slog.Logger) (forGood bool, err error) {
	if forGood, err = Uninstalled(ctx, client, namespace); err != nil {
		return false, err
	}
	removed, err := Unregister(ctx, client, log)
	for away := 0; err == nil && forGood && away < 2; {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(check + time.Second):
		}
		if away++; removed {
			away = 1
		}
		removed, err = Unregister(ctx, client, log)
	}
	return forGood, err
}
