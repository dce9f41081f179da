package e2e

import (
	"testing"

	"github.com/chromedp/chromedp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubeguardian/kubeguardian/test/browser"
)

// testPage signs in, makes a real API call and waits for its alert on the
// page, which must be the same document all the time.
func (c *cluster) testPage(t *testing.T) {
	const namespace = "seen-on-the-page"
	ctx := browser.Start(t)
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
