package test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/alert/team"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/store"
)

// A mailbox notes who was told.
type mailbox struct {
	name string
	told *[]string
	mu   *sync.Mutex
}

func (m mailbox) Send(_ context.Context, batch []notify.Notification) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for range batch {
		*m.told = append(*m.told, m.name)
	}
	return nil
}

func (m mailbox) Close() error { return nil }

const owners = `
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {kubeguardian.dev/owner: payments}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: bare}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop}, spec: {containers: [{name: c, image: i}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: cart, namespace: shop, labels: {kubeguardian.dev/owner: checkout}}, spec: {containers: [{name: c, image: i}]}}
`

// TestOwnersPage routes incidents by the configuration that docs/notify.md shows,
// and expects them to arrive where its table says.
func TestOwnersPage(t *testing.T) {
	var text string
	for _, b := range blocks(t, "../docs/notify.md") {
		if b.info == "yaml owners" {
			text = b.text
		}
	}
	c, err := config.Parse("docs/notify.md", []byte(text))
	if err != nil || len(c.Notify.Routes) == 0 {
		t.Fatal("docs/notify.md: ", err)
	}
	file := filepath.Join(t.TempDir(), "cluster.yaml")
	if err := os.WriteFile(file, []byte(owners), 0o600); err != nil {
		t.Fatal(err)
	}
	inv, err := inventory.FromFiles(t.Context(), []string{file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../docs/notify.md")
	if err != nil {
		t.Fatal(err)
	}
	for row, a := range map[string]alert.Alert{
		"a Warning incident of a pod there | ": {Priority: alert.Warning, Subject: finding.Subject{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: "web"}},
		"a Critical one | ":                    {Priority: alert.Critical, Subject: finding.Subject{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: "web"}},
		"one of a pod there with the label `kubeguardian.dev/owner: checkout` | ": {Priority: alert.Warning, Subject: finding.Subject{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: "cart"}},
		"one of a namespace without an owner | ":                                  {Priority: alert.Warning, Subject: finding.Subject{APIVersion: "v1", Kind: "Pod", Namespace: "bare", Name: "x"}},
	} {
		_, rest, found := strings.Cut(string(page), row)
		want, _, _ := strings.Cut(rest, " |")
		if !found || want == "" {
			t.Fatalf("docs/notify.md has no row %q", row)
		}
		alerts := []alert.Alert{a}
		team.Keys(c.Detection.OwnerKeys).Own(inv, alerts)
		if got := deliveredTo(t, c, alerts[0]); !slices.Equal(got, strings.Split(want, ", ")) {
			t.Errorf("%q of %q goes to %q, want %s", row, alerts[0].Owner, got, want)
		}
	}
}

// deliveredTo returns who is told of an incident of one alert.
func deliveredTo(t *testing.T, c *config.Config, a alert.Alert) (told []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "kubeguardian.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		build := func(_ config.Section, o notify.Options) (notify.Destination, error) {
			return mailbox{o.Name, &told, &mu}, nil
		}
		n, err := notify.New(notify.Setup{Config: &c.Notify, Store: db, Types: map[string]notify.Constructor{"pagerduty": build, "slack": build}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx) }()
		synctest.Wait()
		a.ID, a.Time, a.Rule = "one", time.Now(), "Rule"
		out := incident.NewCorrelator(nil).Add("", incident.FromAlert(&a))
		out.Incident.Paged = a.Time
		if _, err := db.AddAlerts(ctx, []alert.Alert{a}); err != nil {
			t.Error(err)
		}
		if err := db.SaveIncidents(ctx, []*incident.Incident{out.Incident}, nil, store.Joined{}, 1); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	slices.SortFunc(told, func(a, b string) int { return strings.Compare(b, a) })
	return told
}
