package inventory

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
)

const (
	pageSize     = 500
	reachTimeout = 10 * time.Second // until a silent cluster counts as unreachable
	listTimeout  = 2 * time.Minute  // for all pages of one kind
)

// A resource is a kind that is read from a cluster.
type resource struct {
	schema.GroupVersionResource
	kind     string
	optional bool // custom: a cluster that does not serve it has none
}

func (r resource) groupKind() schema.GroupKind {
	return schema.GroupKind{Group: r.Group, Kind: r.kind}
}

// object is what an inventory holds of a live object.
func (r resource) object(u *unstructured.Unstructured) *Object {
	return &Object{Unstructured: u, Normal: r.builtIn()}
}

// clusterResources lists what controls and checks read, and nothing else, since
// each kind is a permission (content/rbac.yaml) and a watch. Secrets are not
// among them.
var clusterResources = []resource{
	{schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}, "Namespace", false},
	{schema.GroupVersionResource{Version: "v1", Resource: "pods"}, "Pod", false},
	{schema.GroupVersionResource{Version: "v1", Resource: "replicationcontrollers"}, "ReplicationController", false},
	{schema.GroupVersionResource{Version: "v1", Resource: "services"}, "Service", false},
	{schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}, "ServiceAccount", false},
	{schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}, "ConfigMap", false},
	{schema.GroupVersionResource{Version: "v1", Resource: "limitranges"}, "LimitRange", false},
	{schema.GroupVersionResource{Version: "v1", Resource: "nodes"}, "Node", false},
	{schema.GroupVersionResource{Version: "v1", Resource: "persistentvolumeclaims"}, "PersistentVolumeClaim", false},
	{schema.GroupVersionResource{Version: "v1", Resource: "persistentvolumes"}, "PersistentVolume", false},
	{schema.GroupVersionResource{Version: "v1", Resource: "resourcequotas"}, "ResourceQuota", false},
	{schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations"}, "MutatingWebhookConfiguration", false},
	{schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicies"}, "ValidatingAdmissionPolicy", false},
	{schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicybindings"}, "ValidatingAdmissionPolicyBinding", false},
	{schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingwebhookconfigurations"}, "ValidatingWebhookConfiguration", false},
	{schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}, "Deployment", false},
	{schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "statefulsets"}, "StatefulSet", false},
	{schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "daemonsets"}, "DaemonSet", false},
	{schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "replicasets"}, "ReplicaSet", false},
	{schema.GroupVersionResource{Group: "autoscaling", Version: "v2", Resource: "horizontalpodautoscalers"}, "HorizontalPodAutoscaler", false},
	{schema.GroupVersionResource{Group: "batch", Version: "v1", Resource: "jobs"}, "Job", false},
	{schema.GroupVersionResource{Group: "batch", Version: "v1", Resource: "cronjobs"}, "CronJob", false},
	{schema.GroupVersionResource{Group: "networking.k8s.io", Version: "v1", Resource: "ingresses"}, "Ingress", false},
	{schema.GroupVersionResource{Group: "networking.k8s.io", Version: "v1", Resource: "networkpolicies"}, "NetworkPolicy", false},
	{schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "roles"}, "Role", false},
	{schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"}, "RoleBinding", false},
	{schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"}, "ClusterRole", false},
	{schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"}, "ClusterRoleBinding", false},
	{schema.GroupVersionResource{Group: "storage.k8s.io", Version: "v1", Resource: "storageclasses"}, "StorageClass", false},

	{schema.GroupVersionResource{Group: "argoproj.io", Version: "v1alpha1", Resource: "applications"}, "Application", true},
	{schema.GroupVersionResource{Group: "bitnami.com", Version: "v1alpha1", Resource: "sealedsecrets"}, "SealedSecret", true},
	{schema.GroupVersionResource{Group: "cert-manager.io", Version: "v1", Resource: "certificates"}, "Certificate", true},
	{schema.GroupVersionResource{Group: "cilium.io", Version: "v2", Resource: "ciliumclusterwidenetworkpolicies"}, "CiliumClusterwideNetworkPolicy", true},
	{schema.GroupVersionResource{Group: "cilium.io", Version: "v2", Resource: "ciliumnetworkpolicies"}, "CiliumNetworkPolicy", true},
	{schema.GroupVersionResource{Group: "crd.projectcalico.org", Version: "v1", Resource: "globalnetworkpolicies"}, "GlobalNetworkPolicy", true},
	{schema.GroupVersionResource{Group: "crd.projectcalico.org", Version: "v1", Resource: "networkpolicies"}, "NetworkPolicy", true},
	{schema.GroupVersionResource{Group: "external-secrets.io", Version: "v1", Resource: "externalsecrets"}, "ExternalSecret", true},
	{schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gateways"}, "Gateway", true},
	{schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"}, "HTTPRoute", true},
	{schema.GroupVersionResource{Group: "helm.toolkit.fluxcd.io", Version: "v2", Resource: "helmreleases"}, "HelmRelease", true},
	{schema.GroupVersionResource{Group: "kubeguardian.dev", Version: "v1alpha1", Resource: "imagepolicies"}, "ImagePolicy", true},
	{schema.GroupVersionResource{Group: "kubeguardian.dev", Version: "v1alpha1", Resource: "securityexceptions"}, "SecurityException", true},
	{schema.GroupVersionResource{Group: "kustomize.toolkit.fluxcd.io", Version: "v1", Resource: "kustomizations"}, "Kustomization", true},
	{schema.GroupVersionResource{Group: "kyverno.io", Version: "v1", Resource: "clusterpolicies"}, "ClusterPolicy", true},
	{schema.GroupVersionResource{Group: "kyverno.io", Version: "v1", Resource: "policies"}, "Policy", true},
	{schema.GroupVersionResource{Group: "policy.linkerd.io", Version: "v1alpha1", Resource: "authorizationpolicies"}, "AuthorizationPolicy", true},
	{schema.GroupVersionResource{Group: "policy.linkerd.io", Version: "v1beta3", Resource: "servers"}, "Server", true},
	{schema.GroupVersionResource{Group: "policy.networking.k8s.io", Version: "v1alpha1", Resource: "adminnetworkpolicies"}, "AdminNetworkPolicy", true},
	{schema.GroupVersionResource{Group: "policy.networking.k8s.io", Version: "v1alpha1", Resource: "baselineadminnetworkpolicies"}, "BaselineAdminNetworkPolicy", true},
	{schema.GroupVersionResource{Group: "policy.networking.k8s.io", Version: "v1alpha2", Resource: "clusternetworkpolicies"}, "ClusterNetworkPolicy", true},
	{schema.GroupVersionResource{Group: "postgresql.cnpg.io", Version: "v1", Resource: "scheduledbackups"}, "ScheduledBackup", true},
	{schema.GroupVersionResource{Group: "secrets-store.csi.x-k8s.io", Version: "v1", Resource: "secretproviderclasses"}, "SecretProviderClass", true},
	{schema.GroupVersionResource{Group: "security.istio.io", Version: "v1", Resource: "authorizationpolicies"}, "AuthorizationPolicy", true},
	{schema.GroupVersionResource{Group: "security.istio.io", Version: "v1", Resource: "peerauthentications"}, "PeerAuthentication", true},
	{schema.GroupVersionResource{Group: "snapshot.storage.k8s.io", Version: "v1", Resource: "volumesnapshots"}, "VolumeSnapshot", true},
	{schema.GroupVersionResource{Group: "velero.io", Version: "v1", Resource: "schedules"}, "Schedule", true},
}

// secretsGap stands in every inventory of a cluster.
var secretsGap = Gap{Kind: schema.GroupKind{Kind: "Secret"}, Reason: "secret contents are not read"}

// FromCluster reads the kinds that controls judge, never Secrets. A kind that
// the credentials may not list becomes a [Gap]; if that is so for every kind,
// or the cluster cannot be reached, it is an error, which may have a method
// Hint() string.
func FromCluster(ctx context.Context, config *rest.Config) (*Inventory, error) {
	client, err := connect(ctx, config)
	if err != nil {
		return nil, err
	}
	gaps := []Gap{secretsGap}
	var objects []*Object
	about := ask(ctx, config)
	for _, r := range about.resources() {
		all, err := client.list(ctx, r)
		if reason := gapReason(r, err); reason != "" {
			gaps = r.appendGap(gaps, reason)
		} else if err != nil {
			return nil, fmt.Errorf("list %s: %w", r.Resource, err)
		} else {
			for i := range all.Items {
				objects = append(objects, r.object(&all.Items[i]))
			}
		}
	}
	if len(gaps) > len(about.resources()) {
		return nil, hint(fmt.Errorf("read cluster %s: these credentials may list nothing", config.Host),
			"see what they may do: kubectl auth can-i --list")
	}
	return about.inventory(objects, gaps, newTemplates())
}

// connect checks that the cluster answers and accepts the credentials.
func connect(ctx context.Context, config *rest.Config) (*client, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = 50, 100
	config.WarningHandler = rest.NoWarnings{}
	client, err := newClient(config)
	if err != nil {
		return nil, fmt.Errorf("connect to cluster %s: %w", config.Host, err)
	}
	if err = client.probe(ctx, clusterResources[0]); err == nil || apierrors.IsForbidden(err) {
		return client, nil
	}
	if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w within %s", errNoAnswer, reachTimeout)
	}
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err
	}
	advice := "check the kubeconfig, and that the API server runs"
	if apierrors.IsUnauthorized(err) {
		advice = "the credentials in the kubeconfig are not valid, or no longer"
	}
	return nil, hint(fmt.Errorf("reach cluster %s: %w", config.Host, err), advice)
}

var errNoAnswer = errors.New("no answer")

// Passing reports whether an error of [FromCluster] or [Watch] is one of a
// cluster that answers late, or that it cannot answer now: asking again may help.
func Passing(err error) bool {
	return errors.Is(err, errNoAnswer) || errors.Is(err, context.DeadlineExceeded) ||
		apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err) || apierrors.IsTooManyRequests(err) ||
		apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err)
}

// probe lists at most one object.
func (c *client) probe(ctx context.Context, r resource) error {
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	_, err := c.page(ctx, r, metav1.ListOptions{Limit: 1})
	return err
}

// notServed is the reason of a gap that is none for an optional kind.
func (r resource) notServed() string { return r.Resource + " are not served by this cluster" }

// appendGap adds the gap of a kind, unless the cluster simply has none of it.
func (r resource) appendGap(gaps []Gap, reason string) []Gap {
	if r.optional && reason == r.notServed() {
		return gaps
	}
	return append(gaps, Gap{r.groupKind(), reason})
}

// gapReason says why a kind cannot be read when that is no fault of the
// connection, or "".
func gapReason(r resource, err error) string {
	switch {
	case apierrors.IsForbidden(err):
		return "not permitted to list " + r.Resource
	case apierrors.IsNotFound(err), apierrors.IsMethodNotSupported(err):
		return r.notServed()
	}
	return ""
}
