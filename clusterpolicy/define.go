package clusterpolicy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubeguardian/kubeguardian/policy/gatekeeper"
)

// An acceptance is what the API server made of a definition that was written.
type acceptance struct {
	written    []byte
	generation int64
}

// define makes the definitions of constraints those of the templates in force, and
// removes those whose template is gone.
func (w *writer) define(ctx context.Context, next work) error {
	var errs []error
	for name, template := range next.templates {
		if err := w.defineOne(ctx, template, next.crds[name]); err != nil {
			errs = append(errs, fmt.Errorf("define the constraints of template %q: %w", template.GetName(), err))
		}
	}
	for name, crd := range next.crds {
		if next.templates[name] == nil && next.known && ours(crd) && crd.GetLabels()[gatekeeper.ConstraintLabel] == "yes" {
			errs = append(errs, w.undefine(ctx, crd, next))
		}
	}
	return joined(errs)
}

func (w *writer) defineOne(ctx context.Context, template, have *unstructured.Unstructured) error {
	want, err := gatekeeper.Definition(template)
	if err != nil {
		return err
	}
	written, err := json.Marshal(want)
	if err != nil {
		return err
	}
	api := w.client.Resource(definitions.GroupVersionResource)
	if have == nil {
		object, err := asObject(want)
		if err != nil {
			return err
		}
		made, err := api.Create(ctx, object, metav1.CreateOptions{})
		if err == nil {
			w.accepted[want.Name] = acceptance{written, made.GetGeneration()}
			w.log.Info("defined the constraints of a template", "template", template.GetName())
		}
		return err
	}
	if last := w.accepted[want.Name]; bytes.Equal(last.written, written) && last.generation == have.GetGeneration() {
		return nil
	}
	changed, err := redefine(have, want)
	if err != nil || changed == nil {
		return err
	}
	made, err := api.Update(ctx, changed, metav1.UpdateOptions{})
	if err == nil {
		w.accepted[want.Name] = acceptance{written, made.GetGeneration()}
		w.log.Info("changed the definition of the constraints of a template", "template", template.GetName())
	}
	return err
}

// redefine returns a definition as it should be, and nil when it is.
func redefine(have *unstructured.Unstructured, want *apiextensionsv1.CustomResourceDefinition) (*unstructured.Unstructured, error) {
	now := &apiextensionsv1.CustomResourceDefinition{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(have.Object, now); err != nil {
		return nil, err
	}
	next := now.DeepCopy()
	if next.Labels == nil {
		next.Labels = map[string]string{}
	}
	maps.Copy(next.Labels, want.Labels)
	next.OwnerReferences, next.Spec = want.OwnerReferences, *want.Spec.DeepCopy()
	for _, spec := range []*apiextensionsv1.CustomResourceDefinitionSpec{&now.Spec, &next.Spec} {
		apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(spec)
	}
	if equality.Semantic.DeepEqual(now.Labels, next.Labels) && equality.Semantic.DeepEqual(now.OwnerReferences, next.OwnerReferences) && equality.Semantic.DeepEqual(now.Spec, next.Spec) {
		return nil, nil
	}
	return asObject(next)
}

func asObject(crd *apiextensionsv1.CustomResourceDefinition) (*unstructured.Unstructured, error) {
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(crd)
	if err != nil {
		return nil, err
	}
	u := &unstructured.Unstructured{Object: object}
	u.SetGroupVersionKind(definitions.groupVersionKind())
	return u, nil
}

// undefine removes the definition of constraints whose template is gone, and with
// it the constraints. It asks the API server once more, because what we know of
// templates may be old. A template with a mistake is not gone.
func (w *writer) undefine(ctx context.Context, crd *unstructured.Unstructured, next work) error {
	for _, o := range next.objects {
		if o.Group != templateGroup {
			continue
		}
		if o.Name+"."+constraintGroup == crd.GetName() {
			return nil
		}
	}
	owners := crd.GetOwnerReferences()
	if len(owners) != 1 || owners[0].Kind != "ConstraintTemplate" || crd.GetDeletionTimestamp() != nil {
		return nil
	}
	templates := definitions.GroupVersionResource
	templates.Group, templates.Resource = templateGroup, "constrainttemplates"
	if _, err := w.client.Resource(templates).Get(ctx, owners[0].Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		return err
	}
	err := w.client.Resource(definitions.GroupVersionResource).Delete(ctx, crd.GetName(), metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: new(crd.GetUID()), ResourceVersion: new(crd.GetResourceVersion())},
	})
	if err != nil {
		return fmt.Errorf("remove the definition %s, whose template is gone: %w", crd.GetName(), err)
	}
	delete(w.accepted, crd.GetName())
	w.log.Info("removed the definition of the constraints of a template that is gone", "definition", crd.GetName())
	return nil
}
