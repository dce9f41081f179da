package oracle

import (
	"encoding/json"

	"github.com/open-policy-agent/frameworks/constraint/pkg/apis/externaldata/unversioned"
	"github.com/open-policy-agent/frameworks/constraint/pkg/externaldata"
	"github.com/open-policy-agent/gatekeeper/v3/pkg/mutation"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
)

// An Outer says who is asked for external data; both sides read the same.
type Outer struct {
	Providers string `json:"providers"` // YAML documents
	CertFile  string `json:"certFile"`  // of the client
	KeyFile   string `json:"keyFile"`

	certificate *certwatcher.CertWatcher // of the files; one for a test, as it watches them
}

// read returns the providers.
func (o *Outer) read() (*externaldata.ProviderCache, error) {
	cache := externaldata.NewCache()
	objects, err := documents(o.Providers)
	if err != nil {
		return nil, err
	}
	for _, object := range objects {
		data, err := object.MarshalJSON()
		if err != nil {
			return nil, err
		}
		var p unversioned.Provider
		if err := json.Unmarshal(data, &p); err != nil {
			return nil, err
		}
		if err := cache.Upsert(&p); err != nil {
			return nil, err
		}
	}
	return cache, nil
}

// newSystem returns Gatekeeper's own system with mutators, YAML documents.
func newSystem(text string, opts mutation.SystemOpts) (*mutation.System, error) {
	system := mutation.NewSystem(opts)
	objects, err := documents(text)
	if err != nil {
		return nil, err
	}
	for _, object := range objects {
		data, err := object.MarshalJSON()
		if err != nil {
			return nil, err
		}
		m, err := newMutator(data)
		if err != nil {
			return nil, err
		}
		_ = system.Upsert(m) // the error is that of a conflict
	}
	return system, nil
}
