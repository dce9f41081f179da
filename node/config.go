package node

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/audit/policy"
	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/evidence"
)

// settingsOf are the settings of a configuration file that a control asks
// about, by program. The rest of the file is not kept.
var settingsOf = map[string][]string{
	"kubelet": strings.Fields(`
		authentication.anonymous.enabled authentication.webhook.enabled authentication.x509.clientCAFile
		authorization.mode eventRecordQPS featureGates.RotateKubeletServerCertificate makeIPTablesUtilChains
		podPidsLimit protectKernelDefaults readOnlyPort rotateCertificates seccompDefault serverTLSBootstrap
		staticPodPath streamingConnectionIdleTimeout tlsCertFile tlsCipherSuites tlsMinVersion tlsPrivateKeyFile`),
	"kube-proxy":     {"clientConnection.kubeconfig", "metricsBindAddress"},
	"kube-scheduler": {"clientConnection.kubeconfig", "enableProfiling"},
}

// configurations reads the files that the flags of programs name, once.
func (c *collector) configurations() {
	for i := range c.record.Programs {
		p := &c.record.Programs[i]
		if p.Settings != nil {
			continue
		}
		p.Settings = map[string]string{}
		switch p.Name {
		case "kube-apiserver":
			c.apiServer(p)
		case "etcd":
			c.etcd(p)
		default:
			c.settings(p)
		}
	}
}

func (c *collector) settings(p *evidence.Program) {
	wanted := settingsOf[p.Name]
	if data := c.readFor(p, "config"); data != nil {
		if err := pick(data, wanted, p.Settings); err != nil {
			c.unread(p, "config", err)
		}
	}
	folder := p.Flags.Value("config-dir")
	if folder == "" {
		return
	}
	names, err := c.place(p.Name).dropIns(folder, 0)
	for _, name := range names {
		data, failed := c.place(p.Name).read(name)
		if failed == nil {
			failed = pick(data, wanted, p.Settings)
		}
		err = errors.Join(err, failed)
	}
	if err != nil {
		c.unread(p, "config-dir", err)
	}
}

// dropIns returns the *.conf files of a folder and those in it, in the order in
// which the kubelet takes them.
func (t tree) dropIns(folder string, depth int) ([]string, error) {
	if depth > 4 {
		return nil, errors.New("folders are nested too deep")
	}
	names, err := t.list(folder)
	var out []string
	for _, name := range names {
		if info, failed := t.stat(name); failed == nil && info.IsDir() {
			more, failed := t.dropIns(name, depth+1)
			out, err = append(out, more...), errors.Join(err, failed)
		} else if strings.HasSuffix(name, ".conf") {
			out = append(out, name)
		}
	}
	return out, err
}

// pick adds the settings at the wanted paths of a YAML document to into.
func pick(data []byte, wanted []string, into map[string]string) error {
	root := map[string]any{}
	if err := yaml.Unmarshal(data, &root); err != nil {
		return errors.New("not YAML")
	}
	for _, key := range wanted {
		var value any = root
		for part := range strings.SplitSeq(key, ".") {
			m, _ := value.(map[string]any)
			value = m[part]
		}
		if text, ok := plain(value); ok {
			into[key] = text
		}
	}
	return nil
}

// plain returns a scalar, or a list of them, as text.
func plain(value any) (string, bool) {
	const most = 2048
	switch value := value.(type) {
	case nil, map[string]any:
		return "", false
	case []any:
		var parts []string
		for _, v := range value {
			text, ok := plain(v)
			if !ok {
				return "", false
			}
			parts = append(parts, text)
		}
		text := strings.Join(parts, ",")
		return text, len(text) <= most
	default:
		text := fmt.Sprint(value)
		return text, len(text) <= most
	}
}

