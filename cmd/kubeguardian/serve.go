package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"runtime/debug"

	"k8s.io/client-go/rest"

	"github.com/kubeguardian/kubeguardian/bus/leaf"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/server"
)

const serveUsage = `Usage: kubeguardian serve [--config FILE]

Guards a cluster: answers admission requests, receives the audit log, scans the
cluster after every change, and serves the page. The log goes to standard error
as JSON lines. SIGTERM and Ctrl-C end it after the requests that run.

  --config FILE   configuration (default /etc/kubeguardian/config.yaml)

Before the first start, give the API server what 'kubeguardian setup' prints.
`

const setupUsage = `Usage: kubeguardian setup rbac|roles|replicas|crds|gatekeeper|audit-policy|kubeconfig|agent-ca|rotate [--config FILE]
       kubeguardian setup cluster-key NAME

Prints what the cluster needs before 'kubeguardian serve':

  rbac          Namespace, ServiceAccount and rights of the server:
                  kubeguardian setup rbac | kubectl apply -f -
  roles         ClusterRoles for people who use the pages and the API
  replicas      a Secret that several replicas share, for webhook.authoritySecret
  crds          the kinds SecurityException, for who wants to accept risks by it,
                and ImagePolicy, for admission.fromCluster
  gatekeeper    Gatekeeper's kinds, for admission.fromCluster in a cluster
                without Gatekeeper, and the right to write their status
  audit-policy  for kube-apiserver --audit-policy-file
  kubeconfig    for kube-apiserver --audit-webhook-config-file, and as
                kubeConfigFile of the webhook plugins in
                --admission-control-config-file. It holds a private key by
                which the server knows the API server.
  agent-ca      certificates by which node agents trust the server, for their
                server.caFile
  cluster-key   a new key by which the server of the cluster NAME reports to a
                hub, for its bus.hub.keyFile; on standard error, the line for
                the hub's bus.leafNodes.clusters
  rotate        prints nothing, but adds a generation to the authority of the
                webhooks; servers that run take it over without a gap

  --config FILE   configuration (default /etc/kubeguardian/config.yaml), for
                  kubeconfig, agent-ca and rotate only
`

const uninstallUsage = `Usage: kubeguardian uninstall [--config FILE]

Removes the webhook registration from the cluster. Its data stays. Servers that
run register it again, unless their namespace has a ConfigMap named uninstall:
then their Leases are removed as well.

  --config FILE   configuration (default /etc/kubeguardian/config.yaml)
`

const defaultConfig = "/etc/kubeguardian/config.yaml"

// badConfig says where a configuration that cannot be used comes from.
func badConfig(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return hinted{err, "name a file by --config; an empty one takes the defaults that docs/configuration.md describes"}
	}
	return hinted{err, "the keys are described in docs/configuration.md"}
}

// configured parses --config and returns the file it names, read.
func configured(command, text string, args []string, out io.Writer) (*config.Config, []string, error) {
	flags := newFlags(command)
	file := flags.String("config", defaultConfig, "")
	rest, err := parse(flags, args, text, out)
	if err != nil {
		return nil, nil, err
	}
	cfg, err := config.Load(*file)
	if err != nil {
		return nil, nil, badConfig(err)
	}
	return cfg, rest, nil
}

// serverOptions reads what serve and uninstall need.
func serverOptions(command, text string, args []string, std streams) (server.Options, error) {
	program, err := os.Executable()
	if err != nil {
		return server.Options{}, fmt.Errorf("find this program: %w", err)
	}
	opts := server.Options{Version: built(), Program: program}
	var rest []string
	if opts.Config, rest, err = configured(command, text, args, std.out); err != nil {
		return opts, err
	}
	if len(rest) > 0 {
		return opts, wrongUsage(command, fmt.Errorf("%s takes no arguments, not %q", command, rest[0]))
	}
	if opts.Cluster, err = restConfig(opts.Config.Kubeconfig, "set kubeconfig in the configuration to a file with credentials"); err != nil {
		return opts, err
	}
	var level slog.Level
	err = level.UnmarshalText([]byte(opts.Config.Log.Level))
	opts.Log = slog.New(slog.NewJSONHandler(std.err, &slog.HandlerOptions{Level: level}))
	return opts, err
}

