package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/retry"

	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/enrichment"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/k8saudit"
	"github.com/kubeguardian/kubeguardian/rule"
)

// untriggered are the rules that no client can trigger on a control plane without
// nodes, with the reason.
var untriggered = map[string]string{
	"Stale token used":                      "the API server warns an hour after a token is made",
	"Audit event cut":                       "the lab does not cut events",
	"Config map with credentials":           "the audit policy does not log them",
	"Token of a removed pod used":           "the API server refuses it at once",
	"Pod certificate requested by a person": "its request is signed with the key of a running pod",
}

// An attackCall is one request, or several that belong together.
type attackCall struct {
	As      string            `yaml:"as"`
	Method  string            `yaml:"method"`
	Path    string            `yaml:"path"`
	Type    string            `yaml:"type"`
	Headers map[string]string `yaml:"headers"`
	Body    any               `yaml:"body"`
	Status  int               `yaml:"status"`
	Approve string            `yaml:"approve"`
	CSR     *struct {
		Name, User, Signer string
	} `yaml:"csr"`
}

type detection struct {
	Rule    string        `yaml:"rule"`
	Also    []string      `yaml:"also"`
	Wait    time.Duration `yaml:"wait"` // until what came before is in force
	Prepare []attackCall  `yaml:"prepare"`
	Calls   []attackCall  `yaml:"calls"`

	ids []string // of the requests that count
}

// TestDetections sends real requests to a real API server with the audit policy of
// the product, and holds the rules against what it logs: each attack raises its
// rule, and nothing else.
func TestDetections(t *testing.T) {
	b := startBattle(t)
	data, err := os.ReadFile("testdata/attacks.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var attacks []*detection
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&attacks); err != nil {
		t.Fatal(err)
	}
	for _, a := range attacks {
		time.Sleep(a.Wait)
		for i := range a.Prepare {
			b.send(t, a.Rule, &a.Prepare[i])
		}
		for i := range a.Calls {
			a.ids = append(a.ids, b.send(t, a.Rule, &a.Calls[i]))
		}
	}
	raised := b.alerts(t, attacks)
	played := map[string]bool{}
	for _, a := range attacks {
		name, want := a.Rule, append(slices.Clone(a.Also), a.Rule)
		if name == "" {
			name, want = "every day", nil
		}
		t.Run(name, func(t *testing.T) {
			var have []string
			for _, id := range a.ids {
				have = append(have, raised[id]...)
			}
			slices.Sort(want)
			slices.Sort(have)
			if have = slices.Compact(have); !slices.Equal(have, want) {
				t.Errorf("raises %q, want %q", have, want)
			}
		})
		played[a.Rule] = true
	}
	for _, r := range builtinRules(t).Rules() {
		if r.Source != event.K8sAudit {
			continue // test/attack performs what these look for
		}
		if why := untriggered[r.Name]; (why == "") != played[r.Name] {
			t.Errorf("rule %q: played %v, reason not to %q", r.Name, played[r.Name], why)
		}
	}
}

// A battle is a lab and who acts on it.
type battle struct {
	server string
	log    string
	users  map[string]*http.Client
	pem    []byte // any certificate
	uid    string // of the object that was made last
}

