package web

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/store"
)

// attacks are texts that run as a program where a page takes them for markup, for
// an attribute, a link, a script or a template.
var attacks = []string{
	`<img src=x onerror="window.hacked=1">`, `"><svg onload=window.hacked=1>`, `'-(window.hacked=1)-'`,
	`</script><script>window.hacked=1</script>`, `javascript:window.hacked=1`, `</title></textarea></style><script>window.hacked=1</script>`,
	`{{.}}${window.hacked=1}`, `" autofocus onfocus="window.hacked=1" x="`, "\u2028window.hacked=1//",
}

// hostileAlert has an attack in every field that a cluster fills.
func hostileAlert(id, attack string) alert.Alert {
	a := testAlert(0)
	a.ID, a.Time, a.Priority = id, time.Now().UTC(), alert.Critical
	a.Rule, a.Output, a.Hostname, a.Cluster, a.Source = attack, attack, attack, attack, attack
	a.Tags, a.Tactics = []string{attack}, []string{attack}
	a.Subject = finding.Subject{APIVersion: attack, Kind: attack, Namespace: attack, Name: attack, Container: attack, Source: attack}
	a.OutputFields = map[string]any{attack: attack, "nested": map[string]any{attack: []any{attack}}}
	for _, field := range []string{
		"ka.user.name", "ka.useragent", "ka.verb", "ka.uri", "ka.target.resource", "ka.target.subresource", "ka.target.name", "ka.sourceips",
		"proc.name", "proc.cmdline", "proc.exepath", "user.name", "evt.type", "k8s.pod.name", "k8s.ns.name", "container.id", "container.image.repository", "fd.name",
	} {
		a.OutputFields[field] = attack
	}
	for _, kind := range []alert.EntityKind{alert.User, alert.Pod, alert.Address, alert.Node, alert.Image} {
		a.Entities = append(a.Entities, alert.Entity{Kind: kind, Name: attack})
	}
	return a
}

// TestBrowserAttacks opens every page with attacks in every field, those that come
// live too: none of them runs, and the browser has nothing to complain about.
func TestBrowserAttacks(t *testing.T) {
	s := newSite(t, full(t))
	correlator := incident.NewCorrelator(nil)
	var hostile []alert.Alert
	var last *incident.Incident
	for i, attack := range attacks {
		a := hostileAlert(fmt.Sprint("hostile-", i), attack)
		hostile = append(hostile, a)
		last = correlator.Add("test-cluster", incident.FromAlert(&a)).Incident
	}
	s.add(t, hostile...)
	last.ID, last.Story = "hostile", strings.Join(attacks, " ")
	if err := s.store.SaveIncidents(t.Context(), []*incident.Incident{last}, nil, store.Joined{}, 0); err != nil {
		t.Fatal(err)
	}
	who := strings.Join(attacks, " ")[:100]
	if code, body := s.sendChange(t, "hostile", fmt.Sprintf(`{"state":"closed","assignee":%q,"reason":%q}`, who, who)); code != http.StatusOK {
		t.Fatalf("change: %d %s", code, body)
	}
	s.visitor(t).login(attacks[0], attacks[0])
	s.mu.Lock()
	s.health.Problems = attacks
	s.mu.Unlock()

	b := newBrowser(t, s.url)
	b.open(t, "/alerts")
	b.login(t, testToken)
	b.until(t, `document.querySelector("[data-live].on") !== null`)
	for i, attack := range attacks {
		live := hostileAlert(fmt.Sprint("live-", i), attack)
		s.add(t, live)
		b.until(t, fmt.Sprintf("%s.includes(%q)", rows, live.ID))
	}
	paths := []string{"/login", "/alerts/hostile-0", "/alerts?text=" + url.QueryEscape(attacks[0]), "/incidents?state=all", "/incidents/hostile", "/nothing/" + url.PathEscape(attacks[0])}
	for _, r := range s.routes() {
		if r.method == http.MethodGet && !r.api() && r.needs != "" && !strings.Contains(r.path, "{id}") {
			paths = append(paths, strings.ReplaceAll(r.path, "{$}", ""))
		}
	}
	for i := range attacks[1:] {
		paths = append(paths, fmt.Sprint("/alerts/hostile-", i+1))
	}
	slices.Sort(paths)
	for _, path := range slices.Compact(paths) {
		if strings.Contains(path, "{") {
			continue // of something that this site does not have
		}
		b.open(t, path)
		b.run(t, chromedp.Evaluate(`document.querySelectorAll("details").forEach((d) => d.open = true)`, nil))
		if eval[bool](t, b, "window.hacked !== undefined") {
			t.Errorf("%s runs an attack", path)
		}
		if bad := eval[string](t, b, `[...document.querySelectorAll("[onerror], [onload], [onfocus], a[href^='javascript:'], main script, main img[src=x], main svg[onload]")].map((e) => e.outerHTML).join(" ")`); bad != "" {
			t.Errorf("%s has %s", path, bad)
		}
	}
	b.mu.Lock()
	b.messages = slices.DeleteFunc(b.messages, func(m string) bool { return strings.Contains(m, "404") }) // Chromium notes the page that there is not
	b.mu.Unlock()
	b.quiet(t)
}

