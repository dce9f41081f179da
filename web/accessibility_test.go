package web

import (
	_ "embed"
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

//go:embed testdata/accessible.js
var accessible string // an expression of the faults of a page

// dress shows the page in a colour scheme, in a window of a width.
func (b *browser) dress(t *testing.T, scheme string, width int64) {
	t.Helper()
	b.run(t,
		emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}),
		emulation.SetDeviceMetricsOverride(width, 1000, 1, false),
		emulation.SetFocusEmulationEnabled(true))
}

// lived gives a site what the data of a busy cluster leaves out, so that each page
// has something to show, and returns the paths of all pages.
func (s *site) lived(t *testing.T) []string {
	t.Helper()
	i := s.testIncident(t)
	s.join(t, "one", "ada")
	s.deliverTo(t, "http://127.0.0.1:9/")
	s.mu.Lock()
	s.health.Problems = []string{"The cluster has not been read yet."}
	s.mu.Unlock()
	paths := []string{
		"/alerts/process-1", "/incidents/" + i.ID, "/incidents/a1", "/incidents?state=closed", "/search?q=offer-service-0", "/search?q=never", "/search?q=latest", "/audit?policy=latest-tags",
		"/entity/pod/shop/offer-service-0", "/entity/user/nobody", "/rules/Secrets%20listed", "/playground?tab=policy", "/nothing",
	}
	for _, r := range s.routes() {
		if r.method == "GET" && !r.api() && r.needs != "" && r.path != "/" && (!strings.Contains(r.path, "{") || r.path == "/{$}") {
			paths = append(paths, strings.TrimSuffix(r.path, "{$}"))
		}
	}
	return paths
}

// TestAccessibility: everybody can read and use each page, in light and in dark, in
// a wide window and on a telephone.
func TestAccessibility(t *testing.T) {
	s := newSite(t, told(t), full(t))
	b := newBrowser(t, s.url)
	check := func(page string) {
		t.Helper()
		for _, scheme := range []string{"light", "dark"} {
			for _, width := range []int64{1440, 390} {
				b.dress(t, scheme, width)
				for _, fault := range eval[[]string](t, b, accessible) {
					t.Errorf("%s, %s, %d px: %s", page, scheme, width, fault)
				}
			}
		}
	}
	b.open(t, "/")
	check("/login")
	b.login(t, testToken)
	b.until(t, `document.querySelector("[data-live].on") !== null`)
	for _, path := range s.lived(t) {
		b.open(t, path)
		check(path)
	}
	b.open(t, "/playground?alert="+testAlert(0).ID)
	b.run(t, chromedp.SetValue("#rule", "ka.verb = create and not ka.user.name = nobody"), chromedp.Submit("#rule"), chromedp.WaitVisible(".result"))
	b.until(t, `document.readyState === "complete"`)
	check("a trial")
}

// TestAccessibilityFaults: the check finds each fault that it is for.
func TestAccessibilityFaults(t *testing.T) {
	s := newSite(t)
	b := newBrowser(t, s.url)
	b.open(t, "/login")
	b.dress(t, "light", 390)
	const clean = "<main><h1>A page</h1><p>%s</p></main>"
	for name, c := range map[string]struct{ html, want string }{
		"clean":           {`<label>Name <input></label> <a href="/">home</a> <button aria-label="close">x</button>`, ""},
		"input":           {`<input placeholder="Name">`, "it has no name: <input"},
		"link":            {`<a href="/"><img src="/static/favicon.svg" alt=""></a>`, "it has no name: <a"},
		"image":           {`<img src="/static/favicon.svg">`, "an image has no alt"},
		"second h1":       {`<h1>Another</h1>`, "the page has not one h1"},
		"heading":         {`<h3>Far below</h3>`, "a heading skips a level"},
		"ids":             {`<i id="same"></i><i id="same"></i>`, "two elements have the id same"},
		"label":           {`<i aria-labelledby="none"></i>`, "its label is missing"},
		"table":           {`<table><tr><td>1</td></tr></table>`, "a table has no header"},
		"header":          {`<table><tr><th></th></tr></table>`, "a header is empty"},
		"contrast":        {`<span class="pale">pale</span>`, "contrast is 2."},
		"large text":      {`<span class="pale large">pale, but large enough</span>`, "contrast is 2."},
		"focus":           {`<a class="unseen" href="/">home</a>`, "its focus cannot be seen"},
		"wider than wide": {`<span class="wide">wide</span>`, "the page is wider than its window"},
	} {
		b.run(t, chromedp.Evaluate(fmt.Sprintf(`document.body.innerHTML = %q; for (const [name, value] of [["pale", "color: #a0a0a0; background: #fff"],
			["large", "font-size: 30px"], ["unseen", "outline: none"], ["wide", "display: block; width: 900px"]])
			for (const e of document.getElementsByClassName(name)) e.style.cssText += value + ";"`, fmt.Sprintf(clean, c.html)), nil))
		got := strings.Join(eval[[]string](t, b, accessible), "\n")
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: the check says %q, want %q", name, got, c.want)
		}
	}
}
