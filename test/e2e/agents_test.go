package e2e

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubeguardian/kubeguardian/bus"
)

const (
	ours       = "kubeguardian"       // the audience of agents' tokens
	agentsName = "kubeguardian-agent" // their account, and its namespace
	agentsID   = agentsName + "/" + agentsName
)

// TestAgentTokens lets agents and others log in at the bus with tokens that a real
// API server makes and checks.
func TestAgentTokens(t *testing.T) {
	d := newLab(t)
	r, url := d.newBus(t)
	r.start(t)
	t.Cleanup(func() { r.stop(t) })
	if _, err := d.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: agentsName}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, node := range []string{"node-a", "node-b"} {
		d.node(t, node)
	}
	for _, account := range []string{agentsID, agentsName + "/other", "default/" + agentsName} {
		d.serviceAccount(t, account)
	}
	uid := d.pod(t, agentsName+"/agent-a", agentsName, "node-a")
	mine := d.token(t, agentsID, "agent-a", uid, ours)
	if err := awaitBus(url, mine); err != nil {
		t.Fatalf("an agent is refused: %v\n%s", err, r.log())
	}
	t.Run("an agent speaks for its node alone", func(t *testing.T) { wantRights(t, url, mine) })
	t.Run("tokens", func(t *testing.T) { d.testTokens(t, r, url, mine, uid) })
	t.Run("what was deleted", func(t *testing.T) { d.testDeleted(t, url) })
	t.Run("uninstalling leaves no leases", func(t *testing.T) { d.testLeases(t, r) })
}