// etcd takes a configuration file for the flags that it stands for: etcd then
// ignores the flags.
func (c *collector) etcd(p *evidence.Program) {
	data := c.readFor(p, "config-file")
	if data == nil {
		return
	}
	root := map[string]any{}
	if err := yaml.Unmarshal(data, &root); err != nil {
		c.unread(p, "config-file", errors.New("not YAML"))
		return
	}
	var argv []string
	add := func(prefix string, from any) {
		values, _ := from.(map[string]any)
		for key, value := range values {
			if text, ok := plain(value); ok {
				argv = append(argv, "--"+prefix+key+"="+text)
			}
		}
	}
	add("", root)
	add("", root["client-transport-security"])
	add("peer-", root["peer-transport-security"])
	slices.Sort(argv)
	file := p.Flags.Value("config-file")
	p.Flags = evidence.ParseFlags(argv)
	p.Flags["config-file"] = []string{file}
}

// apiServer summarises the files that only an API server has.
func (c *collector) apiServer(p *evidence.Program) {
	for _, file := range []struct {
		flag string
		read func(*evidence.Program, []byte) error
	}{
		{"authentication-config", authentication},
		{"authorization-config", authorization},
		{"encryption-provider-config", encryption},
		{"audit-policy-file", auditPolicy},
	} {
		data := c.readFor(p, file.flag)
		if data == nil {
			continue
		}
		if err := file.read(p, data); err != nil {
			c.unread(p, file.flag, err)
		}
	}
}

func authentication(p *evidence.Program, data []byte) error {
	var config struct {
		Anonymous *struct {
			Enabled    bool `json:"enabled"`
			Conditions []struct {
				Path string `json:"path"`
			} `json:"conditions"`
		} `json:"anonymous"`
	}
	if err := yaml.Unmarshal(data, &config); err != nil {
		return errors.New("not an AuthenticationConfiguration")
	}
	if config.Anonymous == nil {
		return nil
	}
	p.Anonymous = &evidence.Anonymous{Enabled: config.Anonymous.Enabled}
	for _, condition := range config.Anonymous.Conditions {
		p.Anonymous.Paths = append(p.Anonymous.Paths, condition.Path)
	}
	return nil
}

func authorization(p *evidence.Program, data []byte) error {
	var config struct {
		Authorizers []struct {
			Type string `json:"type"`
		} `json:"authorizers"`
	}
	if err := yaml.Unmarshal(data, &config); err != nil || len(config.Authorizers) == 0 {
		return errors.New("not an AuthorizationConfiguration")
	}
	for _, a := range config.Authorizers {
		p.Authorizers = append(p.Authorizers, a.Type)
	}
	return nil
}

// encryption takes which providers there are and never what is in them: keys.
func encryption(p *evidence.Program, data []byte) error {
	var config struct {
		Resources []struct {
			Resources []string                    `json:"resources"`
			Providers []map[string]map[string]any `json:"providers"`
		} `json:"resources"`
	}
	if err := yaml.Unmarshal(data, &config); err != nil || len(config.Resources) == 0 {
		return errors.New("not an EncryptionConfiguration")
	}
	for _, entry := range config.Resources {
		rule := evidence.EncryptionRule{Resources: entry.Resources}
		for _, provider := range entry.Providers {
			for _, name := range []string{"aescbc", "aesgcm", "identity", "kms", "secretbox"} {
				settings, ok := provider[name]
				if !ok {
					continue
				}
				if name == "kms" {
					name = "kms v1" // what it is without a version
					if settings["apiVersion"] == "v2" {
						name = "kms v2"
					}
				}
				rule.Providers = append(rule.Providers, name)
			}
		}
		p.Encryption = append(p.Encryption, rule)
	}
	return nil
}

// auditPolicy keeps the policy whole: it names users, resources and paths.
func auditPolicy(p *evidence.Program, data []byte) error {
	if _, err := policy.LoadPolicyFromBytes(data); err != nil {
		return errors.New("not a valid audit policy")
	}
	scheme := runtime.NewScheme()
	if err := auditv1.AddToScheme(scheme); err != nil {
		return err
	}
	out := &auditv1.Policy{}
	_, _, err := serializer.NewCodecFactory(scheme).UniversalDeserializer().Decode(data, nil, out)
	if err != nil {
		return errors.New("not an audit policy of version v1")
	}
	out.ManagedFields = nil
	out.Annotations = nil
	p.AuditPolicy = out
	return nil
}

// missing reports whether an error only says that there is nothing.
func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
