package image

import (
	"time"

	"go.yaml.in/yaml/v3"
)

// The kind of the documents that [Load] reads.
const (
	apiGroup   = "kubeguardian.dev"
	APIVersion = apiGroup + "/v1alpha1"
	Kind       = "ImagePolicy"
)

// A document is an ImagePolicy as written. What its fields mean is in
// docs/images.md.
type document struct {
	APIVersion string         `yaml:"apiVersion"`
	Kind       string         `yaml:"kind"`
	Metadata   map[string]any `yaml:"metadata"`
	Spec       spec           `yaml:"spec"`
	Status     yaml.Node      `yaml:"status"` // of a cluster object; not read
}

type spec struct {
	FailurePolicy     string        `yaml:"failurePolicy"`
	ValidationActions []string      `yaml:"validationActions"`
	MutateDigest      *bool         `yaml:"mutateDigest"`
	Match             match         `yaml:"match"`
	Rules             rules         `yaml:"rules"`
	Attestors         []attestorDoc `yaml:"attestors"`
	Attestations      []attestDoc   `yaml:"attestations"`
}

type match struct {
	NamespaceSelector *selector `yaml:"namespaceSelector"`
	ObjectSelector    *selector `yaml:"objectSelector"`
	Images            []string  `yaml:"images"`
	ExcludeImages     []string  `yaml:"excludeImages"`
}

// A selector is a label selector of Kubernetes.
type selector struct {
	MatchLabels      map[string]string `yaml:"matchLabels"`
	MatchExpressions []struct {
		Key      string   `yaml:"key"`
		Operator string   `yaml:"operator"`
		Values   []string `yaml:"values"`
	} `yaml:"matchExpressions"`
}

type rules struct {
	RequireDigest      *bool    `yaml:"requireDigest"`
	AllowedImages      []string `yaml:"allowedImages"`
	RequiredSignatures *int     `yaml:"requiredSignatures"`
}

// An attestorDoc says who is trusted to sign: the holder of a key, or an identity
// for which a certificate authority has vouched.
type attestorDoc struct {
	Name    string      `yaml:"name"`
	Key     *content    `yaml:"key"`
	Keyless *keylessDoc `yaml:"keyless"`
}

// A content is text that stands in the policy, or in a file beside it.
type content struct {
	Data string `yaml:"data"`
	File string `yaml:"file"`
}

type keylessDoc struct {
	TrustedRoot        content       `yaml:"trustedRoot"`
	Identities         []identityDoc `yaml:"identities"`
	InsecureIgnoreTlog bool          `yaml:"insecureIgnoreTlog"`
	InsecureIgnoreSCT  bool          `yaml:"insecureIgnoreSCT"`
}

type identityDoc struct {
	Issuer        string `yaml:"issuer"`
	IssuerRegExp  string `yaml:"issuerRegExp"`
	Subject       string `yaml:"subject"`
	SubjectRegExp string `yaml:"subjectRegExp"`
}

type attestDoc struct {
	Name            string              `yaml:"name"`
	PredicateType   string              `yaml:"predicateType"`
	Attestors       []string            `yaml:"attestors"`
	MaxAge          duration            `yaml:"maxAge"`
	Provenance      *provenanceDoc      `yaml:"provenance"`
	Vulnerabilities *vulnerabilitiesDoc `yaml:"vulnerabilities"`
}

type provenanceDoc struct {
	Builders       []string `yaml:"builders"`
	BuilderRegExps []string `yaml:"builderRegExps"`
	Sources        []string `yaml:"sources"`
	SourceRegExps  []string `yaml:"sourceRegExps"`
}

type vulnerabilitiesDoc struct {
	MaxSeverity    string   `yaml:"maxSeverity"`
	MaxDatabaseAge duration `yaml:"maxDatabaseAge"`
	Ignore         []string `yaml:"ignore"`
}

// A duration is written like 168h or 30m.
type duration struct {
	time.Duration
	text string
}

// UnmarshalYAML implements [yaml.Unmarshaler]. Whether the text is a duration is
// checked with the rest of the document.
func (d *duration) UnmarshalYAML(n *yaml.Node) error {
	if err := n.Decode(&d.text); err != nil {
		return err
	}
	d.Duration, _ = time.ParseDuration(d.text)
	return nil
}
