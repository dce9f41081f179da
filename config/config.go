// Package config reads the YAML file of the server. Reading is strict: an
// unknown key, a wrong type and a bad value are errors with file and line, and
// all errors of a file are reported at once.
package config

import (
	"fmt"
	"io"
	"os"
	"time"
)

// maxSize bounds a configuration file; a real one has a few hundred bytes.
const maxSize = 1 << 20

// A Config is the whole configuration of `kubeguardian serve`. Every value is
// valid once [Load] or [Parse] has returned it.
type Config struct {
	// Cluster names this cluster in alerts.
	Cluster string `yaml:"cluster"`
	// DataDir holds the database when it is a file, the certificate authority and
	// the login token. It is created with mode 0700 when it does not exist.
	DataDir string `yaml:"dataDir"`
	// Kubeconfig is the file with the credentials for the cluster. When it is
	// empty they are in $KUBECONFIG, else ~/.kube/config, else those of the pod.
	Kubeconfig string     `yaml:"kubeconfig"`
	Log        Log        `yaml:"log"`
	Web        Web        `yaml:"web"`
	Webhook    Webhook    `yaml:"webhook"`
	Admission  Admission  `yaml:"admission"`
	Registries Registries `yaml:"registries"`
	Detection  Detection  `yaml:"detection"`
	Falco      Falco      `yaml:"falco"`
	Scan       Scan       `yaml:"scan"`
	Database   Database   `yaml:"database"`
	Retention  Retention  `yaml:"retention"`
	Tracing    Tracing    `yaml:"tracing"`
	Notify     Notify     `yaml:"notify"`
	Bus        Bus        `yaml:"bus"`
}

// Database says where records are kept: in a file in DataDir, or in PostgreSQL,
// which several replicas may share.
type Database struct {
	// URLFile holds the URL of a database in PostgreSQL, read at the start; see
	// [DatabaseURL]. "" means the file.
	URLFile string `yaml:"urlFile"`
}

// Log configures the log on standard error.
type Log struct {
	// Level is debug, info, warn or error.
	Level string `yaml:"level"`
}

// Web configures the pages and the JSON API.
type Web struct {
	// Listen is host:port. Plain HTTP is accepted on a loopback address only;
	// everywhere else CertFile and KeyFile are required, or
	// OwnAuthority.
	Listen string `yaml:"listen"`
	// CertFile and KeyFile are PEM files; both or neither are given.
	CertFile string `yaml:"certFile"`
	KeyFile  string `yaml:"keyFile"`
	// OwnAuthority takes a certificate of the webhooks' authority in place of
	// files: one that the server issues itself.
	OwnAuthority bool `yaml:"ownAuthority"`
	// TokenFile holds the login token; see [Token]. When the key is not given
	// it is <dataDir>/token.
	TokenFile string `yaml:"tokenFile"`
	// Login says who may log in.
	Login Login `yaml:"login"`
	// Authorization says who decides what those may do who have no login token:
	// kubernetes, or roles.
	Authorization string `yaml:"authorization"`
	// Roles gives roles to users and groups, with Authorization roles.
	Roles []RoleGrant `yaml:"roles"`
}

// Login says by what people and programs may log in to the pages and the API.
type Login struct {
	// Token accepts the login token in [Web.TokenFile], which is an admin's.
	Token bool `yaml:"token"`
	// Kubernetes accepts tokens that the API server vouches for.
	Kubernetes bool `yaml:"kubernetes"`
	// Audiences are whom such tokens may be for: one of these.
	Audiences []string `yaml:"audiences"`
	// OIDC accepts users of an OpenID Connect issuer, if it names one.
	OIDC OIDC `yaml:"oidc"`
}

// OIDC names an OpenID Connect issuer, and how its users are called here. Claims and
// prefixes mean what the flags --oidc-* of an API server do.
type OIDC struct {
	// Issuer is its URL, by HTTPS.
	Issuer   string `yaml:"issuer"`
	ClientID string `yaml:"clientID"`
	// ClientSecretFile holds the client's secret; without it the client is public.
	ClientSecretFile string `yaml:"clientSecretFile"`
	// RedirectURL is that of this server, as browsers reach it, with the path
	// /login/oidc/callback.
	RedirectURL string `yaml:"redirectURL"`
	// CAFile has the issuer's authorities in PEM; without it they are the system's.
	CAFile string `yaml:"caFile"`
	// Scopes are asked for, besides openid.
	Scopes         []string `yaml:"scopes"`
	UsernameClaim  string   `yaml:"usernameClaim"`
	UsernamePrefix string   `yaml:"usernamePrefix"`
	GroupsClaim    string   `yaml:"groupsClaim"`
	GroupsPrefix   string   `yaml:"groupsPrefix"`
}

