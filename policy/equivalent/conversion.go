package equivalent

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// autoscalerConditions is where autoscaling/v1 keeps the conditions of the status.
const autoscalerConditions = "autoscaling.alpha.kubernetes.io/conditions"

// autoscalerIntoV2 writes a HorizontalPodAutoscaler as autoscaling/v2 has it. In
// v1 what it has not got is kept in annotations; all but the conditions are left
// to the API server.
func autoscalerIntoV2(object map[string]any, from schema.GroupVersion) error {
	switch from.Version {
	case "v2beta2": // the same fields
		return nil
	case "v1":
	default:
		return errors.New("only the API server does it")
	}
	status, _ := object["status"].(map[string]any)
	u := unstructured.Unstructured{Object: object}
	annotations := u.GetAnnotations()
	for key, text := range annotations {
		switch {
		case key == autoscalerConditions:
			var conditions []any
			if err := json.Unmarshal([]byte(text), &conditions); err != nil {
				return fmt.Errorf("read the annotation %s: %w", key, err)
			}
			if status == nil {
				status = map[string]any{}
				object["status"] = status
			}
			status["conditions"] = conditions
		case strings.HasPrefix(key, "autoscaling.alpha.kubernetes.io/"):
			return fmt.Errorf("only the API server reads the annotation %s", key)
		}
	}
	if _, ok := annotations[autoscalerConditions]; ok {
		delete(annotations, autoscalerConditions)
		u.SetAnnotations(annotations)
	}
	spec, _ := object["spec"].(map[string]any)
	if percent, ok := spec["targetCPUUtilizationPercentage"]; ok {
		delete(spec, "targetCPUUtilizationPercentage")
		spec["metrics"] = []any{cpuMetric("target", map[string]any{"type": "Utilization", "averageUtilization": percent})}
	}
	if percent, ok := status["currentCPUUtilizationPercentage"]; ok {
		delete(status, "currentCPUUtilizationPercentage")
		status["currentMetrics"] = []any{cpuMetric("current", map[string]any{"averageUtilization": percent})}
	}
	return nil
}

func cpuMetric(field string, value map[string]any) map[string]any {
	return map[string]any{"type": "Resource", "resource": map[string]any{"name": "cpu", field: value}}
}

// ingressIntoV1 writes an Ingress as networking.k8s.io/v1 has it.
func ingressIntoV1(object map[string]any, _ schema.GroupVersion) error {
	spec, _ := object["spec"].(map[string]any)
	if spec == nil {
		return nil
	}
	if backend, ok := spec["backend"].(map[string]any); ok {
		delete(spec, "backend")
		spec["defaultBackend"] = ingressBackend(backend)
	}
	rules, _ := spec["rules"].([]any)
	for _, rule := range rules {
		rule, _ := rule.(map[string]any)
		http, _ := rule["http"].(map[string]any)
		paths, _ := http["paths"].([]any)
		for _, path := range paths {
			path, _ := path.(map[string]any)
			if backend, ok := path["backend"].(map[string]any); ok {
				path["backend"] = ingressBackend(backend)
			}
			if _, ok := path["pathType"]; !ok && path != nil {
				path["pathType"] = "ImplementationSpecific" // the default before v1
			}
		}
	}
	return nil
}

func ingressBackend(old map[string]any) map[string]any {
	out := map[string]any{}
	if resource, ok := old["resource"]; ok {
		out["resource"] = resource
	}
	if name, _ := old["serviceName"].(string); name != "" {
		port := map[string]any{}
		switch value := old["servicePort"].(type) {
		case string:
			port["name"] = value
		case int64, float64:
			port["number"] = value
		}
		out["service"] = map[string]any{"name": name, "port": port}
	}
	return out
}
