package evidence

import (
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Flags are the flags of a [Program] that a control asks about, by their name
// without dashes, with every value given. No other flag is kept: nobody knows
// what is in it.
type Flags map[string][]string

// Bounds of what is kept of a command line.
const (
	maxValue  = 2048 // bytes of one value
	maxValues = 16   // of one flag
)

// ProgramNames are what a [Program] can be.
func ProgramNames() []string {
	return []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd", "kubelet", "kube-proxy"}
}

// ProgramName returns which program of Kubernetes a command line runs, or "".
func ProgramName(argv []string) string {
	if len(argv) == 0 || !slices.Contains(ProgramNames(), path.Base(argv[0])) {
		return ""
	}
	return path.Base(argv[0])
}

// ProgramOf returns the program that a container runs, or nil.
func ProgramOf(pod *corev1.PodSpec, container *corev1.Container) *Program {
	argv := slices.Concat(container.Command, container.Args)
	name := ProgramName(argv)
	if name == "" {
		return nil
	}
	program := &Program{Name: name, Image: container.Image, Flags: ParseFlags(argv[1:])}
	if name == "etcd" {
		for _, v := range container.Env {
			program.Flags.AddVariable(v.Name, v.Value)
		}
	}
	uid := 0
	if s := pod.SecurityContext; s != nil && s.RunAsUser != nil {
		uid = int(*s.RunAsUser)
	}
	if s := container.SecurityContext; s != nil && s.RunAsUser != nil {
		uid = int(*s.RunAsUser)
	}
	program.UID = &uid
	return program
}

// switches are known flags that are on without a value.
var switches = strings.Fields(`
	anonymous-auth auto-tls client-cert-auth enable-bootstrap-token-auth make-iptables-util-chains
	peer-auto-tls peer-client-cert-auth profiling protect-kernel-defaults rotate-certificates
	rotate-server-certificates seccomp-default service-account-extend-token-expiration
	service-account-lookup use-service-account-credentials`)

// valued are known flags that have a value.
var valued = strings.Fields(`
	audit-log-maxage audit-log-maxbackup audit-log-maxsize audit-log-path audit-policy-file
	audit-webhook-config-file authentication-config authorization-config authorization-mode
	basic-auth-file bind-address cert-dir cert-file client-ca-file config config-dir config-file data-dir
	disable-admission-plugins enable-admission-plugins encryption-provider-config
	etcd-cafile etcd-certfile etcd-keyfile etcd-servers event-qps feature-gates hostname-override
	key-file kubeconfig kubelet-certificate-authority kubelet-client-certificate kubelet-client-key
	listen-client-urls listen-peer-urls metrics-bind-address peer-cert-file peer-key-file
	peer-trusted-ca-file pod-manifest-path pod-max-pids read-only-port root-ca-file secure-port
	service-account-key-file service-account-private-key-file service-account-signing-endpoint
	service-account-signing-key-file streaming-connection-idle-timeout tls-cert-file tls-cipher-suites
	tls-min-version tls-private-key-file token-auth-file trusted-ca-file`)

// ParseFlags reads the command line of a program, without its first word. It
// takes one dash or two, "=" or the next word for the value, and "_" for "-",
// as those programs do; "--" ends the flags.
func ParseFlags(args []string) Flags {
	flags := Flags{}
	for i := 0; i < len(args); i++ {
		name, value, given := strings.Cut(args[i], "=")
		if name == "--" {
			break
		}
		bare := strings.TrimPrefix(strings.TrimPrefix(name, "-"), "-")
		if bare == name {
			continue
		}
		bare = strings.ReplaceAll(bare, "_", "-")
		switch {
		case slices.Contains(switches, bare):
			if !given {
				value = "true"
			}
		case slices.Contains(valued, bare):
			if !given && i+1 < len(args) {
				i++
				value = args[i]
			}
		default:
			continue
		}
		flags.add(bare, value)
	}
	return flags
}

// AddVariable takes an environment variable for the flag that it stands for;
// etcd has one for each flag, which wins only where the flag is not given.
func (f Flags) AddVariable(name, value string) {
	bare, ok := strings.CutPrefix(name, "ETCD_")
	bare = strings.ToLower(strings.ReplaceAll(bare, "_", "-"))
	if ok && !f.Has(bare) && (slices.Contains(switches, bare) || slices.Contains(valued, bare)) {
		f.add(bare, value)
	}
}

func (f Flags) add(name, value string) {
	if len(value) > maxValue || len(f[name]) >= maxValues {
		return
	}
	if strings.Contains(value, "://") {
		value = withoutUsers(value)
	}
	f[name] = append(f[name], value)
}

// withoutUsers removes credentials from a list of URLs.
func withoutUsers(value string) string {
	parts := strings.Split(value, ",")
	for i, p := range parts {
		u, err := url.Parse(p)
		switch {
		case err != nil:
			parts[i] = "unreadable"
		case u.User != nil || u.RawQuery != "":
			u.User, u.RawQuery = nil, ""
			parts[i] = u.String()
		}
	}
	return strings.Join(parts, ",")
}

// Has reports whether a flag is given, and not empty.
func (f Flags) Has(name string) bool { return f.Value(name) != "" }

// Value returns the value that counts where a flag can have only one.
func (f Flags) Value(name string) string {
	if v := f[name]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

// List returns the items of all the values of a flag that takes a list.
func (f Flags) List(name string) []string {
	var out []string
	for _, v := range f[name] {
		for item := range strings.SplitSeq(v, ",") {
			if item = strings.TrimSpace(item); item != "" {
				out = append(out, item)
			}
		}
	}
	return out
}

// Bool returns the value of a switch, or what holds when it is not given.
func (f Flags) Bool(name string, absent bool) bool {
	b, err := strconv.ParseBool(f.Value(name))
	if err != nil {
		return absent
	}
	return b
}

// Gate returns whether a feature gate is on.
func (f Flags) Gate(name string, absent bool) bool {
	for _, item := range f.List("feature-gates") {
		if key, value, _ := strings.Cut(item, "="); key == name {
			if b, err := strconv.ParseBool(value); err == nil {
				absent = b
			}
		}
	}
	return absent
}