func startBattle(t *testing.T) *battle {
	t.Helper()
	if testing.Short() {
		t.Skip("brings up an API server")
	}
	dir := t.TempDir()
	lab := filepath.Join(dir, "lab-program")
	build := exec.Command("go", "build", "-o", lab, ".")
	build.Dir, build.Env = "../../lab", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the lab: %v\n%s", err, out)
	}
	policy, home := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "lab")
	if err := os.WriteFile(policy, content.AuditPolicy(), 0o600); err != nil {
		t.Fatal(err)
	}
	up := exec.CommandContext(t.Context(), lab, "up", "--dir", home, "--audit-policy", policy)
	if out, err := up.CombinedOutput(); err != nil {
		t.Fatalf("lab up: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command(lab, "down", "--dir", home).CombinedOutput(); err != nil {
			t.Errorf("lab down: %v\n%s", err, out)
		}
	})
	b := &battle{log: filepath.Join(home, "audit.jsonl"), users: map[string]*http.Client{}}
	admin, err := clientcmd.BuildConfigFromFlags("", filepath.Join(home, "admin.kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	developer, err := clientcmd.BuildConfigFromFlags("", filepath.Join(home, "developer.kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	b.server = admin.Host
	b.enlist(t, "admin", admin)
	b.enlist(t, "developer", developer)
	b.enlist(t, "anonymous", rest.AnonymousClientConfig(admin))
	b.token(t, "nobody", admin, "none", home)
	b.accounts(t, admin)
	b.node(t, admin)
	b.pods(t, admin)
	return b
}

func (b *battle) enlist(t *testing.T, name string, cfg *rest.Config) {
	t.Helper()
	cfg = rest.CopyConfig(cfg)
	cfg.Timeout = 20 * time.Second
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	b.users[name] = client
}

// token has somebody send a token, from an address of this machine.
func (b *battle) token(t *testing.T, name string, admin *rest.Config, token, from string) {
	t.Helper()
	cfg := rest.AnonymousClientConfig(admin)
	cfg.BearerToken = token
	cfg.Dial = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext
	b.enlist(t, name, cfg)
}

// accounts makes the namespace shop with an application that may look at it, and
// has one token that runs out and one that does not.
func (b *battle) accounts(t *testing.T, admin *rest.Config) {
	t.Helper()
	ctx, client := t.Context(), kubernetes.NewForConfigOrDie(admin)
	core := client.CoreV1()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(core.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, metav1.CreateOptions{}))
	must(core.ServiceAccounts("shop").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "web"}}, metav1.CreateOptions{}))
	must(client.RbacV1().RoleBindings("shop").Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "web"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "web", Namespace: "shop"}},
	}, metav1.CreateOptions{}))
	request, err := core.ServiceAccounts("shop").CreateToken(ctx, "web", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	must(nil, err)
	b.token(t, "application", admin, request.Status.Token, home)
	request, err = core.ServiceAccounts("shop").CreateToken(ctx, "web", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	must(nil, err)
	b.token(t, "fresh", admin, request.Status.Token, home)
	must(core.Secrets("shop").Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "lasting", Annotations: map[string]string{corev1.ServiceAccountNameKey: "web"}},
		Type:       corev1.SecretTypeServiceAccountToken,
	}, metav1.CreateOptions{}))
	becomes(t, "a token in the secret", func() bool {
		secret, err := core.Secrets("shop").Get(ctx, "lasting", metav1.GetOptions{})
		if err != nil || len(secret.Data["token"]) == 0 {
			return false
		}
		b.token(t, "lasting", admin, string(secret.Data["token"]), home)
		_, err = core.ServiceAccounts("shop").Get(ctx, "default", metav1.GetOptions{}) // which pods need
		return err == nil
	})
}

