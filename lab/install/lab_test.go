package install

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const root = "../.."

// A lab is a real cluster of one node on this machine.
type lab struct {
	t       *testing.T
	program string
	dir     string
	rest    *rest.Config
	client  kubernetes.Interface
}

// up brings up a lab with a node, as the arguments say, and takes it down when the
// test ends.
func up(t *testing.T, args ...string) lab {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("KUBEGUARDIAN_REQUIRE") == "all" {
			t.Fatal("a node of the lab needs root")
		}
		t.Skip("a node of the lab needs root")
	}
	dir := t.TempDir()
	l := lab{t: t, program: filepath.Join(dir, "lab"), dir: filepath.Join(dir, "state")}
	l.run("go", "build", "-C", root+"/lab", "-o", l.program, ".")
	t.Cleanup(func() {
		if out, err := exec.Command(l.program, "down", "--dir", l.dir).CombinedOutput(); err != nil {
			t.Errorf("lab down: %v\n%s", err, out)
		}
	})
	l.run(l.program, append([]string{"up", "--node", "--dir", l.dir}, args...)...)
	var err error
	if l.rest, err = clientcmd.BuildConfigFromFlags("", l.kubeconfig()); err != nil {
		t.Fatal(err)
	}
	l.rest.QPS, l.rest.WarningHandler = -1, rest.NoWarnings{}
	l.client = kubernetes.NewForConfigOrDie(l.rest)
	return l
}

func (l lab) kubeconfig() string { return filepath.Join(l.dir, "admin.kubeconfig") }

func (l lab) run(program string, args ...string) string {
	l.t.Helper()
	cmd := exec.CommandContext(l.t.Context(), program, args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		l.t.Fatalf("%s %s: %v\n%s", filepath.Base(program), strings.Join(args, " "), err, out)
	}
	return string(out)
}

// node runs a command on the node.
func (l lab) node(args ...string) string {
	l.t.Helper()
	return l.run(l.program, append([]string{"node", "--dir", l.dir, "--"}, args...)...)
}

// listed returns what is in the cluster, by group, kind, namespace and name,
// without what it keeps of what happens.
func (l lab) listed() map[string]bool {
	l.t.Helper()
	lists, err := discovery.NewDiscoveryClientForConfigOrDie(l.rest).ServerPreferredResources()
	if err != nil {
		l.t.Fatal(err)
	}
	client, out := dynamic.NewForConfigOrDie(l.rest), map[string]bool{}
	for _, list := range lists {
		for _, r := range list.APIResources {
			if !slices.Contains(r.Verbs, "list") || r.Kind == "Event" || r.Kind == "ComponentStatus" {
				continue
			}
			group := unstructured.Unstructured{Object: map[string]any{"apiVersion": list.GroupVersion, "kind": r.Kind}}
			found, err := client.Resource(group.GroupVersionKind().GroupVersion().WithResource(r.Name)).List(l.t.Context(), listAll)
			if err != nil {
				l.t.Fatalf("list %s of %s: %v", r.Name, list.GroupVersion, err)
			}
			for _, o := range found.Items {
				out[group.GroupVersionKind().GroupKind().String()+" "+o.GetNamespace()+"/"+o.GetName()] = true
			}
		}
	}
	return out
}

// An audited request is one of the API server's log.
type audited struct {
	Verb       string
	RequestURI string
	User       struct{ Username string }
	Status     struct{ Code int } `json:"responseStatus"`
}

// asked returns the requests of accounts of a namespace.
func (l lab) asked(namespace string) (out []audited) {
	l.t.Helper()
	f, err := os.Open(filepath.Join(l.dir, "audit.jsonl"))
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var a audited
		if err := json.Unmarshal(lines.Bytes(), &a); err == nil && strings.HasPrefix(a.User.Username, "system:serviceaccount:"+namespace+":") {
			out = append(out, a)
		}
	}
	if err := lines.Err(); err != nil {
		l.t.Fatal(err)
	}
	return out
}
