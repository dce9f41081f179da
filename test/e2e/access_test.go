package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// account makes a service account, binds a ClusterRole to it if one is named, and
// returns a token of it for an audience.
func (d *deployment) account(t *testing.T, name, role string, audiences ...string) string {
	t.Helper()
	accounts := d.client.CoreV1().ServiceAccounts("default")
	if _, err := accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if role != "" {
		_, err := d.client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "default", Name: name}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	token, err := accounts.CreateToken(t.Context(), name, &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return token.Status.Token
}

// ask returns what a server answers to somebody with a token.
func (r *replica) ask(t *testing.T, method, path, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.web+path, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// TestAccess has a real API server say whose tokens are and what their holders may
// do, asked by a server that has the published rights alone.
func TestAccess(t *testing.T) {
	d := newLab(t, "roles")
	r := &replica{name: "server", program: d.bin("kubeguardian"), dir: d.path("server"), web: free(t), config: d.path("server.yaml")}
	text := fmt.Sprintf("cluster: access\ndataDir: %s\nkubeconfig: %s\nweb: {listen: %q}\nwebhook: {listen: %q}\nadmission: {enabled: false}\n",
		r.dir, d.path("server.kubeconfig"), r.web, free(t))
	if err := os.WriteFile(r.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start(t)
	t.Cleanup(func() { r.stop(t) })
	eventually(t, "the server answers", func() error {
		resp, err := http.Get("http://" + r.web + "/healthz")
		if err == nil {
			resp.Body.Close()
		}
		return err
	})
	const audience = "kubeguardian"
	tokens := map[string]string{"wrong": "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2ln", "forTheAPIServer": d.account(t, "other", "kubeguardian-admin")}
	for _, role := range []string{"viewer", "responder", "admin"} {
		tokens[role] = d.account(t, role, "kubeguardian-"+role, audience)
	}
	tokens["nobody"] = d.account(t, "nobody", "", audience)
	tokens["clusterAdmin"] = d.account(t, "everything", "cluster-admin", audience)
	d.testMatrix(t, r, tokens)
	d.testTakenBack(t, r, tokens)
	if log := r.log(); strings.Contains(log, "eyJ") {
		t.Errorf("the log has a token:\n%s", log)
	}
}

func (d *deployment) testMatrix(t *testing.T, r *replica, tokens map[string]string) {
	for _, c := range []struct {
		method, path string
		codes        map[string]int
	}{
		{"GET", "/api/v1/alerts", map[string]int{"wrong": 401, "forTheAPIServer": 401, "nobody": 403, "viewer": 200, "responder": 200, "admin": 200, "clusterAdmin": 200}},
		{"POST", "/api/v1/incidents/none", map[string]int{"wrong": 401, "nobody": 403, "viewer": 403, "responder": 404, "admin": 404, "clusterAdmin": 404}},
		{"GET", "/api/v1/actions", map[string]int{"wrong": 401, "nobody": 403, "viewer": 403, "responder": 403, "admin": 200, "clusterAdmin": 200}},
	} {
		for who, want := range c.codes {
			if code, body := r.ask(t, c.method, c.path, tokens[who]); code != want {
				t.Errorf("%s %s by %s: %d %s, want %d", c.method, c.path, who, code, body, want)
			}
		}
	}
	if _, body := r.ask(t, "GET", "/api/v1/actions", tokens["admin"]); !strings.Contains(body, `"user":"system:serviceaccount:default:responder"`) || strings.Contains(body, "eyJ") {
		t.Errorf("the log of actions: %s", body)
	}
}

// testTakenBack takes a role away from one who has a session, and the account of
// another: within the time that answers are kept both come to an end.
func (d *deployment) testTakenBack(t *testing.T, r *replica, tokens map[string]string) {
	page := func(token string) func() (int, string) {
		jar, err := cookiejar.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		client := http.Client{Jar: jar}
		resp, err := client.PostForm("http://"+r.web+"/login", url.Values{"token": {token}, "next": {"/alerts"}})
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return func() (int, string) {
			resp, err := client.Get("http://" + r.web + "/alerts")
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			return resp.StatusCode, resp.Request.URL.Path
		}
	}
	viewer, admin := page(tokens["viewer"]), page(tokens["admin"])
	for name, ask := range map[string]func() (int, string){"viewer": viewer, "admin": admin} {
		if code, path := ask(); code != http.StatusOK || path != "/alerts" {
			t.Fatalf("%s: %d %s", name, code, path)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	if err := d.client.RbacV1().ClusterRoleBindings().Delete(ctx, "viewer", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := d.client.CoreV1().ServiceAccounts("default").Delete(ctx, "admin", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	var codes [2]int
	var paths [2]string
	for ctx.Err() == nil {
		codes[0], paths[0] = viewer()
		codes[1], paths[1] = admin()
		if codes[0] == http.StatusForbidden && paths[1] == "/login" {
			return
		}
		time.Sleep(time.Second)
	}
	t.Errorf("long after role and account were taken away: %v %v", codes, paths)
}