// testLeases wants the Leases of replicas to go when the server is marked as being
// uninstalled, and those of others to stay.
func (d *deployment) testLeases(t *testing.T, r *replica) {
	leases := d.client.CoordinationV1().Leases("kubeguardian")
	for name, labels := range map[string]map[string]string{
		"kubeguardian-leader": nil, "policies-gone": {"app.kubernetes.io/managed-by": "kubeguardian"}, "of-others": {"app.kubernetes.io/managed-by": "Helm"},
	} {
		if _, err := leases.Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.client.CoreV1().ConfigMaps("kubeguardian").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "uninstall"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	d.run(t, nil, r.program, "uninstall", "--config", r.config)
	list, err := leases.List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 1 || list.Items[0].Name != "of-others" {
		t.Errorf("left are %v (%v), want only that of others", list.Items, err)
	}
}

// newBus returns a server with a bus.
func (d *deployment) newBus(t *testing.T) (*replica, string) {
	t.Helper()
	r := &replica{name: "server", program: d.bin("kubeguardian"), dir: d.path("server"), web: free(t)}
	r.config = r.dir + ".yaml"
	listen := free(t)
	text := fmt.Sprintf(`dataDir: %s
kubeconfig: %s
web: {listen: %q}
webhook: {listen: %q}
admission: {enabled: false}
bus: {listen: %q, serviceAccounts: [%s]}
`, r.dir, d.path("server.kubeconfig"), r.web, free(t), listen, agentsID)
	if err := os.WriteFile(r.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return r, "nats://" + listen
}

func (d *deployment) node(t *testing.T, name string) {
	t.Helper()
	if _, err := d.client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// serviceAccount makes a ServiceAccount, given as namespace/name.
func (d *deployment) serviceAccount(t *testing.T, name string) {
	t.Helper()
	in, name, _ := strings.Cut(name, "/")
	if _, err := d.client.CoreV1().ServiceAccounts(in).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// pod makes a pod, given as namespace/name, on a node, and returns its UID.
func (d *deployment) pod(t *testing.T, name, account, node string) types.UID {
	t.Helper()
	in, name, _ := strings.Cut(name, "/")
	no := false
	pod, err := d.client.CoreV1().Pods(in).Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{
		ServiceAccountName: account, NodeName: node, AutomountServiceAccountToken: &no, Containers: []corev1.Container{{Name: "agent", Image: "agent"}},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod.UID
}

// token returns a token of an account, bound to a pod unless that has no name.
func (d *deployment) token(t *testing.T, account, pod string, uid types.UID, audiences ...string) string {
	t.Helper()
	in, name, _ := strings.Cut(account, "/")
	spec := authenticationv1.TokenRequestSpec{Audiences: audiences}
	if pod != "" {
		spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod, UID: uid}
	}
	request, err := d.client.CoreV1().ServiceAccounts(in).CreateToken(t.Context(), name, &authenticationv1.TokenRequest{Spec: spec}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return request.Status.Token
}

// logIn connects to the bus once.
func logIn(url string, opts ...nats.Option) (*nats.Conn, error) {
	return nats.Connect(url, append(opts, nats.NoReconnect(), nats.Timeout(time.Minute))...)
}

// awaitBus logs in as soon as the server listens.
func awaitBus(url, token string) error {
	var err error
	for began := time.Now(); time.Since(began) < 2*time.Minute; time.Sleep(100 * time.Millisecond) {
		var nc *nats.Conn
		if nc, err = logIn(url, nats.Token(token)); err == nil {
			nc.Close()
		}
		if err == nil || errors.Is(err, nats.ErrAuthorization) {
			return err
		}
	}
	return err
}

// wantRights wants the bearer of a token of node-a to do what its agent does, and
// nothing in the name of another or beyond.
func wantRights(t *testing.T, url, token string) {
	refused := make(chan string, 1)
	nc, err := logIn(url, nats.Token(token), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err.Error() }))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	own, heard := bus.Rights("node-a")
	others, heardByOthers := bus.Rights("node-b")
	for _, subject := range heard {
		if _, err := nc.SubscribeSync(subject); err != nil {
			t.Error(err)
		}
	}
	for _, subject := range own[:2] {
		if err := nc.Publish(subject, []byte("{}")); err != nil {
			t.Error(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-refused:
		t.Errorf("what an agent does is refused: %s", err)
	default:
	}
	publish := append(others[:2:2], "kubeguardian.rules.syscall", "$JS.API.STREAM.PURGE."+bus.AlertStream, "$JS.API.STREAM.DELETE."+bus.AlertStream,
		"$JS.API.CONSUMER.CREATE."+bus.AlertStream, "kubeguardian.alerts.node-a.more", "anything")
	for _, subject := range publish {
		if err := nc.Publish(subject, []byte("{}")); err != nil {
			t.Error(err)
		}
		wantRefusal(t, refused, "publish to "+subject)
	}
	for _, subject := range append(heardByOthers[:1:1], ">", "_INBOX.>", "_INBOX_AGENT.>", "kubeguardian.alerts.>", "kubeguardian.states.node-a") {
		if _, err := nc.SubscribeSync(subject); err != nil {
			t.Error(err)
		}
		wantRefusal(t, refused, "subscribe to "+subject)
	}
}

func wantRefusal(t *testing.T, refused <-chan string, what string) {
	t.Helper()
	select {
	case err := <-refused:
		if !strings.Contains(err, "Permissions Violation") {
			t.Errorf("%s: %s", what, err)
		}
	case <-time.After(time.Minute):
		t.Errorf("%s is not refused", what)
	}
}

// testTokens holds tokens of all kinds against what the server makes of them.
func (d *deployment) testTokens(t *testing.T, r *replica, url, mine string, uid types.UID) {
	key := signingKey(t, filepath.Join(d.path("lab"), "pki", "service-account.key"))
	other, elsewhere := d.pod(t, agentsName+"/other", "other", "node-a"), d.pod(t, "default/agent-a", agentsName, "node-a")
	unscheduled := d.pod(t, agentsName+"/unscheduled", agentsName, "")
	head, rest, _ := strings.Cut(mine, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	now := time.Now()
	for _, tc := range []struct {
		name, token string
		taken       bool
	}{
		{"of an agent", mine, true},
		{"for others too", d.token(t, agentsID, "agent-a", uid, "someone", ours), true},
		{"for the API server", d.token(t, agentsID, "agent-a", uid), false},
		{"for another audience", d.token(t, agentsID, "agent-a", uid, "kubeguardian2"), false},
		{"of no pod", d.token(t, agentsID, "", "", ours), false},
		{"of a pod without a node", d.token(t, agentsID, "unscheduled", unscheduled, ours), false},
		{"of another account", d.token(t, agentsName+"/other", "other", other, ours), false},
		{"of another namespace", d.token(t, "default/"+agentsName, "agent-a", elsewhere, ours), false},
		{"signed again", resign(t, key, mine, nil), true},
		{"expired", resign(t, key, mine, map[string]any{"nbf": now.Add(-2 * time.Hour).Unix(), "iat": now.Add(-2 * time.Hour).Unix(), "exp": now.Add(-time.Minute).Unix()}), false},
		{"not valid yet", resign(t, key, mine, map[string]any{"nbf": now.Add(time.Hour).Unix(), "exp": now.Add(2 * time.Hour).Unix()}), false},
		{"of another issuer", resign(t, key, mine, map[string]any{"iss": "https://issuer.example"}), false},
		{"signed by another key", resign(t, foreignKey(t), mine, nil), false},
		{"changed", head + "." + encode(changed(t, payload, map[string]any{"kubernetes.io": map[string]any{
			"namespace": agentsName, "serviceaccount": map[string]any{"name": agentsName}, "node": map[string]any{"name": "node-b"}}})) + "." + signature, false},
		{"unsigned", encode([]byte(`{"alg":"none"}`)) + "." + payload + ".", false},
		{"cut", head + "." + payload, false},
		{"garbage", "a.b.c", false},
		{"blank", " ", false},
		{"none", "", false},
		{"long", mine + strings.Repeat("x", 2<<10), false},
	} {
		nc, err := logIn(url, nats.Token(tc.token))
		if err == nil {
			nc.Close()
		}
		if tc.taken != (err == nil) || err != nil && !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("a token %s: %v, want it taken: %v", tc.name, err, tc.taken)
		}
	}
	if nc, err := logIn(url, nats.UserInfo("server", mine)); err == nil {
		nc.Close()
		t.Error("a name and a password are taken")
	}
	if log := r.log(); strings.Contains(log, mine) || strings.Contains(log, signature) || !strings.Contains(log, "may not connect to the bus") {
		t.Errorf("the log tells a token, or nothing of refusals:\n%s", log)
	}
}

// testDeleted wants tokens of what is gone to be refused, though their time is not
// over and something of the same name is there again.
func (d *deployment) testDeleted(t *testing.T, url string) {
	taken := func(token string) bool {
		nc, err := logIn(url, nats.Token(token))
		if err == nil {
			nc.Close()
		} else if !errors.Is(err, nats.ErrAuthorization) {
			t.Error(err)
		}
		return err == nil
	}
	uid := d.pod(t, agentsName+"/agent-b", agentsName, "node-b")
	shown, unseen := d.token(t, agentsID, "agent-b", uid, ours), d.token(t, agentsID, "agent-b", uid, ours, "unseen")
	now := int64(0)
	if !taken(shown) {
		t.Error("an agent is refused")
	}
	if err := d.client.CoreV1().Pods(agentsName).Delete(t.Context(), "agent-b", metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		t.Fatal(err)
	}
	uid = d.pod(t, agentsName+"/agent-b", agentsName, "node-a")
	wantRefused(t, "of a pod that is gone, while one has its name", taken, unseen)
	shown, unseen = d.token(t, agentsID, "agent-b", uid, ours), d.token(t, agentsID, "agent-b", uid, ours, "unseen")
	if !taken(shown) {
		t.Error("the agent of a new pod is refused")
	}
	if err := d.client.CoreV1().ServiceAccounts(agentsName).Delete(t.Context(), agentsName, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	d.serviceAccount(t, agentsID)
	wantRefused(t, "of an account that is gone, while one has its name", taken, unseen)
}

// wantRefused waits for the API server to know what is gone. A token that was shown
// before it takes for ten seconds more, without looking.
func wantRefused(t *testing.T, what string, taken func(string) bool, token string) {
	t.Helper()
	for began := time.Now(); taken(token); time.Sleep(200 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Errorf("a token %s is taken", what)
			return
		}
	}
}

// signingKey is that by which the API server signs tokens.
func signingKey(t *testing.T, file string) *rsa.PrivateKey {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("%s has no key in PEM", file)
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key.(*rsa.PrivateKey)
}

func foreignKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func encode(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

// changed returns the claims of a token with others in their place.
func changed(t *testing.T, payload string, claims map[string]any) []byte {
	t.Helper()
	data, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]any{}
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	for name, value := range claims {
		all[name] = value
	}
	if data, err = json.Marshal(all); err != nil {
		t.Fatal(err)
	}
	return data
}

// resign returns a token with other claims, signed by a key as if it was the API
// server's.
func resign(t *testing.T, key *rsa.PrivateKey, token string, claims map[string]any) string {
	t.Helper()
	parts := strings.Split(token, ".")
	text := parts[0] + "." + encode(changed(t, parts[1], claims))
	digest := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + encode(signature)
}
