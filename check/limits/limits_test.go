package limits_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/check/limits"
	"github.com/kubeguardian/kubeguardian/inventory"
)

func TestDefaults(t *testing.T) {
	tests := []struct {
		name, limit, namespace string
		memory, cpu, storage   bool
	}{
		{"default limits", "{type: Container, default: {memory: 1Gi, cpu: 1}}", "shop", true, true, false},
		{"default requests", "{type: Container, defaultRequest: {memory: 1Gi, cpu: 1}}", "shop", false, true, false},
		{"one resource", "{type: Container, default: {memory: 1Gi}}", "shop", true, false, false},
		{"default storage", "{type: Container, default: {ephemeral-storage: 1Gi}}", "shop", false, false, true},
		{"storage request", "{type: Container, defaultRequest: {ephemeral-storage: 1Gi}}", "shop", false, false, false},
		{"bounds are no default", "{type: Container, max: {memory: 1Gi, cpu: 1}}", "shop", false, false, false},
		{"of pods", "{type: Pod, max: {memory: 1Gi}}", "shop", false, false, false},
		{"of another namespace", "{type: Container, default: {memory: 1Gi, cpu: 1}}", "other", false, false, false},
		{"nothing", "", "shop", false, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := fmt.Sprintf("{apiVersion: v1, kind: LimitRange, metadata: {name: l, namespace: %s}, spec: {limits: [%s]}}", tt.namespace, tt.limit)
			inv, err := inventory.FromFiles(context.Background(), []string{"-"}, strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			if got := limits.Memory(inv, "shop") != nil; got != tt.memory {
				t.Errorf("memory %v, want %v", got, tt.memory)
			}
			if got := limits.CPU(inv, "shop") != nil; got != tt.cpu {
				t.Errorf("cpu %v, want %v", got, tt.cpu)
			}
			if got := limits.EphemeralStorage(inv, "shop") != nil; got != tt.storage {
				t.Errorf("ephemeral storage %v, want %v", got, tt.storage)
			}
		})
	}
}
