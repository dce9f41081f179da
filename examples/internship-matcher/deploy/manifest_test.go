// Package deploy tests that the manifests and the programs agree.
package deploy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/application"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/auth"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/gateway"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/identity"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/offer"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/secret"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/service"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/token"
)

// An object is a manifest, as far as programs depend on it.
type object struct {
	Kind     string
	Metadata struct{ Name string }
	Data     map[string]string // of a ConfigMap
	Spec     struct {
		Template struct { // of a Deployment
			Spec struct {
				Containers []container
				Volumes    []volume
			}
		}
		Ports       []struct{ Port int } // of a Service
		PodSelector selector             `yaml:"podSelector"` // of a NetworkPolicy
		Ingress     []struct {
			From  []peer
			Ports []struct{ Port int }
		}
		Egress []struct {
			To    []peer
			Ports []struct{ Port int }
		}
	}
}

type container struct {
	Args    []string
	EnvFrom []struct {
		ConfigMapRef struct{ Name string } `yaml:"configMapRef"`
	} `yaml:"envFrom"`
	Env []struct{ Name, Value string }

	Ports []struct {
		Name          string
		ContainerPort int `yaml:"containerPort"`
	}
	StartupProbe   *probe `yaml:"startupProbe"`
	ReadinessProbe *probe `yaml:"readinessProbe"`
	LivenessProbe  *probe `yaml:"livenessProbe"`
	VolumeMounts   []struct {
		Name      string
		MountPath string `yaml:"mountPath"`
	} `yaml:"volumeMounts"`
}

type probe struct {
	HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
}

type volume struct {
	Name   string
	Secret struct {
		SecretName string `yaml:"secretName"`
	}
	Projected struct {
		Sources []struct{ Secret struct{ Name string } }
	}
}

func (v volume) secrets() (names []string) {
	if v.Secret.SecretName != "" {
		names = append(names, v.Secret.SecretName)
	}
	for _, s := range v.Projected.Sources {
		names = append(names, s.Secret.Name)
	}
	return names
}

type selector struct {
	MatchLabels      map[string]string `yaml:"matchLabels"`
	MatchExpressions []struct {
		Key, Operator string
		Values        []string
	} `yaml:"matchExpressions"`
}

// apps returns the values of the label app that a selector selects.
func (s selector) apps() []string {
	if app := s.MatchLabels["app"]; app != "" {
		return []string{app}
	}
	for _, e := range s.MatchExpressions {
		if e.Key == "app" && e.Operator == "In" {
			return e.Values
		}
	}
	return nil
}

type peer struct {
	PodSelector       selector  `yaml:"podSelector"`
	NamespaceSelector *selector `yaml:"namespaceSelector"`
}

