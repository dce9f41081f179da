package e2e

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// browser starts a headless Chromium with an empty profile. Without one the
// test is skipped; where everything is required it fails instead.
func browser(t *testing.T) context.Context {
	t.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		if os.Getenv("KUBEGUARDIAN_REQUIRE") == "all" {
			t.Fatal("no Chromium in PATH, and KUBEGUARDIAN_REQUIRE=all")
		}
		t.Skip("no Chromium in PATH")
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-quic", true))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// testPage signs in, makes a real API call and waits for its alert on the
// page, which must be the same document all the time.
func (c *cluster) testPage(t *testing.T) {
	const namespace = "seen-on-the-page"
	ctx := browser(t)
	err := chromedp.Run(ctx,
		chromedp.Navigate(c.Page+"/alerts"),
		chromedp.WaitVisible("#token"), chromedp.SendKeys("#token", c.Token), chromedp.Submit("#token"),
		chromedp.WaitVisible("[data-live].on"), // the stream of alerts is open
		chromedp.Evaluate(`window.sameDocument = true`, nil),
	)
	if err != nil {
		t.Fatalf("sign in: %v", err)
	}
	if _, err := c.client.CoreV1().Secrets(namespace).List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	var same bool
	err = chromedp.Run(ctx,
		chromedp.WaitVisible(`//*[contains(@class, "alerts")]//*[contains(text(), "`+namespace+`")]`, chromedp.BySearch),
		chromedp.Evaluate(`window.sameDocument === true`, &same),
	)
	if err != nil {
		t.Fatalf("wait for the alert on the page: %v", err)
	}
	if !same {
		t.Error("the page was loaded again")
	}
}
