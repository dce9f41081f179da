package web

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/kubeguardian/kubeguardian/alert"
	testbrowser "github.com/kubeguardian/kubeguardian/test/browser"
)

// A browser is a tab of a headless Chromium.
type browser struct {
	ctx context.Context
	url string

	mu       sync.Mutex
	messages []string // what the console, the CSP and failed requests said
}

func newBrowser(t *testing.T, url string) *browser {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a browser")
	}
	ctx := testbrowser.Start(t, chromedp.WindowSize(1440, 1000))
	b := &browser{ctx: ctx, url: url}
	chromedp.ListenTarget(ctx, b.listen)
	b.run(t, log.Enable(), network.Enable())
	return b
}

func (b *browser) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *log.EventEntryAdded:
		if !strings.HasPrefix(e.Entry.Text, "Autofocus processing was blocked") { // somebody was faster than the page
			b.messages = append(b.messages, fmt.Sprintf("%s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL))
		}
	case *runtime.EventConsoleAPICalled:
		b.messages = append(b.messages, fmt.Sprintf("console.%s", e.Type))
	case *runtime.EventExceptionThrown:
		b.messages = append(b.messages, e.ExceptionDetails.Error())
	}
}

// quiet fails the test if the browser complained about anything.
func (b *browser) quiet(t *testing.T) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.messages {
		t.Errorf("the browser says: %s", m)
	}
	b.messages = nil
}

func (b *browser) run(t *testing.T, actions ...chromedp.Action) {
	t.Helper()
	if err := chromedp.Run(b.ctx, actions...); err != nil {
		t.Fatal(err)
	}
}

func (b *browser) open(t *testing.T, path string) {
	t.Helper()
	b.run(t, chromedp.Navigate(b.url+path), chromedp.WaitReady("main"))
}

func (b *browser) login(t *testing.T, token string) {
	t.Helper()
	b.run(t, chromedp.WaitVisible("#token"), chromedp.SendKeys("#token", token), chromedp.Submit("#token"))
}

// eval returns the value of an expression in the page.
func eval[T any](t *testing.T, b *browser, expression string) (v T) {
	t.Helper()
	b.run(t, chromedp.Evaluate(expression, &v))
	return v
}

