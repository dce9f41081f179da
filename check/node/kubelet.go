package node

import (
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
)

// A setting is one thing that a kubelet can be told by a flag, or in its
// configuration. Without a configuration file older defaults hold than with
// one.
type setting struct{ flag, key, without, with string }

var (
	anonymousAuth    = setting{"anonymous-auth", "authentication.anonymous.enabled", "true", "false"}
	authorizeBy      = setting{"authorization-mode", "authorization.mode", "AlwaysAllow", "Webhook"}
	clientCA         = setting{"client-ca-file", "authentication.x509.clientCAFile", "", ""}
	servingCert      = setting{"tls-cert-file", "tlsCertFile", "", ""}
	servingKey       = setting{"tls-private-key-file", "tlsPrivateKeyFile", "", ""}
	servingBootstrap = setting{"rotate-server-certificates", "serverTLSBootstrap", "false", "false"}
	rotation         = setting{"rotate-certificates", "rotateCertificates", "false", "false"}
	readOnlyPort     = setting{"read-only-port", "readOnlyPort", "10255", "0"}
	idleTimeout      = setting{"streaming-connection-idle-timeout", "streamingConnectionIdleTimeout", "4h0m0s", "4h0m0s"}
	pidLimit         = setting{"pod-max-pids", "podPidsLimit", "-1", "-1"}
	eventRate        = setting{"event-qps", "eventRecordQPS", "50", "50"}
	iptablesChains   = setting{"make-iptables-util-chains", "makeIPTablesUtilChains", "true", "true"}
	seccompDefault   = setting{"seccomp-default", "seccompDefault", "false", "false"}
)

// value returns what a kubelet goes by: the flag, else the file, else the
// default. It is not known if a file could not be read that may say it.
func (s setting) value(p *evidence.Program, out *verdict) (value string, known bool) {
	if len(p.Flags[s.flag]) > 0 {
		return p.Flags.Value(s.flag), true
	}
	if out.unread(p, "config") || out.unread(p, "config-dir") {
		return "", false
	}
	value, given := p.Settings[s.key]
	switch {
	case given:
		out.see("%s: %s", s.key, value)
	case p.Flags.Has("config"):
		value = s.with
	default:
		value = s.without
	}
	return value, true
}

// is reports whether a setting has a value; if that is not known, that it has.
func (s setting) is(p *evidence.Program, out *verdict, want string) bool {
	value, known := s.value(p, out)
	return !known || strings.EqualFold(value, want)
}

// onKubelet judges the kubelet of each node.
func (v *View) onKubelet(judge func(m *member, p *evidence.Program, out *verdict)) []finding.Verdict {
	return v.nodes(false, func(m *member, out *verdict) {
		if p := out.program(m, "kubelet"); p != nil {
			judge(m, p, out)
		}
	})
}

// KubeletAnonymous says whether kubelets refuse requests without credentials.
func (v *View) KubeletAnonymous() []finding.Verdict {
	return v.onKubelet(func(_ *member, p *evidence.Program, out *verdict) {
		if !anonymousAuth.is(p, out, "false") {
			out.fail("the kubelet takes requests without credentials")
		}
	})
}

// KubeletAuthorization says whether kubelets ask the API server who may do
// what.
func (v *View) KubeletAuthorization() []finding.Verdict {
	return v.onKubelet(func(_ *member, p *evidence.Program, out *verdict) {
		if !authorizeBy.is(p, out, "Webhook") {
			mode, _ := authorizeBy.value(p, &verdict{})
			out.fail("the kubelet authorizes by %s", mode)
		}
	})
}

// KubeletCertificates says whether kubelets know the authority of clients and
// have certificates that are verifiable and rotated.
func (v *View) KubeletCertificates() []finding.Verdict {
	return v.onKubelet(func(_ *member, p *evidence.Program, out *verdict) {
		if ca, known := clientCA.value(p, out); known && ca == "" {
			out.fail("the kubelet has no authority to verify clients by")
		}
		cert, known := servingCert.value(p, out)
		key, _ := servingKey.value(p, &verdict{})
		if known && (cert == "" || key == "") && !servingBootstrap.is(p, out, "true") {
			out.fail("the kubelet signs its serving certificate itself: nobody can verify it")
		}
		if !rotation.is(p, out, "true") {
			out.fail("the kubelet does not rotate its client certificate")
		}
		gate := p.Flags.Gate("RotateKubeletServerCertificate", p.Settings["featureGates.RotateKubeletServerCertificate"] != "false")
		if !gate {
			out.fail("the kubelet does not rotate its serving certificate")
		}
	})
}

// ReadOnlyPort says whether the kubelet's port without authentication is
// closed.
func (v *View) ReadOnlyPort() []finding.Verdict {
	return v.onKubelet(func(m *member, p *evidence.Program, out *verdict) {
		if !readOnlyPort.is(p, out, "0") {
			port, _ := readOnlyPort.value(p, &verdict{})
			out.fail("the kubelet tells about pods on port %s without authentication", port)
		}
		for _, l := range m.record.Listeners {
			if l.Process == "kubelet" && strings.HasSuffix(l.Address, ":10255") {
				out.fail("the kubelet listens on %s", l.Address)
			}
		}
	})
}

// KubeletLimits says whether kubelets bound what pods and clients can use up.
func (v *View) KubeletLimits() []finding.Verdict {
	return v.onKubelet(func(_ *member, p *evidence.Program, out *verdict) {
		// In the file, 0 is the default; as a flag it is no timeout.
		if t, err := time.ParseDuration(p.Flags.Value(idleTimeout.flag)); err == nil && t == 0 {
			out.fail("idle connections of exec and port-forward stay open")
		}
		if limit, known := pidLimit.value(p, out); known {
			if n, err := strconv.Atoi(limit); err != nil || n <= 0 {
				out.fail("one pod can use up all process ids of the node")
			}
		}
		if rate, known := eventRate.value(p, out); known && rate == "0" {
			out.fail("the kubelet does not limit how many events it makes")
		}
		if !iptablesChains.is(p, out, "true") {
			out.fail("the kubelet does not keep its iptables chains")
		}
	})
}

// DefaultSeccomp says whether kubelets apply the runtime's seccomp profile to
// pods that name none.
func (v *View) DefaultSeccomp() []finding.Verdict {
	return v.onKubelet(func(_ *member, p *evidence.Program, out *verdict) {
		if !seccompDefault.is(p, out, "true") {
			out.fail("pods that name no seccomp profile run without one")
		}
	})
}

// ProxyMetrics says whether kube-proxy shows its metrics to its own host only.
func (v *View) ProxyMetrics() []finding.Verdict {
	return v.nodes(false, func(m *member, out *verdict) {
		p := out.program(m, "kube-proxy", "config", "metrics-bind-address")
		if p == nil {
			return
		}
		address := p.Flags.Value("metrics-bind-address")
		if p.Flags.Has("config") { // flags are then ignored
			if out.unread(p, "config") {
				return
			}
			address = p.Settings["metricsBindAddress"]
		}
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			host = address
		}
		if address != "" && !loopback(strings.Trim(host, "[]")) { // by default 127.0.0.1
			out.fail("kube-proxy serves metrics on %s", address)
		}
	})
}
