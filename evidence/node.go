package evidence

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"sigs.k8s.io/yaml"
)

// NodeVersion and NodeKind head the document of a [NodeRecord].
const (
	NodeVersion = "kubeguardian.dev/evidence/v1"
	NodeKind    = "Node"
)

// A NodeRecord is what kubeguardian scan --node saw of one node. It says what
// is there, and what could not be seen in Gaps; it holds no key, token or other
// secret.
type NodeRecord struct {
	Origin     `json:"-"`
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Tool       string            `json:"tool"`
	SeenAt     time.Time         `json:"seenAt"`
	Name       string            `json:"name"` // as the API knows the node
	Hostname   string            `json:"hostname,omitempty"`
	MachineID  string            `json:"machineID,omitempty"`
	Machine    string            `json:"machine,omitempty"` // architecture, as "x86_64"
	Kernel     string            `json:"kernel,omitempty"`
	OS         NodeOS            `json:"os"`
	Sysctls    map[string]string `json:"sysctls,omitempty"`
	Programs   []Program         `json:"programs,omitempty"`
	Files      []NodeFile        `json:"files,omitempty"`
	Listeners  []Listener        `json:"listeners,omitempty"`
	Chains     []FilterChain     `json:"chains,omitempty"` // of the firewall
	SSH        *SSHServer        `json:"ssh,omitempty"`    // nil without an SSH server, or see Gaps
	Updates    *NodeUpdates      `json:"updates,omitempty"`
	// AutomaticUpdates names what installs security updates by itself.
	AutomaticUpdates string    `json:"automaticUpdates,omitempty"`
	Gaps             []NodeGap `json:"gaps,omitempty"`
}

// A NodeGap is something that a collector did not see.
type NodeGap struct {
	Part   Part   `json:"part"`
	Path   string `json:"path,omitempty"`
	Reason string `json:"reason"`
}

// A Part is a part of a node.
type Part string

// The parts of a node.
const (
	PartIdentity  Part = "identity"
	PartSysctls   Part = "sysctls"
	PartPrograms  Part = "programs"
	PartFiles     Part = "files"
	PartListeners Part = "listeners"
	PartFirewall  Part = "firewall"
	PartSSH       Part = "ssh"
	PartUpdates   Part = "updates"
	PartAutomatic Part = "automatic-updates"
)

// A NodeOS is what os-release says.
type NodeOS struct {
	ID      string   `json:"id,omitempty"`
	Like    []string `json:"like,omitempty"`
	Name    string   `json:"name,omitempty"`
	Version string   `json:"version,omitempty"`
	Variant string   `json:"variant,omitempty"`
}

// A Program is a program of Kubernetes on a node.
type Program struct {
	Name   string `json:"name"`   // "kube-apiserver"
	Source string `json:"source"` // "process 812", or the manifest it is started from
	Image  string `json:"image,omitempty"`
	UID    *int   `json:"uid,omitempty"` // of the user it runs as
	Flags  Flags  `json:"flags,omitempty"`
	// Settings are those of its configuration file that matter, by their path:
	// "authentication.anonymous.enabled".
	Settings map[string]string `json:"settings,omitempty"`
	// Unread says by flag why a file that the flag names could not be read.
	Unread map[string]string `json:"unread,omitempty"`

	// Of files that only an API server has.
	Anonymous   *Anonymous       `json:"anonymous,omitempty"` // nil where its configuration does not say
	Authorizers []string         `json:"authorizers,omitempty"`
	Encryption  []EncryptionRule `json:"encryption,omitempty"`
	AuditPolicy *auditv1.Policy  `json:"auditPolicy,omitempty"`
}

// Anonymous is how an AuthenticationConfiguration treats requests without
// credentials.
type Anonymous struct {
	Enabled bool     `json:"enabled"`
	Paths   []string `json:"paths,omitempty"` // empty: all
}

// An EncryptionRule is one entry of an EncryptionConfiguration, without its keys.
type EncryptionRule struct {
	Resources []string `json:"resources"`
	Providers []string `json:"providers"` // in order: "kms v2", "aescbc", "identity"
}

