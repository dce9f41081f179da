package evidence

import (
	"encoding/json"
	"strings"

	"sigs.k8s.io/yaml"
)

// reportKinds are the kinds of Kubernetes objects that hold reports of tools,
// as "group/kind".
var reportKinds = map[string]func(o object, name string) (*Set, error){
	"aquasecurity.github.io/VulnerabilityReport":        vulnerabilityReport,
	"aquasecurity.github.io/ClusterVulnerabilityReport": vulnerabilityReport,
	"aquasecurity.github.io/ExposedSecretReport":        exposedSecretReport,
	"aquasecurity.github.io/SbomReport":                 sbomReport,
	"aquasecurity.github.io/ClusterSbomReport":          sbomReport,
	"openreports.io/Report":                             policyReport,
	"openreports.io/ClusterReport":                      policyReport,
	"reports.x-k8s.io/PolicyReport":                     policyReport,
	"reports.x-k8s.io/ClusterPolicyReport":              policyReport,
	"wgpolicyk8s.io/PolicyReport":                       policyReport,
	"wgpolicyk8s.io/ClusterPolicyReport":                policyReport,
}

// An object is a report as the API serves it.
type object struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
		Created   string `json:"creationTimestamp"`
	} `json:"metadata"`
	raw json.RawMessage // the whole of it
}

// group returns "group/kind", without the "List" of lists.
func (o *object) group() string {
	group, _, _ := strings.Cut(o.APIVersion, "/")
	return group + "/" + strings.TrimSuffix(o.Kind, "List")
}

func isReports(h head) bool {
	o := object{APIVersion: h.text("apiVersion"), Kind: h.text("kind")}
	_, known := reportKinds[o.group()]
	return known || o.APIVersion == "v1" && o.Kind == "List" && h.has("items")
}

// reports reads one report or a list of them, JSON or YAML, as kubectl get
// prints them. Objects of other kinds in a list are counted.
func reports(d document) (*Set, error) {
	if !json.Valid(d.data) {
		data, err := yaml.YAMLToJSON(d.data)
		if err != nil {
			return nil, d.errorf(0, "%v", err)
		}
		d.data = data
	}
	var list struct {
		object
		Items []json.RawMessage `json:"items"`
	}
	if err := d.json(&list); err != nil {
		return nil, err
	}
	if list.Items == nil {
		list.Items = []json.RawMessage{d.data}
	}
	set, others := &Set{}, 0
	for _, raw := range list.Items {
		var o object
		if err := (document{d.name, raw}).json(&o); err != nil {
			return nil, err
		}
		o.raw = raw
		if o.Kind == "" { // items of a typed list may leave it out
			o.APIVersion, o.Kind = list.APIVersion, strings.TrimSuffix(list.Kind, "List")
		}
		read, known := reportKinds[o.group()]
		if !known {
			others++
			continue
		}
		found, err := read(o, d.name)
		if err != nil {
			return nil, err
		}
		set.add(found)
	}
	set.skip(Origin{Source: d.name}, others, "objects of kinds that hold no report")
	return set, nil
}

// decode reads the whole object.
func (o *object) decode(name string, into any) error {
	return document{name + ": " + o.Kind + "/" + o.Metadata.Namespace + "/" + o.Metadata.Name, o.raw}.json(into)
}
