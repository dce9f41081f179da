package oracle

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/open-policy-agent/gatekeeper/v3/apis/mutations/unversioned"
	"github.com/open-policy-agent/gatekeeper/v3/pkg/mutation"
	"github.com/open-policy-agent/gatekeeper/v3/pkg/mutation/match"
	"github.com/open-policy-agent/gatekeeper/v3/pkg/mutation/mutators"
	mutationtypes "github.com/open-policy-agent/gatekeeper/v3/pkg/mutation/types"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kjson "sigs.k8s.io/json"
)

// A Mutation is mutators, each in JSON, and requests for them; both sides read
// the same.
type Mutation struct {
	Mutators   []string          `json:"mutators"`
	Namespaces []json.RawMessage `json:"namespaces"`
	Requests   []json.RawMessage `json:"requests"`
	Outer
}

// Mutated says what became of a Mutation, in the same order. Mutators that are
// refused are left out of what the requests go through.
type Mutated struct {
	Refused   []string        `json:"refused"` // an error or "" for each mutator
	Conflicts int             `json:"conflicts"`
	Objects   []MutatedObject `json:"objects"`
}

// A MutatedObject is what became of the object of one request.
type MutatedObject struct {
	Object any    `json:"object"`
	Error  string `json:"error"`
}

// Mutate applies mutators by Gatekeeper's own system, as its webhook does.
func Mutate(m Mutation) (Mutated, error) {
	var out Mutated
	providers, err := m.read()
	if err != nil {
		return Mutated{}, err
	}
	system := mutation.NewSystem(mutation.SystemOpts{ProviderCache: providers, ClientCertWatcher: m.certificate})
	var ids []mutationtypes.ID
	for _, text := range m.Mutators {
		one, err := newMutator([]byte(text))
		if err != nil {
			out.Refused = append(out.Refused, err.Error())
			continue
		}
		out.Refused = append(out.Refused, "")
		_ = system.Upsert(one) // the error is that of a conflict, see below
		ids = append(ids, one.ID())
	}
	for _, id := range ids {
		if system.GetConflicts(id)[id] {
			out.Conflicts++
		}
	}
	namespaces := map[string]*corev1.Namespace{}
	for _, raw := range m.Namespaces {
		var ns corev1.Namespace
		if err := json.Unmarshal(raw, &ns); err != nil {
			return Mutated{}, err
		}
		namespaces[ns.Name] = &ns
	}
	for _, raw := range m.Requests {
		object, err := mutateOne(system, namespaces, raw)
		if err != nil {
			out.Objects = append(out.Objects, MutatedObject{Error: err.Error()})
			continue
		}
		out.Objects = append(out.Objects, MutatedObject{Object: object})
	}
	return out, nil
}

// newMutator reads a mutator as a watch on the API server does, whose schemas
// have one default.
func newMutator(text []byte) (mutationtypes.Mutator, error) {
	var kind metav1.TypeMeta
	if err := json.Unmarshal(text, &kind); err != nil {
		return nil, err
	}
	switch kind.Kind {
	case "Assign":
		return decoded(text, mutators.MutatorForAssign)
	case "AssignMetadata":
		return decoded(text, mutators.MutatorForAssignMetadata)
	case "AssignImage":
		return decoded(text, mutators.MutatorForAssignImage)
	case "ModifySet":
		var m unversioned.ModifySet
		if err := kjson.UnmarshalCaseSensitivePreserveInts(text, &m); err != nil {
			return nil, err
		}
		if m.Spec.Parameters.Operation == "" {
			m.Spec.Parameters.Operation = unversioned.MergeOp
		}
		return mutators.MutatorForModifySet(&m)
	}
	return nil, fmt.Errorf("%s is no mutator", kind.Kind)
}

func decoded[T any, M mutationtypes.Mutator](text []byte, make func(*T) (M, error)) (mutationtypes.Mutator, error) {
	var value T
	if err := kjson.UnmarshalCaseSensitivePreserveInts(text, &value); err != nil {
		return nil, err
	}
	return make(&value)
}

func mutateOne(system *mutation.System, namespaces map[string]*corev1.Namespace, raw []byte) (any, error) {
	var req admissionv1.AdmissionRequest
	if err := json.Unmarshal(raw, &req); err != nil {
		return nil, err
	}
	if len(req.Object.Raw) == 0 || !match.IsSupportedMutationOperation(req.Operation) {
		return plain(req.Object.Raw)
	}
	ns := namespaces[req.Namespace]
	if req.Kind.Group == "" && req.Kind.Kind == "Namespace" {
		req.Namespace, ns = "", &corev1.Namespace{}
		if err := json.Unmarshal(req.Object.Raw, ns); err != nil {
			return nil, err
		}
	}
	var o unstructured.Unstructured
	if err := o.UnmarshalJSON(req.Object.Raw); err != nil {
		return nil, err
	}
	own := o.GetNamespace()
	o.SetNamespace(req.Namespace)
	_, err := system.Mutate(context.Background(), &mutationtypes.Mutable{
		Object: &o, Namespace: ns, Username: req.UserInfo.Username,
		Source: mutationtypes.SourceTypeOriginal, Operation: req.Operation,
	})
	if err != nil {
		return nil, err
	}
	o.SetNamespace(own)
	data, err := json.Marshal(o.Object)
	if err != nil {
		return nil, err
	}
	return plain(data)
}

// plain reads JSON with all numbers as floating point.
func plain(data []byte) (v any, err error) {
	if len(data) > 0 {
		err = json.Unmarshal(data, &v)
	}
	return v, err
}
