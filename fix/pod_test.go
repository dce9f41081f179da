package fix_test

import (
	"strings"
	"testing"
)

// TestEveryRepair shows what each repair does to a pod, and nothing beside it.
func TestEveryRepair(t *testing.T) {
	tests := []struct{ id, name, before, after string }{
		{
			"CLU-RBA-19", "a token that nobody needs", `
  containers:
  - name: a
    image: b@` + digest + `
`, `
  containers:
  - name: a
    image: b@` + digest + `
  automountServiceAccountToken: false
`,
		},
		{
			"CLU-RBA-19", "the pod overrules its account", `
  automountServiceAccountToken: yes # said long ago
  containers: [{name: a, image: b}]
`, `
  automountServiceAccountToken: false # said long ago
  containers: [{name: a, image: b}]
`,
		},
		{
			"CON-IMG-12", "behind the image", `
  initContainers:
  - image: "r.io/a:1"
    name: i
  containers:
  - name: a
    image: b:1 # pinned later
    ports: [{containerPort: 80}]
  - name: c
    image: c
    imagePullPolicy: Never
`, `
  initContainers:
  - image: "r.io/a:1"
    imagePullPolicy: Always
    name: i
  containers:
  - name: a
    image: b:1 # pinned later
    imagePullPolicy: Always
    ports: [{containerPort: 80}]
  - name: c
    image: c
    imagePullPolicy: Always
`,
		},
		{
			"CON-SEC-01", "only the containers that are privileged", `
  initContainers:
    - name: i
      securityContext: {privileged: true, runAsUser: 0}
  containers:
    - name: a
      securityContext:
        # no longer
        privileged: false
    - name: b
      securityContext:
        privileged: true
        runAsUser: 0
`, `
  initContainers:
    - name: i
      securityContext: {privileged: false, runAsUser: 0}
  containers:
    - name: a
      securityContext:
        # no longer
        privileged: false
    - name: b
      securityContext:
        privileged: false
        runAsUser: 0
`,
		},
		{
			"CON-SEC-02", "with and without a context", `
  containers:
  - name: a
    securityContext:
      runAsUser: 1000
    env:
    - name: X
      value: |
        text
  - securityContext: {}
    name: b
  - name: c
`, `
  containers:
  - name: a
    securityContext:
      runAsUser: 1000
      allowPrivilegeEscalation: false
    env:
    - name: X
      value: |
        text
  - securityContext: {allowPrivilegeEscalation: false}
    name: b
  - name: c
    securityContext:
      allowPrivilegeEscalation: false
`,
		},
		{
			"CON-SEC-04", "what is beyond the usual, and no more", `
  containers:
  - name: a
    securityContext:
      capabilities:
        add:
        - CHOWN
        - SYS_ADMIN # mounts
        - NET_RAW
        drop: [MKNOD]
`, `
  containers:
  - name: a
    securityContext:
      capabilities:
        add:
        - CHOWN
        drop: [MKNOD]
`,
		},
		{
			"CON-SEC-05", "lists as they are written", `
  containers:
  - name: a
    securityContext:
      capabilities:
        drop:
          - MKNOD
          - CHOWN # never
  - name: b
    securityContext: {capabilities: {drop: [], add: [NET_BIND_SERVICE]}}
  - name: c
`, `
  containers:
  - name: a
    securityContext:
      capabilities:
        drop:
          - MKNOD
          - CHOWN # never
          - ALL
  - name: b
    securityContext: {capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}}
  - name: c
    securityContext:
      capabilities:
        drop: [ALL]
`,
		},
		{
			"CON-SEC-08", "a profile for the pod", `
  securityContext:
    runAsNonRoot: true
  containers:
  - name: a
`, `
  securityContext:
    runAsNonRoot: true
    seccompProfile:
      type: RuntimeDefault
  containers:
  - name: a
`,
		},
		{
			"CON-SEC-08", "an unconfined pod, a container with its own", `
  securityContext: {seccompProfile: {type: Unconfined}}
  containers:
  - name: a
    securityContext:
      seccompProfile:
        type: Localhost
        localhostProfile: a.json
`, `
  securityContext: {seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: a
    securityContext:
      seccompProfile:
        type: Localhost
        localhostProfile: a.json
`,
		},
		{
			"CON-SEC-09", "AppArmor and SELinux", `
  securityContext:
    appArmorProfile: {type: Unconfined}
    seLinuxOptions:
      type: spc_t
      level: s0
  containers:
  - name: a
    securityContext:
      runAsUser: 1
      seLinuxOptions: {user: root, role: sysadm_r}
`, `
  securityContext:
    appArmorProfile: {type: RuntimeDefault}
    seLinuxOptions:
      level: s0
  containers:
  - name: a
    securityContext:
      runAsUser: 1
`,
		},
		{
			"CON-SEC-10", "namespaces of the node", `
  hostPID: true
  hostIPC: "true"
  containers: [{name: a}]
`, "",
		},
		{
			"CON-SEC-10", "both namespaces", `
  hostPID: true
  # for shared memory
  hostIPC: true
  containers: [{name: a}]
`, `
  hostPID: false
  # for shared memory
  hostIPC: false
  containers: [{name: a}]
`,
		},
		{
			"CON-SEC-11", "the network of the node", `
  hostNetwork: true
  containers: [{name: a}]
`, `
  hostNetwork: false
  containers: [{name: a}]
`,
		},
		{
			"CON-SEC-16", "an unmasked proc", `
  containers:
  - name: a
    securityContext: {procMount: Unmasked, "runAsUser": 1}
`, `
  containers:
  - name: a
    securityContext: {procMount: Default, "runAsUser": 1}
`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.id+" "+tt.name, func(t *testing.T) {
			head := "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n---\n" + strings.Replace(namespaced, "name: web", "name: web\n  namespace: shop", 1)
			if tt.id == "CON-SEC-11" { // without the namespace it is not known which policies there are
				head = head[strings.Index(head, "---")+4:]
			}
			if tt.id == "CLU-RBA-19" {
				head += "  serviceAccountName: web"
				head = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: web, namespace: shop}\n---\napiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\n" +
					"metadata: {name: b, namespace: shop}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}\nsubjects: [{kind: ServiceAccount, name: other, namespace: shop}]\n---\n" + head
			} else {
				head = strings.TrimSuffix(head, "\n")
			}
			if tt.after == "" { // not what the API server would read
				in := input(t, "-")
				in.Stdin = strings.NewReader(head + tt.before)
				if _, err := fixOf(in); err == nil {
					t.Error("no error")
				}
				return
			}
			got, p := fixed(t, head+tt.before, tt.id)
			if got != head+tt.after {
				t.Errorf("got\n%s\nwant\n%s\nrefused %v", got, head+tt.after, p.Refused)
			}
		})
	}
}

