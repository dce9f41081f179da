package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// An attempt is one way around admission: its error is what the API server
// answered.
type attempt func(ctx context.Context, t *testing.T, d *deployment) error

// attempts has a way for each row of the table in docs/admission.md.
var attempts = map[string]attempt{
	"init container": func(ctx context.Context, _ *testing.T, d *deployment) error {
		p := harmless("init")
		p.Spec.InitContainers = pod("", "", true).Spec.Containers
		p.Spec.InitContainers[0].Name = "init"
		return d.createPod(ctx, d.client, p)
	},
	"ephemeral container": func(ctx context.Context, t *testing.T, d *deployment) error {
		p := d.existingPod(ctx, t, "debugged")
		p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
			Name: "debug", Image: "registry.example.com/tool:1.0", SecurityContext: &corev1.SecurityContext{Privileged: new(true)},
		}}}
		_, err := d.client.CoreV1().Pods("default").UpdateEphemeralContainers(ctx, p.Name, p, metav1.UpdateOptions{})
		return err
	},
	"generateName": func(ctx context.Context, _ *testing.T, d *deployment) error {
		p := pod("default", "", true)
		p.GenerateName = "generated-"
		return d.createPod(ctx, d.client, p)
	},
	"update": func(ctx context.Context, t *testing.T, d *deployment) error {
		c := d.existingConfig(ctx, t, "updated", nil)
		c.Data = map[string]string{"bad": "true"}
		_, err := d.client.CoreV1().ConfigMaps("default").Update(ctx, c, metav1.UpdateOptions{})
		return err
	},
	"patches of all types": func(ctx context.Context, t *testing.T, d *deployment) error {
		d.existingConfig(ctx, t, "patched", nil)
		for kind, patch := range map[types.PatchType]string{
			types.JSONPatchType:           `[{"op":"add","path":"/data","value":{"bad":"true"}}]`,
			types.MergePatchType:          `{"data":{"bad":"true"}}`,
			types.StrategicMergePatchType: `{"data":{"bad":"true"}}`,
		} {
			_, err := d.client.CoreV1().ConfigMaps("default").Patch(ctx, "patched", kind, []byte(patch), metav1.PatchOptions{})
			if !apierrors.IsForbidden(err) {
				return fmt.Errorf("%s: %v", kind, err)
			}
		}
		return denied()
	},
	"server-side apply": func(ctx context.Context, _ *testing.T, d *deployment) error {
		_, err := d.client.CoreV1().ConfigMaps("default").Patch(ctx, "applied", types.ApplyPatchType,
			[]byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"applied"},"data":{"bad":"true"}}`), metav1.PatchOptions{FieldManager: "test"})
		return err
	},
	"protobuf": func(ctx context.Context, _ *testing.T, d *deployment) error {
		config := rest.CopyConfig(d.admin)
		config.ContentType = "application/vnd.kubernetes.protobuf"
		return d.createPod(ctx, kubernetes.NewForConfigOrDie(config), pod("default", "protobuf", true))
	},
	"other version of the kind": func(ctx context.Context, _ *testing.T, d *deployment) error {
		_, err := d.client.AutoscalingV1().HorizontalPodAutoscalers("default").Create(ctx, &autoscalingv1.HorizontalPodAutoscaler{
			ObjectMeta: metav1.ObjectMeta{Name: "old"},
			Spec:       autoscalingv1.HorizontalPodAutoscalerSpec{MaxReplicas: 1000, ScaleTargetRef: autoscalingv1.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"}},
		}, metav1.CreateOptions{})
		return err
	},
	"template of a controller": func(ctx context.Context, _ *testing.T, d *deployment) error {
		job := batchv1.JobSpec{Template: template()}
		job.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
		_, err := d.client.BatchV1().CronJobs("default").Create(ctx, &batchv1.CronJob{
			ObjectMeta: metav1.ObjectMeta{Name: "nightly"}, Spec: batchv1.CronJobSpec{Schedule: "0 0 * * *", JobTemplate: batchv1.JobTemplateSpec{Spec: job}},
		}, metav1.CreateOptions{})
		if !apierrors.IsForbidden(err) {
			return fmt.Errorf("CronJob: %v", err)
		}
		_, err = d.client.AppsV1().Deployments("default").Create(ctx, deploymentOf("template", 1), metav1.CreateOptions{})
		return err
	},
	"pod by a controller's account": func(ctx context.Context, t *testing.T, d *deployment) error {
		return d.createPod(ctx, d.as(t, rest.ImpersonationConfig{UserName: "system:serviceaccount:kube-system:replicaset-controller"}), pod("default", "by-controller", true))
	},
	"scale subresource": func(ctx context.Context, t *testing.T, d *deployment) error {
		web := deploymentOf("scaled", 1)
		web.Spec.Template.Spec = harmless("").Spec
		if _, err := d.client.AppsV1().Deployments("default").Create(ctx, web, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		scale, err := d.client.AppsV1().Deployments("default").GetScale(ctx, "scaled", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		scale.ResourceVersion = "" // a controller may write meanwhile
		scale.Spec.Replicas = 1000
		_, err = d.client.AppsV1().Deployments("default").UpdateScale(ctx, "scaled", scale, metav1.UpdateOptions{})
		return err
	},
	"status subresource": func(ctx context.Context, t *testing.T, d *deployment) error {
		s, err := d.client.CoreV1().Services("default").Create(ctx, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: "borrowed"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 80}}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.1"}}
		_, err = d.client.CoreV1().Services("default").UpdateStatus(ctx, s, metav1.UpdateOptions{})
		return err
	},
	"deletion": func(ctx context.Context, t *testing.T, d *deployment) error {
		d.existingConfig(ctx, t, "kept", map[string]string{"keep": "true"})
		return d.client.CoreV1().ConfigMaps("default").Delete(ctx, "kept", metav1.DeleteOptions{})
	},
	"collection of deletions": func(ctx context.Context, t *testing.T, d *deployment) error {
		d.existingConfig(ctx, t, "kept-too", map[string]string{"keep": "true", "collection": "true"})
		return d.client.CoreV1().ConfigMaps("default").DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "collection=true"})
	},
	"exec": func(ctx context.Context, t *testing.T, d *deployment) error {
		d.existingPod(ctx, t, "entered")
		return d.client.CoreV1().RESTClient().Post().Namespace("default").Resource("pods").Name("entered").SubResource("exec").
			Param("command", "sh").Param("stdout", "true").Do(ctx).Error()
	},
	"dry run": func(ctx context.Context, _ *testing.T, d *deployment) error {
		_, err := d.client.CoreV1().Pods("default").Create(ctx, pod("default", "rehearsed", true), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	},
	"label that exempts elsewhere": func(ctx context.Context, _ *testing.T, d *deployment) error {
		p := pod("default", "labelled", true)
		p.Labels = map[string]string{"admission.gatekeeper.sh/ignore": "true", "kubeguardian.dev/ignore": "true", "kubernetes.io/metadata.name": "kube-system"}
		return d.createPod(ctx, d.client, p)
	},
	"forged name label of a namespace": func(ctx context.Context, t *testing.T, d *deployment) error {
		forged := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "forged", Labels: map[string]string{corev1.LabelMetadataName: "kube-system"}}}
		if _, err := d.client.CoreV1().Namespaces().Create(ctx, forged, metav1.CreateOptions{}); err != nil && !apierrors.IsInvalid(err) {
			t.Fatal(err)
		} else if err != nil { // the API server refuses it at once: then without
			forged.Labels = nil
			if _, err := d.client.CoreV1().Namespaces().Create(ctx, forged, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		return d.createPod(ctx, d.client, pod("forged", "forged", true))
	},
	"namespace relabelled at the same moment": func(ctx context.Context, t *testing.T, d *deployment) error {
		production := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "production", Labels: map[string]string{"stage": "production"}}}
		if _, err := d.client.CoreV1().Namespaces().Create(ctx, production, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		relabelled := make(chan error, 1)
		go func() {
			_, err := d.client.CoreV1().Namespaces().Patch(ctx, "production", types.MergePatchType, []byte(`{"metadata":{"labels":{"stage":null}}}`), metav1.PatchOptions{})
			relabelled <- err
		}()
		_, err := d.client.CoreV1().ConfigMaps("production").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "by-hand"}}, metav1.CreateOptions{})
		if other := <-relabelled; !apierrors.IsForbidden(other) {
			return fmt.Errorf("relabel: %v", other)
		}
		return err
	},
	"image tag that is moved later": func(ctx context.Context, _ *testing.T, d *deployment) error {
		return d.createPod(ctx, d.client, harmless("tagged"))
	},
	"pod of a node": func(ctx context.Context, t *testing.T, d *deployment) error {
		p := pod("default", "of-a-node", true)
		p.Spec.NodeName = "a"
		return d.createPod(ctx, d.as(t, rest.ImpersonationConfig{UserName: "system:node:a", Groups: []string{"system:nodes"}}), p)
	},
	"group of nodes by impersonation": func(ctx context.Context, t *testing.T, d *deployment) error {
		return d.createPod(ctx, d.as(t, rest.ImpersonationConfig{UserName: "mallory", Groups: []string{"system:nodes", "example:pod-makers"}}), pod("default", "by-group", true))
	},
	"exempt namespace": func(ctx context.Context, _ *testing.T, d *deployment) error {
		return d.createPod(ctx, d.client, pod("kube-system", "exempt", true))
	},
	"name of the API server by impersonation": func(ctx context.Context, t *testing.T, d *deployment) error {
		return d.createPod(ctx, d.as(t, rest.ImpersonationConfig{UserName: "system:apiserver", Groups: []string{"example:pod-makers"}}), pod("default", "impersonated", true))
	},
	"webhook and policy configuration": func(ctx context.Context, _ *testing.T, d *deployment) error {
		_, err := d.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(ctx, &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "other"}}, metav1.CreateOptions{})
		return err
	},
}

// testBypass makes each attempt of the table in docs/admission.md.
func (d *deployment) testBypass(t *testing.T) {
	d.awaitAccount(t)
	d.letMakePods(t, "example:pod-makers")
	rows := bypassTable(t)
	for name, outcome := range rows {
		try := attempts[name]
		if try == nil {
			t.Errorf("docs/admission.md: nothing tries %q", name)
			continue
		}
		t.Run(name, func(t *testing.T) {
			err := try(t.Context(), t, d)
			byUs := apierrors.IsForbidden(err) && strings.Contains(err.Error(), ".kubeguardian.dev")
			got := "passes"
			switch {
			case byUs:
				got = "denied"
			case apierrors.IsForbidden(err):
				got = "refused"
			case err != nil:
				t.Fatal(err)
			}
			if got != outcome {
				t.Errorf("%s, the table says %s: %v", got, outcome, err)
			}
		})
	}
	for name := range attempts {
		if rows[name] == "" {
			t.Errorf("docs/admission.md does not say what becomes of %q", name)
		}
	}
}

// bypassTable returns the outcomes of the table, by attempt.
func bypassTable(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/admission.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "| attempt | outcome |")
	if !found {
		t.Fatal("docs/admission.md has no table of attempts")
	}
	rows := map[string]string{}
	for line := range strings.Lines(table) {
		if cells := strings.Split(line, "|"); len(cells) == 5 && !strings.Contains(line, "---") {
			rows[strings.TrimSpace(cells[1])] = strings.TrimSpace(cells[2])
		}
	}
	return rows
}

// denied is the answer when several requests were all denied.
func denied() error {
	return apierrors.NewForbidden(corev1.Resource("configmaps"), "", fmt.Errorf("each of them by policies.kubeguardian.dev"))
}

// awaitAccount waits for the service account without which no pod is admitted.
func (d *deployment) awaitAccount(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		_, err := d.client.CoreV1().ServiceAccounts("default").Get(t.Context(), "default", metav1.GetOptions{})
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// letMakePods gives a group the right to create pods in the default namespace.
func (d *deployment) letMakePods(t *testing.T, group string) {
	t.Helper()
	_, err := d.client.RbacV1().RoleBindings("default").Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "pod-makers"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "edit"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "Group", Name: group}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func (d *deployment) as(t *testing.T, who rest.ImpersonationConfig) kubernetes.Interface {
	t.Helper()
	config := rest.CopyConfig(d.admin)
	config.Impersonate = who
	if who.Groups == nil {
		config.Impersonate.Groups = []string{"system:authenticated", "system:serviceaccounts"}
	}
	return kubernetes.NewForConfigOrDie(config)
}

func (d *deployment) createPod(ctx context.Context, client kubernetes.Interface, p *corev1.Pod) error {
	if p.Namespace != "default" && p.Namespace != "kube-system" { // a new one has no account yet
		p.Spec.ServiceAccountName, p.Spec.AutomountServiceAccountToken = "", new(false)
		for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			if _, err := d.client.CoreV1().ServiceAccounts(p.Namespace).Get(ctx, "default", metav1.GetOptions{}); err == nil {
				break
			}
		}
	}
	_, err := client.CoreV1().Pods(p.Namespace).Create(ctx, p, metav1.CreateOptions{})
	return err
}

func harmless(name string) *corev1.Pod { return pod("default", name, false) }

func (d *deployment) existingPod(ctx context.Context, t *testing.T, name string) *corev1.Pod {
	t.Helper()
	p, err := d.client.CoreV1().Pods("default").Create(ctx, harmless(name), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// The scheduler may have written it meanwhile, which is no matter here.
	if p, err = d.client.CoreV1().Pods("default").Get(ctx, p.Name, metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	p.ResourceVersion = ""
	return p
}

func (d *deployment) existingConfig(ctx context.Context, t *testing.T, name string, labels map[string]string) *corev1.ConfigMap {
	t.Helper()
	c, err := d.client.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func template() corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}}, Spec: pod("", "", true).Spec}
}

func deploymentOf(name string, replicas int32) *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       appsv1.DeploymentSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}, Template: template()},
	}
}
