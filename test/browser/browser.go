// Package browser starts the real browser that pages are tested in.
package browser

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

const (
	lifetime = 10 * time.Minute // of a browser: more means that a test hangs
	farewell = 2 * time.Minute  // until the last process of a closed browser is gone
)

// Start returns a tab of a headless Chromium with an empty profile; the browser
// ends with the test. Without Chromium the test is skipped, and fails where
// KUBEGUARDIAN_REQUIRE=all.
func Start(t *testing.T, options ...chromedp.ExecAllocatorOption) context.Context {
	t.Helper()
	profile, err := os.MkdirTemp("", "kubeguardian-browser-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(t, profile) })
	options = slices.Concat(chromedp.DefaultExecAllocatorOptions[:], []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(find(t)), chromedp.UserDataDir(profile), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.WSURLReadTimeout(2 * time.Minute),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-quic", true),
	}, options)
	allocated, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	limited, cancel := context.WithTimeout(allocated, lifetime)
	t.Cleanup(cancel)
	ctx, _ := chromedp.NewContext(limited)
	if err := chromedp.Run(ctx); err != nil {
		t.Fatalf("start browser: %v", err)
	}
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Errorf("close browser: %v", err)
		}
		chromedp.FromContext(ctx).Allocator.Wait()
	})
	return ctx
}

func find(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	const reason = "no chromium, chromium-browser or google-chrome in PATH"
	if os.Getenv("KUBEGUARDIAN_REQUIRE") == "all" {
		t.Fatal(reason)
	}
	t.Skip(reason)
	return ""
}

// remove deletes the profile of a closed browser. The browser's helper
// processes outlive it for a moment, and still write to the profile then.
func remove(t *testing.T, profile string) {
	t.Helper()
	var err error
	for end := time.Now().Add(farewell); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = os.RemoveAll(profile); err == nil {
			return
		}
	}
	t.Errorf("remove profile of browser: %v", err)
}