// TestKinds finds the pod of every kind of workload.
func TestKinds(t *testing.T) {
	template := "{metadata: {labels: {a: b}}, spec: {hostPID: true, containers: [{name: a, image: b}], restartPolicy: Always}}"
	for kind, manifest := range map[string]string{
		"Deployment":            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {selector: {matchLabels: {a: b}}, template: " + template + "}\n",
		"StatefulSet":           "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: x}\nspec: {serviceName: x, selector: {matchLabels: {a: b}}, template: " + template + "}\n",
		"DaemonSet":             "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: x}\nspec: {selector: {matchLabels: {a: b}}, template: " + template + "}\n",
		"ReplicaSet":            "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: x}\nspec: {selector: {matchLabels: {a: b}}, template: " + template + "}\n",
		"ReplicationController": "apiVersion: v1\nkind: ReplicationController\nmetadata: {name: x}\nspec: {selector: {a: b}, template: " + template + "}\n",
		"Job":                   "apiVersion: batch/v1\nkind: Job\nmetadata: {name: x}\nspec: {template: " + template + "}\n",
		"CronJob":               "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: x}\nspec: {schedule: '* * * * *', jobTemplate: {spec: {template: " + template + "}}}\n",
	} {
		t.Run(kind, func(t *testing.T) {
			got, p := fixed(t, manifest, "CON-SEC-10")
			if got != strings.Replace(manifest, "hostPID: true", "hostPID: false", 1) {
				t.Errorf("refused %v\n%s", p.Refused, got)
			}
		})
	}
}