// node gets the credentials of a node in the way of a kubelet.
func (b *battle) node(t *testing.T, admin *rest.Config) {
	t.Helper()
	ctx, requests := t.Context(), kubernetes.NewForConfigOrDie(admin).CertificatesV1().CertificateSigningRequests()
	key, request := signingRequest(t, pkix.Name{CommonName: "system:node:node-1", Organization: []string{"system:nodes"}})
	csr, err := requests.Create(ctx, &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "node-1"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: request, SignerName: certificatesv1.KubeAPIServerClientKubeletSignerName,
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error { // a controller writes to it too
		if csr, err = requests.Get(ctx, csr.Name, metav1.GetOptions{}); err != nil {
			return err
		}
		if len(csr.Status.Conditions) > 0 {
			return nil // the controller has approved it
		}
		csr.Status.Conditions = append(csr.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "test", LastUpdateTime: metav1.Now(),
		})
		_, err = requests.UpdateApproval(ctx, csr.Name, csr, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	becomes(t, "the certificate of a node", func() bool {
		csr, err = requests.Get(ctx, csr.Name, metav1.GetOptions{})
		return err == nil && len(csr.Status.Certificate) > 0
	})
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cfg := rest.AnonymousClientConfig(admin)
	cfg.CertData, cfg.KeyData = csr.Status.Certificate, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	if _, err := tls.X509KeyPair(cfg.CertData, cfg.KeyData); err != nil {
		t.Fatal(err)
	}
	b.enlist(t, "node", cfg)
	b.pem = authority(t)
}

// pods makes two pods on the node, of which it says where one is, and has their
// tokens sent from there and from elsewhere.
func (b *battle) pods(t *testing.T, admin *rest.Config) {
	t.Helper()
	b.send(t, "node", &attackCall{As: "node", Path: "/api/v1/nodes", Body: map[string]any{"metadata": map[string]any{"name": "node-1"}}})
	core := kubernetes.NewForConfigOrDie(admin).CoreV1()
	for _, name := range []string{"located", "unknown"} {
		pod, err := core.Pods("shop").Create(t.Context(), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       corev1.PodSpec{ServiceAccountName: "web", NodeName: "node-1", Containers: []corev1.Container{{Name: "c", Image: "ghcr.io/x/y:1"}}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		bound := &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: name, UID: pod.UID}
		request, err := core.ServiceAccounts("shop").CreateToken(t.Context(), "web", &authenticationv1.TokenRequest{
			Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: bound},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		b.token(t, name, admin, request.Status.Token, home)
		b.token(t, name+"-thief", admin, request.Status.Token, elsewhere)
		if name == "located" {
			b.send(t, "status", &attackCall{
				As: "node", Method: "PATCH", Path: "/api/v1/namespaces/shop/pods/located/status", Type: "application/strategic-merge-patch+json",
				Body: map[string]any{"metadata": map[string]any{"uid": string(pod.UID)}, "status": map[string]any{"podIP": home, "podIPs": []any{map[string]any{"ip": home}}}},
			})
		}
	}
}

// authority returns the certificate of an authority that nobody knows.
func authority(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mine"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func signingRequest(t *testing.T, name pkix.Name) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: name}, key)
	if err != nil {
		t.Fatal(err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// Two addresses of this machine.
const (
	home      = "127.0.0.1"
	elsewhere = "127.0.0.2"
)

const requestsPath = "/apis/certificates.k8s.io/v1/certificatesigningrequests"

// send sends a call and returns the audit id of its request.
func (b *battle) send(t *testing.T, name string, c *attackCall) string {
	t.Helper()
	switch {
	case c.CSR != nil:
		_, request := signingRequest(t, pkix.Name{CommonName: c.CSR.User})
		c.Path, c.Body = requestsPath, map[string]any{"metadata": map[string]any{"name": c.CSR.Name}, "spec": map[string]any{
			"request": request, "signerName": c.CSR.Signer, "usages": []string{"client auth"},
		}}
	case c.Approve != "":
		c.Method, c.Path = "PATCH", requestsPath+"/"+c.Approve+"/approval"
		c.Body = map[string]any{"status": map[string]any{"conditions": []any{map[string]any{
			"type": "Approved", "status": "True", "reason": "x", "message": "y", "lastUpdateTime": time.Now().UTC().Format(time.RFC3339),
		}}}}
	}
	var body io.Reader
	if c.Body != nil {
		data, err := json.Marshal(c.Body)
		if err != nil {
			t.Fatal(err)
		}
		certificate, err := json.Marshal(string(b.pem))
		if err != nil {
			t.Fatal(err)
		}
		body = strings.NewReader(strings.NewReplacer(`"CERTIFICATE"`, `"`+base64.StdEncoding.EncodeToString(b.pem)+`"`,
			`"PEM"`, string(certificate), `"UID"`, `"`+b.uid+`"`).Replace(string(data)))
	}
	return b.do(t, name, c, body)
}

func (b *battle) do(t *testing.T, name string, c *attackCall, body io.Reader) string {
	t.Helper()
	method, as := c.Method, c.As
	if method == "" {
		method = "POST"
	}
	if as == "" {
		as = "admin"
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, b.server+c.Path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if method == "PATCH" {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	if c.Type != "" {
		req.Header.Set("Content-Type", c.Type)
	}
	for key, value := range c.Headers {
		req.Header.Set(key, value)
	}
	resp, err := b.users[as].Do(req)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if fine := resp.StatusCode/100 == 2; c.Status == 0 && !fine || c.Status != 0 && c.Status != resp.StatusCode {
		t.Errorf("%s: %s %s: status %d, want %d: %.300s", name, method, c.Path, resp.StatusCode, c.Status, answer)
	}
	var object struct{ Metadata struct{ UID string } }
	if json.Unmarshal(answer, &object) == nil && object.Metadata.UID != "" {
		b.uid = object.Metadata.UID
	}
	return resp.Header.Get("Audit-Id")
}

// alerts waits until all requests are logged, and returns the rules that each
// raises, by its audit id.
func (b *battle) alerts(t *testing.T, attacks []*detection) map[string][]string {
	t.Helper()
	var raised map[string][]string
	var missing string
	becomes(t, "the audit log", func() bool {
		seen := map[string]bool{}
		raised = b.replay(t, seen)
		for _, a := range attacks {
			for i, id := range a.ids {
				if !seen[id] {
					missing = fmt.Sprintf("%s: call %d (%s)", a.Rule, i, id)
					return false
				}
			}
		}
		missing = ""
		return true
	})
	if missing != "" {
		t.Fatalf("not logged: %s", missing)
	}
	return raised
}

func (b *battle) replay(t *testing.T, seen map[string]bool) map[string][]string {
	t.Helper()
	log, err := os.Open(b.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	rules, enrich, raised := builtinRules(t), enrichment.New(), map[string][]string{}
	field, _ := event.Lookup(event.K8sAudit, "ka.auditid")
	ref, err := event.Resolve(field, nil)
	if err != nil {
		t.Fatal(err)
	}
	stats, err := k8saudit.Decode(log, func(e *event.Event) error {
		enrich.Enrich(e)
		id := strings.Clone(e.Value(ref).Text) // which outlives the event
		seen[id] = true
		for _, a := range rules.Match(e, rule.First) {
			raised[id] = append(raised[id], a.Rule)
		}
		return nil
	})
	if err != nil || stats.Malformed > 1 { // the last line may be half written
		t.Fatalf("%+v, %v", stats, err)
	}
	return raised
}

// becomes waits for something to become true.
func becomes(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Errorf("waited in vain for %s", what)
}
