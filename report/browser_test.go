package report

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/kubeguardian/kubeguardian/test/browser"
)

// TestHTMLInBrowser looks at the page at desktop and phone width, light and
// dark: nothing is wider than the window, and colours follow the scheme. With
// KUBEGUARDIAN_SCREENSHOTS=dir it keeps what it saw.
func TestHTMLInBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a browser")
	}
	file := filepath.Join(t.TempDir(), "report.html")
	page := write(t, HTML{Catalogue: catalogue(t), History: []*Report{load(t, "hostile")}}, load(t, "mixed"))
	if err := os.WriteFile(file, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx := browser.Start(t)
	grounds := map[string]string{}
	for _, scheme := range []string{"light", "dark"} {
		for width, device := range map[int64]string{1280: "desktop", 390: "phone"} {
			var wide bool
			var ground string
			var shot []byte
			err := chromedp.Run(ctx,
				chromedp.EmulateViewport(width, 900),
				emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}),
				chromedp.Navigate("file://"+file), chromedp.WaitReady("main"),
				chromedp.Evaluate("document.documentElement.scrollWidth > innerWidth", &wide),
				chromedp.Evaluate("getComputedStyle(document.body).backgroundColor", &ground),
				chromedp.FullScreenshot(&shot, 100),
			)
			if err != nil {
				t.Fatal(err)
			}
			if wide {
				t.Errorf("%s, %s: the page is wider than the window", scheme, device)
			}
			grounds[scheme] = ground
			if dir := os.Getenv("KUBEGUARDIAN_SCREENSHOTS"); dir != "" {
				if err := os.WriteFile(filepath.Join(dir, "report-"+scheme+"-"+device+".png"), shot, 0o644); err != nil {
					t.Error(err)
				}
			}
		}
	}
	if grounds["light"] == grounds["dark"] {
		t.Errorf("the ground is %s in both schemes", grounds["light"])
	}
}