// A RoleGrant gives a role to users and groups, by the names that the API server
// or the issuer gives them.
type RoleGrant struct {
	// Role is viewer, responder or admin.
	Role   string   `yaml:"role"`
	Users  []string `yaml:"users"`
	Groups []string `yaml:"groups"`
}

// Webhook configures the TLS 1.3 listener that the API server calls for
// admission and audit.
type Webhook struct {
	// Listen is host:port.
	Listen string `yaml:"listen"`
	// URL is how the API server reaches Listen: https://host:port. When neither
	// it nor Service is given it is made from Listen.
	URL string `yaml:"url"`
	// Service is the other way to reach Listen, from inside the cluster.
	Service Service `yaml:"service"`
	// Drain is how long the server answers on after it was told to end and is
	// no longer ready, so that nobody is sent to it any more: at most 1m. When
	// the key is not given it is 5s with a Service, else nothing.
	Drain time.Duration `yaml:"drain"`
	// AuthoritySecret names a Secret that holds the certificate authority, for
	// several replicas; without it the authority is in DataDir.
	AuthoritySecret string `yaml:"authoritySecret"`
	// ClientCAFile has authorities in PEM that issue the API server's client
	// certificate, if it is not ours, and ClientNames its common names.
	ClientCAFile string   `yaml:"clientCAFile"`
	ClientNames  []string `yaml:"clientNames"`
}

// Service names a Kubernetes Service; it is unset when Name is empty.
type Service struct {
	Namespace string `yaml:"namespace"`
	Name      string `yaml:"name"`
	Port      int    `yaml:"port"`
}

// Admission configures the admission webhook.
type Admission struct {
	// Enabled registers the webhook in the cluster; when it is false the
	// registration is removed.
	Enabled bool `yaml:"enabled"`
	// FailurePolicy says what the API server does with a request when the
	// webhook does not answer: Ignore lets it pass, Fail refuses it.
	FailurePolicy string `yaml:"failurePolicy"`
	// FailClosed are resources, such as pods or deployments.apps, whose requests
	// are refused when the webhook does not answer, whatever FailurePolicy says.
	FailClosed []string `yaml:"failClosed"`
	// Timeout is how long the API server waits: 1s to 30s, in whole seconds.
	Timeout time.Duration `yaml:"timeout"`
	// RequireClientCertificate refuses callers without a client certificate of
	// our authority or of [Webhook.ClientCAFile]. The API server must then be given a kubeconfig for
	// webhooks in its --admission-control-config-file.
	RequireClientCertificate bool `yaml:"requireClientCertificate"`
	// ExemptNamespaces are never checked, besides kube-system, kube-public,
	// kube-node-lease and our own namespace, which never are.
	ExemptNamespaces []string `yaml:"exemptNamespaces"`
	// Policies are files, folders or OCI artifacts by digest
	// (oci://HOST/REPOSITORY@sha256:…); none means the built-in pack. They are loaded
	// again when they change.
	Policies []string `yaml:"policies"`
	// BuiltIn is whether the built-in pack is in force where Policies are none.
	BuiltIn bool `yaml:"builtIn"`
	// FromCluster takes policies from the cluster too: Gatekeeper's templates,
	// constraints and mutators, and ImagePolicies.
	FromCluster bool `yaml:"fromCluster"`
	// Settings is a file of kind PolicySettings: how far policies are enforced,
	// whom they spare and what their parameters are, loaded again when it changes.
	// Without one that is as the policies say.
	Settings string `yaml:"settings"`
	// Defaults adds the built-in mutating policies: they set what pods leave
	// unsaid, in namespaces labelled kubeguardian.dev/defaults=true.
	Defaults bool `yaml:"defaults"`
	// ExternalData is for the Providers among the policies.
	ExternalData ExternalData `yaml:"externalData"`
}

// ExternalData configures how Gatekeeper's external data providers are asked.
type ExternalData struct {
	// CertFile and KeyFile are PEM files with the certificate that providers know
	// the server by; both or neither. They are read again when they change.
	CertFile string `yaml:"certFile"`
	KeyFile  string `yaml:"keyFile"`
	// CacheTTL is how long answers are kept; 0s keeps none. At most 24h.
	CacheTTL time.Duration `yaml:"cacheTTL"`
}

