package content_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/kubeguardian/kubeguardian/check/podsecurity"
	"github.com/kubeguardian/kubeguardian/policy"
)

// standards are the checks of the Pod Security Standards, by the names of their
// files, and which of our controls stand for each: at least one of them fails
// where the check does.
var standards = map[string][]string{
	"allowprivilegeescalation":   {"CON-SEC-02"},
	"apparmorprofile":            {"CON-SEC-09"},
	"capabilities_baseline":      {"CON-SEC-04"},
	"capabilities_restricted":    {"CON-SEC-05"},
	"hostnamespaces":             {"CON-SEC-10", "CON-SEC-11"},
	"hostpathvolumes":            {"CON-SEC-13"},
	"hostports":                  {"CON-SEC-12"},
	"hostprobesandhostlifecycle": {"CON-SEC-23"},
	"privileged":                 {"CON-SEC-01"},
	"procmount":                  {"CON-SEC-16"},
	"procmount_restricted":       {"CON-SEC-16"},
	"restrictedvolumes":          {"CON-SEC-21"},
	"runasnonroot":               {"CON-SEC-03"},
	"runasuser":                  {"CON-SEC-03"},
	"seccompprofile_baseline":    {"CON-SEC-08"},
	"seccompprofile_restricted":  {"CON-SEC-08"},
	"selinuxoptions":             {"CON-SEC-09"},
	"sysctls":                    {"CON-SEC-17"},
	"windowshostprocess":         {"CON-SEC-18"},
}

// since are the versions in which the standards took up what a control
// demands, where that was not always so.
var since = map[string]string{"CON-SEC-02": "1.8", "CON-SEC-05": "1.22", "CON-SEC-06": "1.22", "CON-SEC-08": "1.19", "CON-SEC-23": "1.34"}

// A labelledPod is one file of the module of Pod Security admission.
type labelledPod struct {
	file    string
	level   string // baseline or restricted
	version *version.Version
	check   string // by the name of the file: the check that it was written for, or base
	passes  bool
	pod     *unstructured.Unstructured // shared by files of the same text
}

// labelledPods reads the labelled pods, and fails if there are none.
func labelledPods(t *testing.T) []labelledPod {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/pod-security-admission").Output()
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(strings.TrimSpace(string(out)), "test", "testdata")
	files, err := filepath.Glob(filepath.Join(root, "*", "*", "*", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]*unstructured.Unstructured{}
	var pods []labelledPod
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name, err := filepath.Rel(root, file)
		if err != nil {
			t.Fatal(err)
		}
		if seen[string(data)] == nil {
			seen[string(data)] = parse(t, data)
		}
		parts := strings.Split(filepath.ToSlash(name), "/")
		pods = append(pods, labelledPod{
			file: name, level: parts[0], version: version.MustParseGeneric(parts[1]), passes: parts[2] == "pass",
			check: strings.TrimRight(strings.TrimSuffix(parts[3], ".yaml"), "0123456789"), pod: seen[string(data)],
		})
	}
	if len(pods) < 4000 || len(seen) < 200 {
		t.Fatalf("%d labelled pods, %d of them different, under %s: want more", len(pods), len(seen), root)
	}
	return pods
}

// at reports whether a failure of a control counts at the level and version of
// the pod: breaks is the lowest level that forbids it now.
func (p *labelledPod) at(control, breaks string) bool {
	if s, late := since[control]; late && p.version.LessThan(version.MustParseGeneric(s)) {
		return false
	}
	relaxed := control == "CON-SEC-16" && p.version.AtLeast(version.MustParseGeneric("1.35")) // in a user namespace
	return p.level == "restricted" || breaks == "baseline" || control == "CON-SEC-16" && !relaxed
}

// outdated reports whether the pod fails by what no version has any more:
// seccomp profiles were annotations before 1.19.
func (p *labelledPod) outdated() bool {
	return !p.passes && p.check == "seccompprofile_baseline" && p.version.LessThan(version.MustParseGeneric("1.19"))
}

// TestPodSecurityLabels compares the controls that are mapped to the Pod
// Security Standards with the label of every pod, of all versions: a pod that
// passes a level fails no control of that level, and one that fails it fails a
// control of the check that it was written for.
func TestPodSecurityLabels(t *testing.T) {
	levels, set := podSecurityLevels(t), loadPolicies(t)
	verdicts := map[*unstructured.Unstructured]map[string]string{}
	judged, newest, outdated := 0, 0, 0
	for _, p := range labelledPods(t) {
		controls, known := standards[p.check]
		if !known && p.check != "base" && !strings.HasPrefix(p.check, "base_") {
			t.Errorf("%s: check %q is not in the table", p.file, p.check)
		}
		if p.outdated() {
			outdated++
			continue
		}
		all, known := verdicts[p.pod]
		if !known {
			all = failures(t, set, levels, p.pod)
			verdicts[p.pod] = all
		}
		failed := slices.DeleteFunc(slices.Sorted(maps.Keys(all)), func(id string) bool { return !p.at(id, all[id]) })
		if p.passes && len(failed) > 0 {
			t.Errorf("%s: passes, but fails %v", p.file, failed)
		}
		if !p.passes && !slices.ContainsFunc(controls, func(id string) bool { return slices.Contains(failed, id) }) {
			t.Errorf("%s: fails, but of %v only %v does", p.file, controls, failed)
		}
		judged++
		if p.version.AtLeast(version.MustParseGeneric("1.33")) {
			newest++
		}
	}
	t.Logf("%d labelled pods (%d different) judged by %d controls, %d of them of v1.33 and later; %d outdated ones left out",
		judged, len(verdicts), len(levels), newest, outdated)
	if newest < 700 {
		t.Errorf("%d pods of v1.33 and later: want more", newest)
	}
}