// TestBrowserPolicy: what got into a page in spite of all does not run, and leads
// nowhere.
func TestBrowserPolicy(t *testing.T) {
	s := newSite(t, full(t))
	b := newBrowser(t, s.url)
	b.open(t, "/alerts")
	b.login(t, testToken)
	b.until(t, `document.querySelector("[data-live].on") !== null`)
	b.run(t, chromedp.Evaluate(`(() => {
		const main = document.querySelector("main");
		main.insertAdjacentHTML("beforeend", '<img src=x onerror="window.hacked=1"><form id=out method=get action="http://127.0.0.1:9/"></form>');
		const script = document.createElement("script");
		script.textContent = "window.hacked=2";
		main.append(script);
		document.getElementById("out").submit();
		fetch("http://127.0.0.1:9/").catch(() => { window.kept = true });
	})()`, nil))
	b.until(t, "window.kept === true")
	if eval[bool](t, b, "window.hacked !== undefined") || eval[string](t, b, "location.pathname") != "/alerts" {
		t.Error("what was put into the page runs, or leads away")
	}
	b.mu.Lock()
	said := strings.Join(b.messages, "\n")
	b.mu.Unlock()
	for _, directive := range []string{"script-src", "connect-src", "form-action"} {
		if !strings.Contains(said, directive) {
			t.Errorf("%s was not what kept it: %s", directive, said)
		}
	}
}

// TestOversizeRequests: no request takes more than a little memory.
func TestOversizeRequests(t *testing.T) {
	s := newSite(t)
	s.join(t, "one", "ada")
	for name, c := range map[string]struct{ body, kind string }{
		"a form": {"state=closed&reason=" + strings.Repeat("x", 1<<20), "application/x-www-form-urlencoded"},
		"JSON":   {`{"reason":"` + strings.Repeat("x", 1<<20) + `"}`, "application/json"},
		"depth":  {strings.Repeat("[", 60_000), "application/json"},
	} {
		req, err := http.NewRequest("POST", s.url+"/api/v1/incidents/one", strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", c.kind)
		req.Header.Set("Authorization", "Bearer "+testToken)
		if code, body, _ := s.visitor(t).read(http.DefaultClient.Do(req)); code != http.StatusBadRequest || len(body) > 1000 {
			t.Errorf("%s: %d, %d bytes", name, code, len(body))
		}
	}
	for _, e := range s.actionLog(t) {
		if len(e.Change) > 5000 {
			t.Errorf("entry %d keeps %d bytes", e.Seq, len(e.Change))
		}
	}
	if code, _ := s.bearer(t, "/api/v1/alerts", strings.Repeat("x", 500_000)); code != http.StatusUnauthorized {
		t.Errorf("a huge token: %d", code)
	}
}

// TestSecretsAreShownNowhere uses the tokens in every way, and looks for them in
// what pages, API, log and log of actions say.
func TestSecretsAreShownNowhere(t *testing.T) {
	const wrong = "wrong-token-9876543210"
	s := newSite(t, full(t))
	s.join(t, "one", "ada")
	v := s.visitor(t)
	var said strings.Builder
	note := func(_ int, body, path string) { said.WriteString(body + path) }
	note(v.login(wrong, "/"))
	note(v.login(testToken, "/"))
	note(v.read(v.Get(s.url + "/login?next=/alerts")))
	note(v.read(v.PostForm(s.url+"/incidents/one", url.Values{"state": {"closed"}, "token": {wrong}})))
	for _, token := range []string{wrong, testToken} {
		_, answer := s.bearer(t, "/api/v1/actions", token)
		fmt.Fprint(&said, answer)
	}
	for _, r := range s.routes() {
		if r.method == http.MethodGet && !strings.Contains(r.path, "stream") && !strings.Contains(r.path, "{") {
			_, body := v.get(r.path)
			said.WriteString(body)
		}
	}
	session := v.Jar.Cookies(mustParse(t, s.url))[0].Value
	said.WriteString(s.log.String())
	for name, secret := range map[string]string{"a wrong token": wrong, "the login token": testToken, "a session": session} {
		if at := strings.Index(said.String(), secret); at >= 0 {
			t.Errorf("%s is shown: …%s…", name, said.String()[max(at-100, 0):at])
		}
	}
}