// Registries says how OCI registries are reached, for image policies and for
// policies that are artifacts. Files are read again when they change.
type Registries struct {
	// CredentialsFile is a configuration file of Docker, such as a mounted Secret
	// of type kubernetes.io/dockerconfigjson.
	CredentialsFile string `yaml:"credentialsFile"`
	// Authorities are for registries whose certificates the system does not know.
	Authorities []RegistryAuthority `yaml:"authorities"`
}

// A RegistryAuthority vouches for one registry, in place of those of the system.
type RegistryAuthority struct {
	// Host has the port, unless it is 443. A registry that is named here may be on
	// this machine.
	Host string `yaml:"host"`
	// CAFile is a PEM file.
	CAFile string `yaml:"caFile"`
}

// Detection configures the rules that read the audit log.
type Detection struct {
	// Rules are files or folders, or "builtin"; none means the built-in rules.
	Rules []string `yaml:"rules"`
	// Match says which rules alert for an event: the first that matches, or all.
	Match string `yaml:"match"`
	// Priority is the least urgent one at which rules alert, for example notice.
	Priority string `yaml:"priority"`
	// Select switches rules on and off, in order, after they are loaded.
	Select []RuleSelection `yaml:"select"`
	// Append adds to the outputs of rules, in order.
	Append []OutputAppend `yaml:"append"`
	// Static has the values of the fields static.<name>.
	Static []StaticField `yaml:"static"`
	// Cooldown says which alerts are counted in place of being kept; the first
	// that fits a rule counts.
	Cooldown []Cooldown `yaml:"cooldown"`
	// Compat is falco, for fields that give what Falco's do, defects included,
	// or fixed, for what their names promise.
	Compat string `yaml:"compat"`
	// AuditFiles are files that API servers write their audit log to, as given
	// to --audit-log-path, besides the webhook.
	AuditFiles []string `yaml:"auditFiles"`
	// Heartbeat is how often a request of our own is sent that the audit log
	// must show: 1s to 1h, or 0s to send none.
	Heartbeat time.Duration `yaml:"heartbeat"`
	// OwnerKeys are labels or annotations of objects and namespaces whose value is
	// the team that owns them; the first that there is counts.
	OwnerKeys []string `yaml:"ownerKeys"`
	// RespondWithin is the agreed time to answer a critical alert. At least 1m.
	RespondWithin time.Duration `yaml:"respondWithin"`
}

// Falco configures the listener for alerts of Falco and Falcosidekick.
type Falco struct {
	// Listen is host:port; empty takes no such alerts. Plain HTTP is accepted on
	// a loopback address only; everywhere else CertFile and KeyFile are required, or
	// OwnAuthority.
	Listen string `yaml:"listen"`
	// CertFile and KeyFile are PEM files; both or neither are given.
	CertFile string `yaml:"certFile"`
	KeyFile  string `yaml:"keyFile"`
	// TokenFile holds the token of senders; see [Token]. When the key is not
	// given it is <dataDir>/falco-token, unless there is a ClientCAFile.
	TokenFile string `yaml:"tokenFile"`
	// ClientCAFile is a PEM file with the authorities of senders: they must have
	// a certificate then, and the token as well if there is a TokenFile.
	ClientCAFile string `yaml:"clientCAFile"`
}

// A RuleSelection switches rules on or off: those whose name matches a pattern
// with *, or those with a tag.
type RuleSelection struct {
	Rule    string `yaml:"rule"`
	Tag     string `yaml:"tag"`
	Enabled bool   `yaml:"enabled"`
}

// A Cooldown is how long an alert stands for those that say the same: for rules
// whose name matches a pattern with *, for those with a tag, or for all.
type Cooldown struct {
	Rule string `yaml:"rule"`
	Tag  string `yaml:"tag"`
	// Within is at most 24h; with 0s each alert is kept.
	Within time.Duration `yaml:"within"`
	// By has the output fields in which alerts that say the same are equal; none
	// means all that an alert says but its time.
	By []string `yaml:"by"`
	// Limit is how many different alerts of a rule are kept within that time; 0
	// means any number.
	Limit int `yaml:"limit"`
}

// An OutputAppend adds to the output of rules of a source, of one rule, or with
// all of some tags; what is not given does not matter.
type OutputAppend struct {
	Source string   `yaml:"source"`
	Rule   string   `yaml:"rule"`
	Tags   []string `yaml:"tags"`
	// Output is added after a blank.
	Output string `yaml:"output"`
	// Fields are added to the output fields: as they are, or a format by a name
	// of its own.
	Fields []OutputField `yaml:"fields"`
}