// podSecurityLevels returns the levels of the standards at which each control
// that is mapped to them counts.
func podSecurityLevels(t *testing.T) map[string][]string {
	t.Helper()
	levels := map[string][]string{}
	for _, ctl := range loadControls(t).Controls() {
		entry := strings.Join(ctl.Frameworks["pss"], " ")
		if !strings.HasPrefix(ctl.ID, "CON-SEC-") || entry == "" {
			continue
		}
		for _, level := range []string{"baseline", "restricted"} {
			if strings.Contains(entry, level) {
				levels[ctl.ID] = append(levels[ctl.ID], level)
			}
		}
	}
	if len(levels) < 15 {
		t.Fatalf("%d controls are mapped to the Pod Security Standards: want more", len(levels))
	}
	return levels
}

// failures returns the controls that a pod fails, each with the lowest level of
// the Pod Security Standards that it breaks.
func failures(t *testing.T, set *policy.Set, levels map[string][]string, pod *unstructured.Unstructured) map[string]string {
	t.Helper()
	out := map[string]string{}
	req := create(t, pod)
	for _, p := range set.Policies() {
		id := p.Annotation(controlAnnotation)
		if len(levels[id]) == 0 {
			continue
		}
		_, violations := check(t, p, req)
		for _, v := range violations {
			out[id] = levels[id][0]
			if len(levels[id]) > 1 {
				out[id] = v.Details["level"]
			}
		}
	}
	return out
}

// offends says of the context that one container runs with whether a check
// forbids it, as far as contexts speak.
var offends = map[string]func(c *podsecurity.Context) bool{
	"allowprivilegeescalation": func(c *podsecurity.Context) bool {
		return c.AllowPrivilegeEscalation == nil || *c.AllowPrivilegeEscalation
	},
	"apparmorprofile": func(c *podsecurity.Context) bool {
		return c.AppArmorProfile != nil && c.AppArmorProfile.Type == corev1.AppArmorProfileTypeUnconfined
	},
	"capabilities_restricted": func(c *podsecurity.Context) bool {
		return c.Capabilities == nil || !slices.Contains(c.Capabilities.Drop, "ALL") ||
			slices.ContainsFunc(c.Capabilities.Add, func(name corev1.Capability) bool { return name != "NET_BIND_SERVICE" })
	},
	"privileged": func(c *podsecurity.Context) bool { return c.Privileged != nil && *c.Privileged },
	"procmount_restricted": func(c *podsecurity.Context) bool {
		return c.ProcMount != nil && *c.ProcMount != corev1.DefaultProcMount
	},
	"runasnonroot": func(c *podsecurity.Context) bool { return c.RunAsNonRoot == nil || !*c.RunAsNonRoot },
	"runasuser":    func(c *podsecurity.Context) bool { return c.RunAsUser != nil && *c.RunAsUser == 0 },
	"seccompprofile_baseline": func(c *podsecurity.Context) bool {
		return c.SeccompProfile != nil && c.SeccompProfile.Type == corev1.SeccompProfileTypeUnconfined
	},
	"seccompprofile_restricted": func(c *podsecurity.Context) bool {
		return c.SeccompProfile == nil || c.SeccompProfile.Type == corev1.SeccompProfileTypeUnconfined
	},
	"windowshostprocess": func(c *podsecurity.Context) bool {
		return c.WindowsOptions != nil && c.WindowsOptions.HostProcess != nil && *c.WindowsOptions.HostProcess
	},
}

// TestContextsOfLabelledPods expects that the contexts which podsecurity.Contexts
// merges explain the labels of the newest rules: no container of a pod that
// passes the restricted level offends, and some container of one that fails
// does.
func TestContextsOfLabelledPods(t *testing.T) {
	judged := map[string]int{}
	for _, p := range labelledPods(t) {
		check := offends[p.check]
		if p.level != "restricted" || p.version.LessThan(version.MustParseGeneric("1.35")) || check == nil && !p.passes {
			continue
		}
		template := corev1.PodTemplateSpec{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(p.pod.Object, &template); err != nil {
			t.Fatal(err)
		}
		contexts := podsecurity.Contexts(&template)
		if p.passes {
			for name, check := range offends {
				if i := slices.IndexFunc(contexts, func(c podsecurity.Context) bool { return check(&c) }); i >= 0 && !exempt(name, &template.Spec) {
					t.Errorf("%s: passes, but container %s offends %s", p.file, contexts[i].Container, name)
				}
			}
			judged["pass"]++
			continue
		}
		if !slices.ContainsFunc(contexts, func(c podsecurity.Context) bool { return check(&c) }) {
			t.Errorf("%s: fails, but no container offends", p.file)
		}
		judged["fail"]++
	}
	t.Logf("contexts of %d pods that pass and %d that fail", judged["pass"], judged["fail"])
	if judged["pass"] < 60 || judged["fail"] < 60 {
		t.Errorf("%v pods prove little", judged)
	}
}

// exempt says which checks leave a pod out: those of what Windows does not
// have, and those of root in a user namespace.
func exempt(check string, spec *corev1.PodSpec) bool {
	windows := spec.OS != nil && spec.OS.Name == corev1.Windows
	namespaced := spec.HostUsers != nil && !*spec.HostUsers
	return windows && slices.Contains([]string{"allowprivilegeescalation", "capabilities_restricted", "seccompprofile_restricted"}, check) ||
		namespaced && slices.Contains([]string{"runasnonroot", "runasuser"}, check)
}