func serve(ctx context.Context, args []string, std streams) (err error) {
	opts, err := serverOptions("serve", serveUsage, args, std)
	if err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(servePercent)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go allowGarbage(ctx)
	}
	s, err := server.New(ctx, opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	return s.Run(ctx)
}

func setup(ctx context.Context, args []string, std streams) error {
	flags := newFlags("setup")
	file := flags.String("config", defaultConfig, "")
	parts, err := parse(flags, args, setupUsage, std.out)
	if err != nil {
		return err
	}
	if len(parts) > 0 && parts[0] == "cluster-key" {
		if len(parts) != 2 {
			return wrongUsage("setup", errors.New("setup: cluster-key wants the name of one cluster"))
		}
		return clusterKey(parts[1], std)
	}
	if len(parts) != 1 {
		return wrongUsage("setup", errors.New("setup: want one of rbac, roles, replicas, crds, gatekeeper, audit-policy, kubeconfig, agent-ca and rotate, or cluster-key and a name"))
	}
	var data []byte
	switch parts[0] {
	case "rbac":
		data = content.RBAC()
	case "roles":
		data = content.Roles()
	case "replicas":
		data = content.Replicas()
	case "crds":
		data = content.CRDs()
	case "gatekeeper":
		data = content.Gatekeeper()
	case "audit-policy":
		data = content.AuditPolicy()
	case "kubeconfig":
		err = withAuthority(*file, func(cfg *config.Config, cluster *rest.Config) (err error) {
			data, err = server.APIServerKubeconfig(ctx, cfg, cluster)
			return err
		})
	case "agent-ca":
		err = withAuthority(*file, func(cfg *config.Config, cluster *rest.Config) (err error) {
			data, err = server.AgentCA(ctx, cfg, cluster)
			return err
		})
	case "rotate":
		err = withAuthority(*file, func(cfg *config.Config, cluster *rest.Config) error {
			return server.RotateAuthority(ctx, cfg, cluster)
		})
	default:
		err = wrongUsage("setup", fmt.Errorf("setup: unknown part %q", parts[0]))
	}
	if err != nil {
		return err
	}
	_, err = std.out.Write(data)
	return err
}

// clusterKey prints a new key of a cluster, and how its hub knows it.
func clusterKey(name string, std streams) error {
	key, line, err := leaf.NewKey(name)
	if err != nil {
		return fmt.Errorf("setup cluster-key: %w", err)
	}
	if _, err := std.out.Write(key); err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.err, "for bus.leafNodes.clusters of the hub: %s\n", line)
	return err
}

// withAuthority reads what it takes to open the authority of the webhooks: the
// cluster only when it is kept there.
func withAuthority(file string, use func(*config.Config, *rest.Config) error) error {
	cfg, err := config.Load(file)
	if err != nil {
		return err
	}
	var cluster *rest.Config
	if cfg.Webhook.AuthoritySecret != "" {
		if cluster, err = restConfig(cfg.Kubeconfig, "set kubeconfig in the configuration to a file with credentials"); err != nil {
			return err
		}
	}
	return use(cfg, cluster)
}

func uninstall(ctx context.Context, args []string, std streams) error {
	opts, err := serverOptions("uninstall", uninstallUsage, args, std)
	if err != nil {
		return err
	}
	forGood, err := server.Uninstall(ctx, opts)
	if err != nil {
		return err
	}
	text := "The webhook is not registered any more."
	if !forGood {
		text += " A server that still runs registers it again: stop it, or set admission.enabled to false."
	}
	_, err = fmt.Fprintln(std.out, text)
	return err
}
