package inventory

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// templates reads pod templates into their Go type: those of an object that is
// the same value in memory as in the last inventory once, and what they have in
// common with others as one.
type templates struct {
	read       map[*unstructured.Unstructured]*corev1.PodTemplateSpec // in the last inventory
	pods       recent[*corev1.PodTemplateSpec]
	containers recent[*corev1.Container]
}

// maxTemplates bounds a generation of parts, each of which takes a kilobyte.
const maxTemplates = 512

func newTemplates() *templates {
	t := &templates{}
	t.pods.most, t.containers.most = maxTemplates, maxTemplates
	return t
}

// of returns the template of an object, or nil if its kind has none.
func (t *templates) of(o *Object) (*corev1.PodTemplateSpec, error) {
	if known := t.read[o.Unstructured]; known != nil {
		return known, nil
	}
	template, err := podTemplate(o)
	if template == nil || err != nil {
		return nil, err
	}
	shareParts(&t.pods, template, podParts)
	for _, containers := range [][]corev1.Container{template.Spec.InitContainers, template.Spec.Containers} {
		for i := range containers {
			shareParts(&t.containers, &containers[i], containerParts)
		}
	}
	return template, nil
}

func podTemplate(o *Object) (*corev1.PodTemplateSpec, error) {
	path, ok := templatePath[o.GroupVersionKind().GroupKind()]
	if !ok {
		return nil, nil
	}
	template := &corev1.PodTemplateSpec{}
	value, _, err := unstructured.NestedFieldNoCopy(o.Object, path...)
	if err != nil || value == nil {
		return template, err
	}
	content, ok := value.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s is not a mapping", strings.Join(path, "."))
	}
	return template, runtime.DefaultUnstructuredConverter.FromUnstructured(content, template)
}

// podParts and containerParts take from one to another what many have alike.
var (
	podParts = []func(to, from *corev1.PodTemplateSpec){
		func(to, from *corev1.PodTemplateSpec) { to.Labels = from.Labels },
		func(to, from *corev1.PodTemplateSpec) { to.Annotations = from.Annotations },
		func(to, from *corev1.PodTemplateSpec) { to.Spec.SecurityContext = from.Spec.SecurityContext },
		func(to, from *corev1.PodTemplateSpec) { to.Spec.Volumes = from.Spec.Volumes },
		func(to, from *corev1.PodTemplateSpec) { to.Spec.Affinity = from.Spec.Affinity },
		func(to, from *corev1.PodTemplateSpec) {
			to.Spec.Tolerations, to.Spec.NodeSelector = from.Spec.Tolerations, from.Spec.NodeSelector
			to.Spec.TopologySpreadConstraints = from.Spec.TopologySpreadConstraints
			to.Spec.ImagePullSecrets = from.Spec.ImagePullSecrets
			to.Spec.TerminationGracePeriodSeconds, to.Spec.AutomountServiceAccountToken = from.Spec.TerminationGracePeriodSeconds, from.Spec.AutomountServiceAccountToken
		},
	}
	containerParts = []func(to, from *corev1.Container){
		func(to, from *corev1.Container) { to.Command, to.Args = from.Command, from.Args },
		func(to, from *corev1.Container) { to.Env, to.EnvFrom = from.Env, from.EnvFrom },
		func(to, from *corev1.Container) { to.Ports = from.Ports },
		func(to, from *corev1.Container) { to.Resources = from.Resources },
		func(to, from *corev1.Container) { to.VolumeMounts = from.VolumeMounts },
		func(to, from *corev1.Container) { to.SecurityContext = from.SecurityContext },
		func(to, from *corev1.Container) {
			to.LivenessProbe, to.ReadinessProbe, to.StartupProbe, to.Lifecycle = from.LivenessProbe, from.ReadinessProbe, from.StartupProbe, from.Lifecycle
		},
	}
)

// A message is a pointer to a type that can be written as protobuf.
type message[T any] interface {
	*T
	Marshal() ([]byte, error)
}

// shareParts replaces the parts of v by equal ones that came before.
func shareParts[T any, M message[T]](known *recent[M], v M, parts []func(to, from M)) {
	for i, take := range parts {
		part := M(new(T))
		take(part, v)
		text, err := part.Marshal()
		if err != nil || len(text) > maxPooledText {
			continue
		}
		key := append(text, byte(i))
		if before, ok := known.get(key); ok {
			take(v, before)
		} else {
			known.put(string(key), part)
		}
	}
}