// A NodeFile is the mode and owner of one file or folder.
type NodeFile struct {
	Path  string   `json:"path"`
	Role  FileRole `json:"role"`
	Mode  string   `json:"mode"` // octal: "0600"
	UID   int      `json:"uid"`
	GID   int      `json:"gid"`
	Owner string   `json:"owner,omitempty"` // "root:root", as the node calls them
	// SHA256 is of a certificate, to tell two of them apart.
	SHA256 string `json:"sha256,omitempty"`
}

// A FileRole says what a file is for.
type FileRole string

// The roles of files.
const (
	FileManifest            FileRole = "manifest"
	FilePlaneKubeconfig     FileRole = "control-plane-kubeconfig"
	FilePKIFolder           FileRole = "pki-folder"
	FileCertificate         FileRole = "certificate"
	FilePrivateKey          FileRole = "private-key"
	FileEtcdData            FileRole = "etcd-data"
	FileCNI                 FileRole = "cni"
	FileKubeletService      FileRole = "kubelet-service"
	FileKubeletConfig       FileRole = "kubelet-config"
	FileKubeletKubeconfig   FileRole = "kubelet-kubeconfig"
	FileKubeletCA           FileRole = "kubelet-ca"
	FileKubeProxyKubeconfig FileRole = "kube-proxy-kubeconfig"
)

// A Listener is a TCP port that is listened on.
type Listener struct {
	Address string `json:"address"` // "0.0.0.0:10250"
	Process string `json:"process,omitempty"`
}

// A FilterChain is a chain of the firewall that sees packets first.
type FilterChain struct {
	Family string `json:"family"`
	Table  string `json:"table"`
	Name   string `json:"name"`
	Hook   string `json:"hook"`
	Policy string `json:"policy"`
	Rules  int    `json:"rules"`
}

// An SSHServer says how the SSH server lets people in.
type SSHServer struct {
	Source              string   `json:"source"`
	PermitRootLogin     string   `json:"permitRootLogin"`
	Password            bool     `json:"password"`
	KeyboardInteractive bool     `json:"keyboardInteractive"`
	Matches             []string `json:"matches,omitempty"` // Match blocks that open what is closed above
}

// NodeUpdates says what the package manager knows. Security lists the packages that
// have a pending update from a security archive.
type NodeUpdates struct {
	Manager  string    `json:"manager"`
	Lists    time.Time `json:"lists"` // when the package lists were fetched
	Security []string  `json:"security,omitempty"`
	Restart  string    `json:"restart,omitempty"` // what waits for a restart
}

// Program returns a program of the node, or nil.
func (n *NodeRecord) Program(name string) *Program {
	for i := range n.Programs {
		if n.Programs[i].Name == name {
			return &n.Programs[i]
		}
	}
	return nil
}

// FilesOf returns the files of some roles, in their order.
func (n *NodeRecord) FilesOf(roles ...FileRole) []NodeFile {
	return slices.DeleteFunc(slices.Clone(n.Files), func(f NodeFile) bool { return !slices.Contains(roles, f.Role) })
}

// Gap returns what could not be seen of a part, or "".
func (n *NodeRecord) Gap(part Part) string {
	var out []string
	for _, g := range n.Gaps {
		if g.Part == part {
			out = append(out, strings.TrimPrefix(g.Path+": "+g.Reason, ": "))
		}
	}
	if more := len(out) - 3; more > 0 {
		out = append(out[:3], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(out, "; ")
}

func isNode(h head) bool {
	return h.text("apiVersion") == NodeVersion && h.text("kind") == NodeKind
}

// nodeRecord reads a document of a node.
func nodeRecord(d document) (*Set, error) {
	text := d.data
	if !json.Valid(text) {
		var err error
		if text, err = yaml.YAMLToJSONStrict(d.data); err != nil {
			return nil, d.errorf(0, "%v", err)
		}
	}
	var n NodeRecord
	if err := (document{d.name, text}).json(&n); err != nil {
		return nil, err
	}
	switch {
	case strings.TrimSpace(n.Name) == "":
		return nil, d.errorf(0, "a node without name")
	case n.SeenAt.IsZero():
		return nil, d.errorf(0, "node %s: seenAt is missing", n.Name)
	}
	n.Origin = Origin{Kind: Node, Tool: n.Tool, Source: d.name, SeenAt: n.SeenAt}
	return &Set{Nodes: []NodeRecord{n}}, nil
}