// An OutputField is an output field: Name is a field, or the name of what Format
// makes.
type OutputField struct {
	Name   string `yaml:"name"`
	Format string `yaml:"format"`
}

// A StaticField is the value of the field static.<name>.
type StaticField struct {
	Name  string `yaml:"name"`
	Value string `yaml:"value"`
}

// Scan configures the posture scan.
type Scan struct {
	// Interval is the time between full scans, besides those that a change in
	// the cluster starts. At least 10s.
	Interval time.Duration `yaml:"interval"`
}

// Retention says how long records are kept, at least 1h each, how many, and in how
// much space.
type Retention struct {
	// Alerts is since they came, also of incidents and messages.
	Alerts    time.Duration `yaml:"alerts"`
	Decisions time.Duration `yaml:"decisions"`
	// Readiness is of the counts of what policies would have denied.
	Readiness time.Duration `yaml:"readiness"`
	// Records is how many alerts, and how many decisions, are kept at most: the
	// oldest go first. At least 1000.
	Records int `yaml:"records"`
	// MaxMiB is the size of the database beyond which the oldest records go; 0 is
	// without a limit, else 64 to 16777216.
	MaxMiB int `yaml:"maxMiB"`
}

// Tracing configures where traces of the pipeline go, by OTLP over gRPC.
type Tracing struct {
	// Endpoint is host:port of a collector; "" means that there are no traces.
	Endpoint string `yaml:"endpoint"`
	// CAFile has the authority of its certificate, in PEM; "" stands for those of
	// the system.
	CAFile string `yaml:"caFile"`
	// Plaintext sends without TLS.
	Plaintext bool `yaml:"plaintext"`
	// Ratio is the share of traces that are sent, above 0 and up to 1.
	Ratio float64 `yaml:"ratio"`
}

// Default returns the configuration of an empty file, before the values that
// follow from others are filled in.
func Default() *Config {
	return &Config{
		Cluster: "default",
		DataDir: "/var/lib/kubeguardian",
		Log:     Log{Level: "info"},
		Web: Web{
			Listen: "127.0.0.1:8080", Authorization: "kubernetes",
			Login: Login{
				Token: true, Kubernetes: true, Audiences: []string{"kubeguardian"},
				OIDC: OIDC{Scopes: []string{"profile", "email"}, UsernameClaim: "sub", GroupsClaim: "groups"},
			},
		},
		Webhook: Webhook{Listen: "127.0.0.1:9443", Service: Service{Port: 443}},
		Admission: Admission{
			Enabled: true, BuiltIn: true, FailurePolicy: "Ignore", Timeout: 3 * time.Second, ExternalData: ExternalData{CacheTTL: 3 * time.Minute},
		},
		Detection: Detection{
			Match: "first", Priority: "debug", Compat: "falco", Heartbeat: 30 * time.Second, RespondWithin: 24 * time.Hour,
			OwnerKeys: []string{"kubeguardian.dev/owner"},
			Cooldown:  []Cooldown{{Within: 10 * time.Minute}},
		},
		Scan:      Scan{Interval: 10 * time.Minute},
		Bus:       Bus{MaxMiB: 1024, Sync: time.Second, External: ExternalBus{Replicas: 1}},
		Retention: Retention{Alerts: 30 * 24 * time.Hour, Decisions: 7 * 24 * time.Hour, Readiness: 30 * 24 * time.Hour, Records: 10_000_000},
		Tracing:   Tracing{Ratio: 1},
	}
}

// Load reads a file; see [Parse].
func Load(file string) (*Config, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(file, data)
}

// Parse reads a document; name stands for it in errors. An error has one line
// for each thing that is wrong, each starting with name and line.
func Parse(name string, data []byte) (*Config, error) {
	if len(data) > maxSize {
		return nil, fmt.Errorf("%s: larger than %d bytes: this is not a configuration file", name, maxSize)
	}
	root, err := parseYAML(name, data)
	if err != nil {
		return nil, err
	}
	cfg := Default()
	d := decoder{name: name, lines: map[string]int{}}
	if root != nil {
		d.decode(root, cfg)
	}
	if len(d.errs) == 0 {
		d.validate(cfg)
	}
	if err := d.err(); err != nil {
		return nil, err
	}
	return cfg, nil
}
