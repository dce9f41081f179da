package web

import (
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	cdpbrowser "github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// A hand uses a page as a person does, by the mouse or by the keyboard alone. All
// of it is for the first element that a selector selects.
type hand interface {
	press(t *testing.T, selector string)
	choose(t *testing.T, selector, value string) // of a list
	reach(t *testing.T, selector string)         // so that what is typed goes there
}

// A mouse points and clicks.
type mouse struct{ *browser }

func (m mouse) press(t *testing.T, selector string) {
	t.Helper()
	m.run(t, chromedp.Click(selector, chromedp.ByQuery, chromedp.NodeVisible))
}

func (m mouse) reach(t *testing.T, selector string) { t.Helper(); m.press(t, selector) }

// choose sets the value: the browser draws an open list outside of the page.
func (m mouse) choose(t *testing.T, selector, value string) {
	t.Helper()
	m.run(t, chromedp.SetValue(selector, value, chromedp.ByQuery))
}

// A keyboard goes from element to element by Tab, and never points at one.
type keyboard struct{ *browser }

// maxTabs is more than any page of the journey has to stop at.
const maxTabs = 300

func (k keyboard) reach(t *testing.T, selector string) {
	t.Helper()
	k.until(t, fmt.Sprintf("document.querySelector(%q) !== null", selector))
	for range maxTabs {
		if eval[bool](t, k.browser, fmt.Sprintf("document.activeElement === document.querySelector(%q)", selector)) {
			k.until(t, `getComputedStyle(document.activeElement).outlineStyle !== "none"`) // the focus can be seen
			return
		}
		k.run(t, chromedp.KeyEvent(kb.Tab))
	}
	t.Fatalf("%s cannot be reached by Tab on %s", selector, eval[string](t, k.browser, "location.href"))
}

func (k keyboard) press(t *testing.T, selector string) {
	t.Helper()
	k.reach(t, selector)
	k.run(t, chromedp.KeyEvent(kb.Enter))
}

func (k keyboard) choose(t *testing.T, selector, value string) {
	t.Helper()
	k.reach(t, selector)
	for range eval[int](t, k.browser, "document.activeElement.options.length") {
		if eval[string](t, k.browser, "document.activeElement.value") == value {
			return
		}
		k.run(t, chromedp.KeyEvent(kb.ArrowDown))
	}
	t.Fatalf("%s has no choice %s", selector, value)
}

// A journey is a person in front of a browser.
type journey struct {
	*browser
	hand
}

func (j journey) write(t *testing.T, selector, text string) {
	t.Helper()
	j.reach(t, selector)
	j.run(t, chromedp.KeyEvent(text))
}

// follow presses what leads to another page, and waits for that.
func (j journey) follow(t *testing.T, selector, path string) {
	t.Helper()
	j.press(t, selector)
	j.until(t, fmt.Sprintf(`location.pathname === %q && document.readyState === "complete"`, path))
}

// has waits for a text in an element.
func (j journey) has(t *testing.T, selector, text string) {
	t.Helper()
	j.until(t, fmt.Sprintf("[...document.querySelectorAll(%q)].some((e) => e.innerText.includes(%q))", selector, text))
}

// download presses a link to a file, and returns what the browser has kept of it.
func (j journey) download(t *testing.T, selector string) string {
	t.Helper()
	dir, done := t.TempDir(), make(chan string, 1)
	chromedp.ListenTarget(j.ctx, func(event any) {
		if e, ok := event.(*cdpbrowser.EventDownloadProgress); ok && e.State != cdpbrowser.DownloadProgressStateInProgress {
			done <- e.GUID
		}
	})
	j.run(t, cdpbrowser.SetDownloadBehavior(cdpbrowser.SetDownloadBehaviorBehaviorAllowAndName).WithDownloadPath(dir).WithEventsEnabled(true))
	j.press(t, selector)
	select {
	case name := <-done:
		return filepath.Join(dir, name)
	case <-j.ctx.Done():
		t.Fatalf("%s gives no file: %v", selector, j.ctx.Err())
		return ""
	}
}

// TestJourney is an evening on call, once by mouse and once by keyboard.
func TestJourney(t *testing.T) {
	for name, take := range map[string]func(*browser) hand{
		"mouse":    func(b *browser) hand { return mouse{b} },
		"keyboard": func(b *browser) hand { return keyboard{b} },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, full(t))
			b := newBrowser(t, s.url)
			b.run(t, emulation.SetFocusEmulationEnabled(true)) // as if its window were in front
			j := journey{b, take(b)}
			id := j.seeAlert(t, s)
			j.takeIncident(t, s, id)
			j.readProcesses(t)
			j.findPod(t)
			j.tryRule(t)
			j.export(t)
			b.quiet(t)
		})
	}
}