// until waits for an expression in the page to become true, across pages.
func (b *browser) until(t *testing.T, expression string) {
	t.Helper()
	var ok bool
	var err error
	for range 2400 {
		// An error is a page that is just being replaced.
		if err = chromedp.Run(b.ctx, chromedp.Evaluate(expression, &ok)); err == nil && ok {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%s did not become true: %v\n%s", expression, err, eval[string](t, b, "document.body.innerText"))
}

const rows = `[...document.querySelectorAll(".alerts .alert")].map((r) => r.dataset.id)`

// The story of a user: a wrong token, the right one, an alert that comes while
// the page is open, its detail, a filter, and the end of the session.
func TestBrowser(t *testing.T) {
	s := newSite(t, full(t))
	b := newBrowser(t, s.url)

	b.open(t, "/alerts")
	b.login(t, "wrong-token-0123456")
	b.run(t, chromedp.WaitVisible(".error"))
	if text := eval[string](t, b, `document.querySelector(".error").textContent`); text != "this token is not valid" {
		t.Errorf("a wrong token: %s", text)
	}
	b.mu.Lock()
	b.messages = nil // Chromium notes the answer 401
	b.mu.Unlock()
	b.login(t, testToken)
	b.until(t, `document.querySelector("[data-live].on") !== null`)
	if path := eval[string](t, b, "location.pathname"); path != "/alerts" {
		t.Errorf("after the login we are at %s", path)
	}
	if n := eval[int](t, b, rows+".length"); n != 50 {
		t.Errorf("the page has %d alerts", n)
	}

	b.run(t, chromedp.Evaluate("window.same = true", nil))
	hostile := testAlert(300)
	hostile.Rule = `<img src=x onerror="window.hacked = true">`
	hostile.OutputFields["<b>"] = []any{"<script>window.hacked = true</script>"}
	s.add(t, hostile)
	b.until(t, fmt.Sprintf("%s[0] === %q", rows, hostile.ID))
	late := testAlert(128)
	late.ID = "late"
	s.add(t, late, testAlert(301))
	b.until(t, fmt.Sprintf("%s[0] === %q", rows, testAlert(301).ID))
	if place := eval[int](t, b, rows+`.indexOf("late")`); place < 2 || place > 4 {
		t.Errorf("an alert that came late is row %d, not where its time belongs", place)
	}
	if !eval[bool](t, b, "window.same === true && window.hacked === undefined") {
		t.Error("the page was loaded again, or an alert was run as a program")
	}
	live := eval[string](t, b, `document.querySelectorAll(".alerts .alert")[1].outerHTML.replace(' class="alert new"', ' class="alert"')`)
	b.quiet(t)

	// What the script made is what the server makes.
	b.open(t, "/alerts")
	served := eval[string](t, b, fmt.Sprintf(`document.querySelector('[data-id="%s"]').outerHTML`, hostile.ID))
	if squeeze(live) != squeeze(served) {
		t.Errorf("a live alert and a served one differ:\n%s\n%s", squeeze(live), squeeze(served))
	}
	b.run(t, chromedp.Click(".alerts .alert summary"), chromedp.WaitVisible(".alert[open] .detail a"), chromedp.Click(".alert[open] .detail a"))
	b.run(t, chromedp.WaitVisible(".alert-page pre"))
	if text := eval[string](t, b, `document.querySelector("pre").textContent`); !strings.Contains(text, `"ka.auditid": "a-301"`) {
		t.Errorf("the raw alert is %s", text)
	}

	// A filtered page gets only the alerts that match, by submitting the form.
	b.open(t, "/alerts")
	b.run(t, chromedp.SetValue("[name=priority]", "critical"), chromedp.Submit("[name=text]"))
	b.until(t, `location.search.includes("priority=critical") && document.querySelector("[data-live].on") !== null`)
	s.add(t, testAlert(303), testAlert(302)) // the second is critical
	b.until(t, fmt.Sprintf("%s[0] === %q", rows, testAlert(302).ID))
	if eval[bool](t, b, fmt.Sprintf("%s.includes(%q)", rows, testAlert(303).ID)) {
		t.Error("a filtered page got an alert that does not match")
	}

	s.join(t, "one", "ada")
	for _, path := range []string{"/", "/incidents", "/incidents/one", "/decisions", "/audit", "/audit?policy=latest-tags", "/readiness", "/findings", "/alerts/" + hostile.ID} {
		b.open(t, path)
		if wide := eval[bool](t, b, "document.documentElement.scrollWidth > innerWidth"); wide {
			t.Errorf("%s is wider than the window", path)
		}
	}
	b.open(t, "/incidents/one")
	b.run(t, chromedp.SetValue("[name=state]", "acknowledged"), chromedp.Submit("[name=state]"))
	b.until(t, `document.querySelector(".facts .chip").textContent === "acknowledged"`)
	b.open(t, "/")
	b.until(t, `document.querySelector("[data-live].on") !== null`)
	s.add(t, testAlert(304))
	b.until(t, fmt.Sprintf("%s[0] === %q && %s.length === 8", rows, testAlert(304).ID, rows))
	b.run(t, chromedp.Click(".where button"), chromedp.WaitVisible("#token"))
	b.open(t, "/findings")
	if path := eval[string](t, b, "location.pathname"); path != "/login" {
		t.Errorf("after the logout %s is shown", path)
	}
	b.quiet(t)
}

// squeeze removes what a browser and a template write differently.
func squeeze(html string) string { return strings.Join(strings.Fields(html), "") }

// The first alert replaces the words that say that there is none.
func TestBrowserFirstAlert(t *testing.T) {
	s := newSite(t, func(s *site) { s.health.Problems = []string{"The cluster has not been read yet."} })
	b := newBrowser(t, s.url)
	b.open(t, "/alerts")
	b.login(t, testToken)
	b.until(t, `document.querySelector("[data-live].on") !== null && document.querySelector("[data-empty]") !== null`)
	var many []alert.Alert
	for i := range 600 {
		many = append(many, testAlert(i))
	}
	s.add(t, many...)
	b.until(t, fmt.Sprintf("%s[0] === %q && %s.length === 500", rows, testAlert(599).ID, rows))
	if eval[bool](t, b, `document.querySelector("[data-empty]") !== null`) {
		t.Error("the page still says that there is no alert")
	}
	b.until(t, `document.querySelector("[data-audit]").textContent.startsWith("no audit event received yet")`)
	b.until(t, `document.querySelector(".problem").textContent === "The cluster has not been read yet."`)
	s.mu.Lock()
	s.health = Health{LastAuditEvent: time.Now(), AuditEvents: 4711}
	s.mu.Unlock()
	b.until(t, `document.querySelector("[data-audit]").textContent.endsWith("4711 since the start") && document.querySelector(".problem") === null`)
	b.quiet(t)
}
