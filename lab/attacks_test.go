package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"go.yaml.in/yaml/v3"
)

// A want is attacks/<name>/want.yaml, as attacks/README.md describes it.
type want struct {
	Description string
	User        string
	Denied      string
	Alert       *struct {
		Rule   string
		Fields map[string]string
	}
	Object *struct {
		Kind, Namespace, Name string
		Exists                bool
	}
}

func readWant(t *testing.T, attack string) want {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("attacks", attack, "want.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var w want
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&w); err != nil {
		t.Fatalf("%s: %v", attack, err)
	}
	return w
}

func attacks(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("attacks/*/attack")
	if err != nil || len(files) == 0 {
		t.Fatalf("no attacks: %v", err)
	}
	var names []string
	for _, f := range files {
		names = append(names, filepath.Base(filepath.Dir(f)))
	}
	return names
}

func TestAttacksAreComplete(t *testing.T) {
	for _, name := range attacks(t) {
		t.Run(name, func(t *testing.T) {
			w := readWant(t, name)
			if w.Description == "" || (w.User != "admin" && w.User != "developer") {
				t.Errorf("description %q, user %q", w.Description, w.User)
			}
			if (w.Denied == "") == (w.Alert == nil) {
				t.Error("want either denied or alert")
			}
			if w.Alert != nil && (w.Alert.Rule == "" || w.Alert.Fields["ka.user.name"] == "") {
				t.Errorf("alert without a rule or a user: %+v", w.Alert)
			}
			if w.Denied != "" && (w.Object == nil || w.Object.Exists) {
				t.Error("a denied attack names the object that must not exist")
			}
			script := filepath.Join("attacks", name, "attack")
			if info, err := os.Stat(script); err != nil || info.Mode()&0o111 == 0 {
				t.Errorf("not executable: %v", err)
			}
			if out, err := exec.Command("sh", "-n", script).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// What an attack expects is what the product's own rules and policies are called.
func TestAttacksNameRulesAndPoliciesThatExist(t *testing.T) {
	for _, name := range attacks(t) {
		w := readWant(t, name)
		file, line := filepath.Join("..", "content", "policies", w.Denied+".yaml"), "  name: "+w.Denied
		if w.Alert != nil {
			file, line = filepath.Join("..", "content", "rules", "kubernetes_audit.yaml"), "- rule: "+w.Alert.Rule
		}
		if data, err := os.ReadFile(file); err != nil || !bytes.Contains(data, []byte("\n"+line+"\n")) {
			t.Errorf("%s: no line %q in %s: %v", name, line, file, err)
		}
	}
}

// testAttacks makes every attack on a cluster that nobody guards: it succeeds,
// and the API server logs the very event that want.yaml describes.
func testAttacks(t *testing.T, programs, dir string) {
	for _, name := range attacks(t) {
		t.Run(name, func(t *testing.T) {
			w := readWant(t, name)
			if out := attack(t, programs, filepath.Join(dir, w.User+".kubeconfig"), name); len(out) == 0 {
				t.Error("the server's answer is not printed")
			}
			if w.Alert != nil {
				eventually(t, fmt.Sprintf("an event with %v", w.Alert.Fields), func() bool { return logs(t, dir, w.Alert.Fields) })
			}
			if w.Object == nil {
				return
			}
			got := kubectl(t, programs, dir, "admin", "", "get", w.Object.Kind, w.Object.Name,
				"--namespace="+w.Object.Namespace, "--ignore-not-found", "--output=name")
			if exists := got != ""; exists != (w.Object.Exists || w.Denied != "") {
				t.Errorf("%s %s exists: %v", w.Object.Kind, w.Object.Name, exists)
			}
		})
	}
	t.Run("no server", func(t *testing.T) {
		for _, name := range attacks(t) {
			cmd := exec.Command(filepath.Join("attacks", name, "attack"))
			cmd.Env = append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"), "KUBECONFIG=/nowhere")
			if out, err := cmd.CombinedOutput(); err == nil {
				t.Errorf("%s claims to have made its attempt: %s", name, out)
			}
		}
	})
}

// attack runs the script of an attack and returns what it prints.
func attack(t *testing.T, programs, kubeconfig, name string) []byte {
	t.Helper()
	cmd := exec.Command(filepath.Join("attacks", name, "attack"))
	cmd.Env = append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"), "KUBECONFIG="+kubeconfig)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
	return out
}

// logs reports whether the audit log has an event with all of the fields.
func logs(t *testing.T, dir string, fields map[string]string) bool {
	t.Helper()
	for _, e := range auditLog(t, dir) {
		has := map[string]string{
			"ka.user.name": e.User.Username, "ka.verb": e.Verb, "ka.response.code": strconv.Itoa(e.ResponseStatus.Code),
			"ka.target.resource": e.ObjectRef.Resource, "ka.target.subresource": e.ObjectRef.Subresource,
			"ka.target.namespace": e.ObjectRef.Namespace, "ka.target.name": e.ObjectRef.Name,
		}
		match := true
		for field, value := range fields {
			got, known := has[field]
			if !known {
				t.Fatalf("unknown field %s", field)
			}
			match = match && got == value
		}
		if match {
			return true
		}
	}
	return false
}
