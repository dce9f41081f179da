package podsecurity

import (
	"cmp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// A Context is what a container runs with: its own security context merged with
// that of its pod, as the kubelet does it before it starts the container. What
// neither says is unset, and up to the image and the runtime.
type Context struct {
	Container string
	Ephemeral bool
	corev1.SecurityContext
}

// Contexts returns the context of each container of a pod, init containers
// first and ephemeral ones last.
func Contexts(pod *corev1.PodTemplateSpec) []Context {
	var out []Context
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		out = append(out, Context{c.Name, false, merge(pod, c.Name, c.SecurityContext)})
	}
	for _, c := range pod.Spec.EphemeralContainers {
		out = append(out, Context{c.Name, true, merge(pod, c.Name, c.SecurityContext)})
	}
	return out
}

// merge lets the container's word count before the pod's, field by field. An
// SELinux label and a profile are replaced as a whole; of the Windows options
// each counts for itself. Privileges, capabilities, the root filesystem and
// /proc are the container's alone.
func merge(pod *corev1.PodTemplateSpec, name string, own *corev1.SecurityContext) corev1.SecurityContext {
	var out corev1.SecurityContext
	if own != nil {
		out = *own
	}
	of := pod.Spec.SecurityContext
	if of == nil {
		of = &corev1.PodSecurityContext{}
	}
	out.SELinuxOptions = cmp.Or(out.SELinuxOptions, of.SELinuxOptions)
	out.RunAsUser = cmp.Or(out.RunAsUser, of.RunAsUser)
	out.RunAsGroup = cmp.Or(out.RunAsGroup, of.RunAsGroup)
	out.RunAsNonRoot = cmp.Or(out.RunAsNonRoot, of.RunAsNonRoot)
	out.SeccompProfile = cmp.Or(out.SeccompProfile, of.SeccompProfile)
	out.AppArmorProfile = cmp.Or(out.AppArmorProfile, annotated(pod, name), of.AppArmorProfile)
	out.WindowsOptions = windows(out.WindowsOptions, of.WindowsOptions)
	return out
}

// windows merges the options of Windows; a credential and its name go together.
func windows(own, pod *corev1.WindowsSecurityContextOptions) *corev1.WindowsSecurityContextOptions {
	if own == nil || pod == nil {
		return cmp.Or(own, pod)
	}
	out := *own
	if own.GMSACredentialSpecName == nil && own.GMSACredentialSpec == nil {
		out.GMSACredentialSpecName, out.GMSACredentialSpec = pod.GMSACredentialSpecName, pod.GMSACredentialSpec
	}
	out.RunAsUserName = cmp.Or(own.RunAsUserName, pod.RunAsUserName)
	out.HostProcess = cmp.Or(own.HostProcess, pod.HostProcess)
	return &out
}

// appArmor is how a pod named the AppArmor profile of a container before there
// was a field for it. The API server copies it into the field of a pod; in the
// template of a workload it stands alone.
const appArmor = "container.apparmor.security.beta.kubernetes.io/"

func annotated(pod *corev1.PodTemplateSpec, container string) *corev1.AppArmorProfile {
	value := pod.Annotations[appArmor+container]
	switch profile, local := strings.CutPrefix(value, "localhost/"); {
	case value == "":
		return nil
	case value == "runtime/default":
		return &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeRuntimeDefault}
	case local:
		return &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: &profile}
	}
	return &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined}
}
