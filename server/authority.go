package server

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kubeguardian/kubeguardian/admission"
	"github.com/kubeguardian/kubeguardian/config"
)

// authorityWait bounds how long a start waits for the Secret of the authority.
const authorityWait = 30 * time.Second

// ownNamespace returns the namespace of the server, which admission never
// checks: that of the Service, or that of content.RBAC.
func ownNamespace(cfg *config.Config) string {
	if namespace := cfg.Webhook.Service.Namespace; namespace != "" {
		return namespace
	}
	return "kubeguardian"
}

// openAuthority opens the authority of the webhooks, where the configuration
// says it is kept. A Secret takes the cluster.
func openAuthority(ctx context.Context, cfg *config.Config, cluster *rest.Config) (*admission.Authority, error) {
	keys := admission.FileKeys(filepath.Join(cfg.DataDir, "pki"))
	if name := cfg.Webhook.AuthoritySecret; name != "" {
		client, err := kubernetes.NewForConfig(cluster)
		if err != nil {
			return nil, fmt.Errorf("connect to cluster: %w", err)
		}
		keys = admission.SecretKeys(client, ownNamespace(cfg), name)
	}
	ctx, cancel := context.WithTimeout(ctx, authorityWait)
	defer cancel()
	authority, err := admission.OpenAuthority(ctx, keys)
	if err != nil || cfg.Webhook.ClientCAFile == "" {
		return authority, err
	}
	text, err := os.ReadFile(cfg.Webhook.ClientCAFile)
	if err != nil {
		return nil, fmt.Errorf("read webhook.clientCAFile: %w", err)
	}
	if err := authority.TrustClients(text, cfg.Webhook.ClientNames...); err != nil {
		return nil, fmt.Errorf("read webhook.clientCAFile %s: %w", cfg.Webhook.ClientCAFile, err)
	}
	return authority, nil
}

// APIServerKubeconfig returns the kubeconfig by which the API server reaches
// the server's webhooks and proves who it is. The authority is made when there
// is none yet, so this may run before the first start. Only an authority in a
// Secret needs the cluster.
func APIServerKubeconfig(ctx context.Context, cfg *config.Config, cluster *rest.Config) ([]byte, error) {
	authority, err := openAuthority(ctx, cfg, cluster)
	if err != nil {
		return nil, err
	}
	address := cfg.Webhook.URL
	if service := cfg.Webhook.Service; service.Name != "" {
		address = "https://" + net.JoinHostPort(webhookHosts(cfg.Webhook)[0], fmt.Sprint(service.Port))
	}
	return authority.Kubeconfig(address + auditPath)
}

// AgentCA returns the certificates by which node agents trust the embedded bus,
// in PEM. The authority is made when there is none yet.
func AgentCA(ctx context.Context, cfg *config.Config, cluster *rest.Config) ([]byte, error) {
	authority, err := openAuthority(ctx, cfg, cluster)
	if err != nil {
		return nil, err
	}
	return authority.CABundle(), nil
}

// RotateAuthority makes a new generation of the authority. Running servers take
// it over with their next check of the registration.
func RotateAuthority(ctx context.Context, cfg *config.Config, cluster *rest.Config) error {
	authority, err := openAuthority(ctx, cfg, cluster)
	if err != nil {
		return err
	}
	return authority.Rotate(ctx)
}

// publish writes the authority where agents find it, when it is another one.
func (s *Server) publish(ctx context.Context) error {
	namespace, name, ok := strings.Cut(s.cfg.Bus.AuthorityConfigMap, "/")
	bundle := s.authority.CABundle()
	if !ok || bytes.Equal(bundle, s.published) {
		return nil
	}
	if err := admission.Publish(ctx, s.client, namespace, name, bundle); err != nil {
		return err
	}
	s.published = bundle
	return nil
}