// seeAlert logs in, reads an alert, and takes note of those that come meanwhile.
// It returns the incident that they are of.
func (j journey) seeAlert(t *testing.T, s *site) string {
	t.Helper()
	j.open(t, "/alerts")
	j.write(t, "#token", testToken)
	j.follow(t, ".login button", "/alerts")
	j.until(t, `document.querySelector("[data-live].on") !== null`)
	j.press(t, ".alert summary")
	j.until(t, `document.querySelector(".alert[open]") !== null`)
	id := s.testIncident(t).ID
	j.has(t, ".waiting", "new")
	j.press(t, ".waiting")
	j.until(t, rows+`.includes("process-1")`)
	j.follow(t, `nav a[href="/incidents"]`, "/incidents")
	return id
}

// takeIncident acknowledges an incident, and takes it without being paged again.
func (j journey) takeIncident(t *testing.T, s *site, id string) {
	t.Helper()
	j.follow(t, fmt.Sprintf(`[data-row] a[href="/incidents/%s"]`, id), "/incidents/"+id)
	j.choose(t, "[name=state]", "acknowledged")
	j.write(t, "[name=assignee]", "ada@example.com")
	j.choose(t, "[name=mute]", "4h")
	j.press(t, ".filters button")
	j.has(t, "[data-state]", "acknowledged")
	j.has(t, ".facts dd", "ada@example.com")
	_, got := s.bearer(t, "/api/v1/incidents/"+id, testToken)
	if got["state"] != "acknowledged" || got["assignee"] != "ada@example.com" || got["muteTill"] == nil {
		t.Errorf("the incident is kept with state %v, assignee %v, muted till %v", got["state"], got["assignee"], got["muteTill"])
	}
}

// readProcesses goes from a process of the incident to the alert that it raised.
func (j journey) readProcesses(t *testing.T) {
	t.Helper()
	j.has(t, "#processes > li > ul > li > ul > li", "nc 192.0.2.7") // below the pod and the server that was broken into
	j.follow(t, `#processes a[href="/alerts/process-1"]`, "/alerts/process-1")
	j.has(t, ".fields", "nc 192.0.2.7")
}

// findPod looks for a pod by a part of its name.
func (j journey) findPod(t *testing.T) {
	t.Helper()
	j.write(t, "[data-find]", "service-0"+kb.Enter)
	j.until(t, `location.pathname === "/search" && document.readyState === "complete"`)
	j.follow(t, `main a[href="/entity/pod/shop/offer-service-0"]`, "/entity/pod/shop/offer-service-0")
	j.has(t, "h1", "shop/offer-service-0")
	j.has(t, ".timeline", "Shell started nc")
}

// tryRule tries a condition on a stored alert, and sees why it matches.
func (j journey) tryRule(t *testing.T) {
	t.Helper()
	j.follow(t, `nav a[href="/rules"]`, "/rules")
	j.follow(t, `.tabs a[href="/playground"]`, "/playground")
	j.write(t, "#rule", "ka.verb = create and not ka.user.name = nobody")
	j.write(t, "#alert", testAlert(0).ID)
	j.press(t, ".stack button")
	j.has(t, ".result h2", "matches")
	j.has(t, ".leaf.true", `ka.verb = create is "create"`)
	j.has(t, ".leaf.false", `ka.user.name = nobody is "developer@example.com"`)
}

// export takes all alerts away.
func (j journey) export(t *testing.T) {
	t.Helper()
	j.follow(t, `nav a[href="/alerts"]`, "/alerts")
	f, err := os.Open(j.download(t, `.exports a[href*="format=csv"]`))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := csv.NewReader(f).ReadAll()
	if err != nil || len(table) != 1+132 || !slices.Contains(table[0], "rule") {
		t.Errorf("the file has %d rows: %v", len(table), err)
	}
}

// TestJourneyShortcuts: each key that the help names does what it says.
func TestJourneyShortcuts(t *testing.T) {
	s := newSite(t, full(t))
	s.join(t, "one", "ada")
	s.join(t, "two", "ben")
	b := newBrowser(t, s.url)
	b.run(t, emulation.SetFocusEmulationEnabled(true))
	b.open(t, "/")
	b.login(t, testToken)
	b.until(t, `document.querySelector("[data-live].on") !== null`)
	first := `document.querySelectorAll("[data-row]")[0]`
	for _, step := range []struct{ keys, until string }{
		{"?", `document.getElementById("keys").open`},
		{kb.Escape, `!document.getElementById("keys").open`},
		{"gi", `location.pathname === "/incidents" && document.readyState === "complete"`},
		{"jj", `document.activeElement === document.querySelectorAll("[data-row]")[1].querySelector("[data-open]")`},
		{"k", "document.activeElement === " + first + `.querySelector("[data-open]")`},
		{"a", first + `.querySelector("[data-state]").textContent === "acknowledged"`},
		{"o", `location.pathname.startsWith("/incidents/") && document.readyState === "complete"`},
		{"/", `document.activeElement.matches("[data-find]")`},
		{kb.Escape, "document.activeElement === document.body"},
		{"gh", `location.pathname === "/health"`},
	} {
		b.run(t, chromedp.KeyEvent(step.keys))
		b.until(t, step.until)
	}
	b.quiet(t)
}
