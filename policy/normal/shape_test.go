package normal

import (
	"reflect"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
)

// TestShapes expects a plain Deployment not to need the converter, and one with
// a value of the wrong type to need it.
func TestShapes(t *testing.T) {
	deployment := func(replicas any) map[string]any {
		return map[string]any{"kind": "Deployment", "spec": map[string]any{"replicas": replicas, "template": map[string]any{"spec": map[string]any{
			"containers": []any{map[string]any{"name": "web", "resources": map[string]any{"limits": map[string]any{"cpu": "0.5"}}}},
		}}}}
	}
	if normalContent(reflect.TypeFor[appsv1.Deployment](), deployment(int64(3))) == nil {
		t.Error("a plain Deployment needs the converter")
	}
	if normalContent(reflect.TypeFor[appsv1.Deployment](), deployment("3")) != nil {
		t.Error("a text passes for a number")
	}
}