// readManifests returns the objects of a variant by "Kind/name".
func readManifests(t *testing.T, variant string) map[string]object {
	t.Helper()
	out := map[string]object{}
	err := fs.WalkDir(os.DirFS("."), variant, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for decoder := yaml.NewDecoder(bytes.NewReader(text)); ; {
			var o object
			switch err := decoder.Decode(&o); {
			case errors.Is(err, io.EOF):
				return nil
			case err != nil:
				t.Fatalf("%s: %v", name, err)
			}
			out[o.Kind+"/"+o.Metadata.Name] = o
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A pod is a container as its program sees it: the environment, and files below
// a folder.
type pod struct {
	container
	env  map[string]string
	root string
	read map[string]bool // variables that the program asked for
}

// newPod prepares what a Deployment gives to its program.
func newPod(t *testing.T, objects map[string]object, name string, secrets map[string]map[string]string) *pod {
	t.Helper()
	spec := objects["Deployment/"+name].Spec.Template.Spec
	if len(spec.Containers) != 1 {
		t.Fatalf("Deployment/%s has %d containers", name, len(spec.Containers))
	}
	p := &pod{container: spec.Containers[0], env: map[string]string{}, root: t.TempDir(), read: map[string]bool{}}
	for _, from := range p.EnvFrom {
		maps.Copy(p.env, objects["ConfigMap/"+from.ConfigMapRef.Name].Data)
	}
	for _, e := range p.Env {
		p.env[e.Name] = e.Value
	}
	for _, v := range spec.Volumes {
		for _, secret := range v.secrets() {
			if secrets[secret] == nil {
				t.Errorf("Deployment/%s mounts Secret %s, which cmd/secrets does not make", name, secret)
			}
			p.mount(t, v.Name, secrets[secret])
		}
	}
	return p
}

func (p *pod) mount(t *testing.T, volume string, files map[string]string) {
	t.Helper()
	for _, m := range p.VolumeMounts {
		if m.Name != volume {
			continue
		}
		dir := filepath.Join(p.root, m.MountPath)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for file, text := range files {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// getenv is the environment, with paths below the folder of the pod.
func (p *pod) getenv(key string) string {
	p.read[key] = true
	value := p.env[key]
	if strings.HasPrefix(value, "/") {
		return p.root + value
	}
	return value
}

// port returns the port of a name.
func (p *pod) port(name string) int {
	for _, port := range p.Ports {
		if port.Name == name {
			return port.ContainerPort
		}
	}
	return 0
}

// leftOver are settings of the insecure variant that nothing reads any more.
var leftOver = []string{"SMTP_HOST", "SMTP_USER", "SMTP_PASSWORD"}

// TestManifestsFitPrograms lets each program read what its Deployment gives it,
// in both variants: settings, files and ports are what the program wants.
func TestManifestsFitPrograms(t *testing.T) {
	secrets, err := secret.Make("internship-matcher")
	if err != nil {
		t.Fatal(err)
	}
	for _, variant := range []string{"insecure", "secured"} {
		objects := readManifests(t, variant)
		shared := map[string]bool{} // variables that some program reads
		for _, s := range services() {
			t.Run(variant+"/"+s.Name, func(t *testing.T) {
				p := newPod(t, objects, s.Name, secrets)
				settings, err := service.FromEnv(p.getenv)
				if err != nil {
					t.Fatal(err)
				}
				checkPod(t, p, s.Name, settings.IdentityDir, settings.PublicKeys, settings.Health)
				checkPort(t, objects, p, s.Name, "grpc", settings.Listen)
				checkService(t, objects, s.Name, settings, secrets)
				maps.Copy(shared, p.read)
			})
		}
		t.Run(variant+"/gateway", func(t *testing.T) {
			p := newPod(t, objects, "gateway", secrets)
			settings, err := gateway.FromEnv(p.getenv)
			if err != nil {
				t.Fatal(err)
			}
			checkPod(t, p, "gateway", settings.IdentityDir, settings.PublicKeys, settings.Health)
			checkPort(t, objects, p, "gateway", "http", settings.Listen)
			for service, address := range map[string]string{"auth": settings.Auth, "offer": settings.Offer, "application": settings.Application} {
				checkAddress(t, objects, service, address)
			}
			maps.Copy(shared, p.read)
		})
		for key := range objects["ConfigMap/internship-matcher"].Data {
			if !shared[key] && !(variant == "insecure" && slices.Contains(leftOver, key)) {
				t.Errorf("%s: no program reads %s of the ConfigMap", variant, key)
			}
		}
	}
}

func services() []service.Service {
	return []service.Service{auth.New(), offer.New(), application.New()}
}

// checkPod wants a program to find what all of them need.
func checkPod(t *testing.T, p *pod, name, identityDir, publicKeys, health string) {
	t.Helper()
	for _, e := range p.Env {
		if !p.read[e.Name] {
			t.Errorf("it does not read %s", e.Name)
		}
	}
	if len(p.Args) > 0 {
		t.Errorf("it takes no arguments, and gets %q", p.Args)
	}
	own, err := identity.Open(identityDir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if svid, err := own.GetX509SVID(); err != nil || svid.ID != identity.ID(name) {
		t.Errorf("its identity is %v (%v)", svid.ID, err)
	}
	if _, err := token.NewVerifier(publicKeys); err != nil {
		t.Error(err)
	}
	if want := ":" + strconv.Itoa(p.port("health")); health != want {
		t.Errorf("it answers probes on %s, and its port health is %s", health, want)
	}
	for what, probe := range map[string]*probe{"startup": p.StartupProbe, "readiness": p.ReadinessProbe, "liveness": p.LivenessProbe} {
		if probe != nil && (probe.HTTPGet.Port != "health" || !answers(t, probe.HTTPGet.Path)) {
			t.Errorf("nothing answers the %s probe at %s of port %s", what, probe.HTTPGet.Path, probe.HTTPGet.Port)
		}
	}
}

// answers reports whether programs answer probes at a path.
func answers(t *testing.T, path string) bool {
	t.Helper()
	probes, err := service.ServeHealth("127.0.0.1:0", service.NewRegistry(), func(context.Context) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	defer probes.Close()
	w := httptest.NewRecorder()
	probes.Handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code == http.StatusOK
}

// checkPort wants the container port, and the Service if it is of gRPC, to be
// where the program listens.
func checkPort(t *testing.T, objects map[string]object, p *pod, name, port, listen string) {
	t.Helper()
	if want := ":" + strconv.Itoa(p.port(port)); listen != want {
		t.Errorf("it listens on %s, and its port %s is %s", listen, port, want)
	}
	if ports := objects["Service/"+name].Spec.Ports; len(ports) != 1 || port == "grpc" && ":"+strconv.Itoa(ports[0].Port) != listen {
		t.Errorf("Service/%s has the ports %v, and the program listens on %s", name, ports, listen)
	}
}

// checkAddress wants the address of a service to be that of its Service.
func checkAddress(t *testing.T, objects map[string]object, name, address string) {
	t.Helper()
	ports := objects["Service/"+name].Spec.Ports
	if len(ports) != 1 || address != name+":"+strconv.Itoa(ports[0].Port) {
		t.Errorf("%s is looked for at %s, and its Service has the ports %v", name, address, ports)
	}
}

// checkService wants a service to find its database and, if it signs or calls,
// what it needs for that.
func checkService(t *testing.T, objects map[string]object, name string, s service.Settings, secrets map[string]map[string]string) {
	t.Helper()
	db := s.Database
	checkAddress(t, objects, name+"-db", db.Host+":"+strconv.Itoa(db.Port))
	if db.PasswordFile != "" {
		if text, err := os.ReadFile(db.PasswordFile); err != nil || string(text) != secrets[name+"-db"][secret.PasswordKey] {
			t.Errorf("password of its database: %v", err)
		}
	}
	if db.SSLMode == "verify-full" {
		if _, err := os.Stat(db.RootCertFile); err != nil {
			t.Errorf("authority of its database: %v", err)
		}
	}
	if name == "application" {
		checkAddress(t, objects, "offer", s.OfferAddress)
	}
	if _, err := token.NewSigner(s.SigningKey); (err == nil) != (name == "auth") {
		t.Errorf("key that signs logins: %v", err)
	}
}

// TestPoliciesFitCalls wants network policies to let through the calls that the
// services allow each other, and no others.
func TestPoliciesFitCalls(t *testing.T) {
	objects := readManifests(t, "secured")
	calls := map[string][]string{} // who is called by whom
	for _, s := range services() {
		callers := map[string]bool{}
		for _, names := range s.Callers {
			for _, name := range names {
				callers[name] = true
			}
		}
		calls[s.Name] = slices.Sorted(maps.Keys(callers))
	}
	for callee, callers := range calls {
		if got := ingress(objects["NetworkPolicy/"+callee], 9090); !slices.Equal(got, callers) {
			t.Errorf("%s is called by %q, and its network policy lets in %q", callee, callers, got)
		}
	}
	for _, caller := range []string{"gateway", "auth", "offer", "application"} {
		var want []string
		for callee, callers := range calls {
			if slices.Contains(callers, caller) {
				want = append(want, callee)
			}
		}
		slices.Sort(want)
		if got := egress(objects["NetworkPolicy/"+caller], 9090); !slices.Equal(got, want) {
			t.Errorf("%s calls %q, and its network policy lets out to %q", caller, want, got)
		}
	}
}

func ingress(policy object, port int) (apps []string) {
	for _, rule := range policy.Spec.Ingress {
		for _, from := range rule.From {
			if len(rule.Ports) == 1 && rule.Ports[0].Port == port && from.NamespaceSelector == nil {
				apps = append(apps, from.PodSelector.apps()...)
			}
		}
	}
	slices.Sort(apps)
	return apps
}

func egress(policy object, port int) (apps []string) {
	for _, rule := range policy.Spec.Egress {
		for _, to := range rule.To {
			if len(rule.Ports) == 1 && rule.Ports[0].Port == port && to.NamespaceSelector == nil {
				apps = append(apps, to.PodSelector.apps()...)
			}
		}
	}
	slices.Sort(apps)
	return apps
}
