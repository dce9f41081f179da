package admission

import (
	"context"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// PublishedKey is where [Publish] writes.
const PublishedKey = "ca.crt"

// Publish writes certificates of authorities, in PEM, into a ConfigMap that is
// there already, for who is to trust them.
func Publish(ctx context.Context, client kubernetes.Interface, namespace, name string, authorities []byte) error {
	patch, err := json.Marshal(map[string]any{"data": map[string]string{PublishedKey: string(authorities)}})
	if err != nil {
		return err
	}
	if _, err := client.CoreV1().ConfigMaps(namespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("write the authority into ConfigMap %s/%s: %w", namespace, name, err)
	}
	return nil
}
