package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kubeguardian/kubeguardian/admission"
)

// uninstallMark is the ConfigMap in the server's namespace by which servers know
// that they are going to be removed, and that the webhook goes first. A server
// that has seen it never registers the webhook again.
const uninstallMark = "uninstall"

// errUninstalled is why the webhook is not registered any more.
var errUninstalled = errors.New("the server is being uninstalled")

// Uninstall removes the webhook registration from a cluster. With the ConfigMap
// "uninstall" in the server's namespace servers do not register it again: it then
// returns once the registration has stayed away, and reports that it is gone for
// good.
func Uninstall(ctx context.Context, opts Options) (forGood bool, err error) {
	client, err := kubernetes.NewForConfig(opts.Cluster)
	if err != nil {
		return false, fmt.Errorf("connect to cluster: %w", err)
	}
	if forGood, err = marked(ctx, client, ownNamespace(opts.Config)); err != nil {
		return false, err
	}
	removed, err := admission.Unregister(ctx, client, opts.Log)
	for away := 0; err == nil && forGood && away < 2; {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(registrationCheck + time.Second): // a server that ran has looked meanwhile
		}
		if away++; removed {
			away = 1
		}
		removed, err = admission.Unregister(ctx, client, opts.Log)
	}
	return forGood, err
}

// marked reports whether servers are to be removed.
func marked(ctx context.Context, client kubernetes.Interface, namespace string) (bool, error) {
	_, err := client.CoreV1().ConfigMaps(namespace).Get(ctx, uninstallMark, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return false, fmt.Errorf("read ConfigMap %s/%s: %w", namespace, uninstallMark, err)
	}
	return err == nil, nil
}

// uninstalled reports whether the server is to be removed, and remembers it: the
// mark goes before the server does. Where that cannot be read it stays.
func (s *Server) uninstalled(ctx context.Context) bool {
	if s.removing.Load() {
		return true
	}
	found, err := marked(ctx, s.client, ownNamespace(s.cfg))
	if err != nil || !found {
		return false
	}
	s.log.Info("being uninstalled: the webhook is removed and not registered again")
	s.removing.Store(true)
	return true
}
