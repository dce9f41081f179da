// Package test drives the whole application, with a real PostgreSQL, through
// its public API and over the services' own connections.
package test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/api/applicationv1"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/api/authv1"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/api/offerv1"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/identity"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/local"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/service"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/token"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/traffic"
)

// A logbook keeps what the services log.
type logbook struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// one is the application that most tests share: they make their own people.
var one struct {
	once sync.Once
	app  *local.App
	book *logbook
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if one.app != nil {
		if err := errors.Join(one.app.Stop(), os.RemoveAll(one.app.Dir())); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// shared returns the shared application, started for the first that asks.
func shared(t *testing.T) (*local.App, *logbook) {
	t.Helper()
	one.once.Do(func() {
		dir, err := os.MkdirTemp("", "internship-matcher-")
		if err != nil {
			t.Fatal(err)
		}
		one.app, one.book, one.err = launch(context.Background(), local.Options{Dir: dir, WAF: "block", Rate: 10_000})
	})
	usable(t, one.err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(one.book)
		}
	})
	return one.app, one.book
}

// start runs an application for one test.
func start(t *testing.T, o local.Options) (*local.App, *logbook) {
	t.Helper()
	o.Dir = t.TempDir()
	app, book, err := launch(t.Context(), o)
	usable(t, err)
	t.Cleanup(func() {
		if err := app.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(book)
		}
	})
	return app, book
}

func launch(ctx context.Context, o local.Options) (*local.App, *logbook, error) {
	book := &logbook{}
	o.Listen, o.Log = "127.0.0.1:0", slog.New(slog.NewJSONHandler(book, &slog.HandlerOptions{Level: slog.LevelDebug}))
	app, err := local.Start(ctx, o)
	return app, book, err
}

// usable skips the test without PostgreSQL, unless KUBEGUARDIAN_REQUIRE=all.
func usable(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, local.ErrNoPostgres) && os.Getenv("KUBEGUARDIAN_REQUIRE") != "all" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func client(app *local.App) traffic.Client {
	return traffic.Client{URL: app.URL, HTTP: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}, Timeout: 30 * time.Second}}
}

func TestJourneys(t *testing.T) {
	app, book := shared(t)
	ctx, c := within(t, 2*time.Minute), client(app)
	seen := map[string]bool{}
	for n := range 5 {
		acknowledged, err := traffic.Journey(ctx, c, n)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range acknowledged {
			seen[path] = true
		}
	}
	if len(seen) != 10 {
		t.Errorf("5 journeys made %d things, want an offer and an application each", len(seen))
	}
	for _, private := range []string{"@example.com", "Zoë", "O'Brien", "scheduler in Go"} {
		if strings.Contains(book.String(), private) {
			t.Errorf("the logs have personal data in them: %s", private)
		}
	}
}

func TestAttacks(t *testing.T) {
	app, book := shared(t)
	ctx, c := within(t, 2*time.Minute), client(app)
	attacks, err := traffic.Injections(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range attacks {
		if !a.Blocked() {
			t.Errorf("%s went through: %s", a.Kind, a.Request)
		}
	}
	if !strings.Contains(book.String(), `"msg":"firewall"`) {
		t.Error("the firewall logged nothing")
	}
	stuffing, err := traffic.Stuffing(ctx, c, 15)
	if err != nil {
		t.Fatal(err)
	}
	if last := stuffing[len(stuffing)-1]; last.Status != http.StatusTooManyRequests {
		t.Errorf("15 wrong passwords: the last got %d, want 429", last.Status)
	}
}

func TestFirewallModes(t *testing.T) {
	for _, tc := range []struct {
		mode    string
		status  int // of an injection
		matches bool
	}{
		{"block", http.StatusForbidden, true},
		{"detect", http.StatusOK, true},
		{"off", http.StatusOK, false},
	} {
		t.Run(tc.mode, func(t *testing.T) {
			app, book := start(t, local.Options{WAF: tc.mode, Rate: 10_000})
			p := account(t, app, "student")
			err := p.Do(within(t, time.Minute), http.MethodGet, "/v1/offers?text=%27+OR+1%3D1+UNION+SELECT+password+FROM+users--", nil, nil)
			if have := max(traffic.Code(err), http.StatusOK); have != tc.status {
				t.Errorf("an injection got %d, want %d: %v", have, tc.status, err)
			}
			if have := strings.Contains(book.String(), `"msg":"firewall"`); have != tc.matches {
				t.Errorf("the firewall logged: %t, want %t", have, tc.matches)
			}
		})
	}
}

func TestRateLimit(t *testing.T) {
	app, _ := start(t, local.Options{WAF: "off", Rate: 5})
	scraping, err := traffic.Scraping(within(t, time.Minute), client(app), 200)
	if err != nil {
		t.Fatal(err)
	}
	blocked := 0
	for _, a := range scraping {
		if a.Blocked() {
			blocked++
		}
	}
	if blocked == 0 {
		t.Error("200 requests as fast as possible, at 5 a second, and none was refused")
	}
}

// account makes a person and logs in.
func account(t *testing.T, app *local.App, role string) traffic.Client {
	t.Helper()
	ctx, c := within(t, time.Minute), client(app)
	email, password := uuid.NewString()+"@example.com", "correct horse battery"
	if err := c.Again(ctx, http.MethodPost, "/v1/users", map[string]any{"email": email, "password": password, "name": "Ada", "role": role}, nil); err != nil {
		t.Fatal(err)
	}
	var login traffic.Login
	if err := c.Again(ctx, http.MethodPost, "/v1/logins", map[string]any{"email": email, "password": password}, &login); err != nil {
		t.Fatal(err)
	}
	c.Token = login.Token
	return c
}

func newContent(title string) map[string]any {
	return map[string]any{"title": title, "description": "", "location": "Rome", "weeks": 4, "places": 1}
}

func TestWhoMayDoWhat(t *testing.T) {
	app, _ := shared(t)
	ctx := within(t, 2*time.Minute)
	company, other, student, nobody := account(t, app, "company"), account(t, app, "company"), account(t, app, "student"), client(app)
	forged := nobody
	forged.Token = forge(t)

	var offer traffic.Offer
	key := uuid.NewString()
	if err := company.Do(ctx, http.MethodPost, "/v1/offers", newContent("Tester"), &offer, "Idempotency-Key", key); err != nil {
		t.Fatal(err)
	}
	path := "/v1/offers/" + offer.ID
	changed := newContent("Test engineer")
	changed["version"] = offer.Version
	var application traffic.Application
	if err := student.Do(ctx, http.MethodPost, path+"/applications", map[string]any{"motivation": "yes"}, &application); err != nil {
		t.Fatal(err)
	}
	decisions := "/v1/applications/" + application.ID + "/decisions"

	for _, tc := range []struct {
		name         string
		who          traffic.Client
		method, path string
		body         any
		want         int
		headers      []string
	}{
		{"no login", nobody, "GET", "/v1/offers", nil, 401, nil},
		{"a forged login", forged, "GET", "/v1/offers", nil, 401, nil},
		{"no such page", nobody, "GET", "/admin", nil, 404, nil},
		{"an admin by registration", nobody, "POST", "/v1/users", map[string]any{"email": "a@example.com", "password": "correct horse battery", "name": "A", "role": "admin"}, 400, nil},
		{"a short password", nobody, "POST", "/v1/users", map[string]any{"email": "a@example.com", "password": "short", "name": "A", "role": "student"}, 400, nil},
		{"no address", nobody, "POST", "/v1/users", map[string]any{"email": "A <a@example.com>", "password": "correct horse battery", "name": "A", "role": "student"}, 400, nil},
		{"an unknown field", nobody, "POST", "/v1/logins", map[string]any{"email": "a@example.com", "password": "x", "admin": true}, 400, nil},
		{"an unknown account", nobody, "POST", "/v1/logins", map[string]any{"email": "a@example.com", "password": "x"}, 401, nil},
		{"a student offers", student, "POST", "/v1/offers", newContent("x"), 403, []string{"Idempotency-Key", uuid.NewString()}},
		{"an offer without a key", company, "POST", "/v1/offers", newContent("x"), 400, nil},
		{"another offer under the same key", company, "POST", "/v1/offers", newContent("x"), 409, []string{"Idempotency-Key", key}},
		{"the same offer again", company, "POST", "/v1/offers", newContent("Tester"), 200, []string{"Idempotency-Key", key}},
		{"an offer without a title", company, "POST", "/v1/offers", newContent(""), 400, []string{"Idempotency-Key", uuid.NewString()}},
		{"another company's offer", other, "PUT", path, changed, 403, nil},
		{"deleting another company's offer", other, "DELETE", path, nil, 403, nil},
		{"an id that is none", company, "GET", "/v1/offers/1", nil, 400, nil},
		{"an offer that is none", student, "GET", "/v1/offers/" + uuid.NewString(), nil, 404, nil},
		{"applying to none", student, "POST", "/v1/offers/" + uuid.NewString() + "/applications", map[string]any{}, 404, nil},
		{"a company applies", company, "POST", path + "/applications", map[string]any{}, 403, nil},
		{"a student decides", student, "POST", decisions, map[string]any{"status": "accepted"}, 403, nil},
		{"another company decides", other, "POST", decisions, map[string]any{"status": "accepted"}, 404, nil},
		{"deciding nothing", company, "POST", decisions, map[string]any{"status": "pending"}, 400, nil},
		{"deciding", company, "POST", decisions, map[string]any{"status": "rejected"}, 200, nil},
		{"deciding so again", company, "POST", decisions, map[string]any{"status": "rejected"}, 200, nil},
		{"deciding otherwise", company, "POST", decisions, map[string]any{"status": "accepted"}, 409, nil},
		{"changing", company, "PUT", path, changed, 200, nil},
		{"changing so again", company, "PUT", path, changed, 200, nil},
		{"a page token that is none", student, "GET", "/v1/offers?pageToken=x", nil, 400, nil},
		{"a huge page", student, "GET", "/v1/offers?pageSize=100000000000", nil, 400, nil},
		{"a huge body", company, "POST", "/v1/offers", newContent(strings.Repeat("x", 70_000)), 413, []string{"Idempotency-Key", uuid.NewString()}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := tc.who.Do(ctx, tc.method, tc.path, tc.body, nil, tc.headers...)
			if have := max(traffic.Code(err), http.StatusOK); have != tc.want {
				t.Errorf("%s %s: %d, want %d: %v", tc.method, tc.path, have, tc.want, err)
			}
		})
	}
}

// forge signs a login of an admin with a key of its own.
func forge(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := token.Generate(dir); err != nil {
		t.Fatal(err)
	}
	signer, err := token.NewSigner(dir + "/" + token.PrivateFile)
	if err != nil {
		t.Fatal(err)
	}
	text, _, err := signer.Sign(token.User{ID: uuid.NewString(), Role: "admin"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestDeletedOffers(t *testing.T) {
	app, _ := shared(t)
	ctx := within(t, time.Minute)
	company, student := account(t, app, "company"), account(t, app, "student")
	var offer traffic.Offer
	if err := company.Do(ctx, http.MethodPost, "/v1/offers", newContent("Gone"), &offer, "Idempotency-Key", uuid.NewString()); err != nil {
		t.Fatal(err)
	}
	path := "/v1/offers/" + offer.ID
	visible := func() (byID, bySearch bool) {
		t.Helper()
		err := student.Do(ctx, http.MethodGet, path, nil, nil)
		if code := traffic.Code(err); err != nil && code != http.StatusNotFound {
			t.Fatal(err)
		}
		var page traffic.Page[traffic.Offer]
		if err := student.Do(ctx, http.MethodGet, "/v1/offers?text=gone", nil, &page); err != nil {
			t.Fatal(err)
		}
		return err == nil, len(page.Items) == 1
	}
	for _, step := range []struct {
		method, path string
		want         bool
	}{{"DELETE", path, false}, {"DELETE", path, false}, {"POST", path + "/restore", true}, {"POST", path + "/restore", true}} {
		if err := company.Do(ctx, step.method, step.path, nil, nil); err != nil {
			t.Fatal(err)
		}
		if byID, bySearch := visible(); byID != step.want || bySearch != step.want {
			t.Errorf("after %s %s a student sees it by id: %t, by search: %t, want %t", step.method, step.path, byID, bySearch, step.want)
		}
	}
}

func TestPages(t *testing.T) {
	app, _ := shared(t)
	ctx, company := within(t, time.Minute), account(t, app, "company")
	var me traffic.User
	if err := company.Do(ctx, http.MethodGet, "/v1/users/me", nil, &me); err != nil {
		t.Fatal(err)
	}
	for n := range 7 {
		if err := company.Do(ctx, http.MethodPost, "/v1/offers", newContent(fmt.Sprint("Offer ", n)), nil, "Idempotency-Key", uuid.NewString()); err != nil {
			t.Fatal(err)
		}
	}
	var titles []string
	for next := ""; ; {
		var page traffic.Page[traffic.Offer]
		if err := company.Do(ctx, http.MethodGet, "/v1/offers?pageSize=3&companyId="+me.ID+"&pageToken="+next, nil, &page); err != nil {
			t.Fatal(err)
		}
		for _, o := range page.Items {
			titles = append(titles, o.Title)
		}
		if next = page.NextPageToken; next == "" {
			break
		}
	}
	if have, want := strings.Join(titles, ", "), "Offer 6, Offer 5, Offer 4, Offer 3, Offer 2, Offer 1, Offer 0"; have != want {
		t.Errorf("pages have %s, want %s", have, want)
	}
}

// TestServicesTrustNobody calls services past the gateway.
func TestServicesTrustNobody(t *testing.T) {
	app, book := shared(t)
	ctx, log := within(t, time.Minute), slog.New(slog.DiscardHandler)
	login := account(t, app, "company").Token
	as := token.With(ctx, token.Caller{Token: login})

	open := func(dir string) *identity.Identity {
		t.Helper()
		id, err := identity.Open(dir, log)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	stranger, err := identity.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	strange := t.TempDir()
	if err := stranger.Issue(strange, "gateway", time.Hour); err != nil {
		t.Fatal(err)
	}
	search := func(who *identity.Identity, ctx context.Context, address, name string) error {
		conn, err := service.Dial(who, address, name)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		_, err = offerv1.NewOffersClient(conn).Search(ctx, &offerv1.SearchRequest{})
		return err
	}
	gateway, application := open(app.Identity("gateway")), open(app.Identity("application"))
	offers := app.Services["offer"]
	for _, tc := range []struct {
		name string
		err  error
		want codes.Code
		text string
	}{
		{"the gateway, for somebody", search(gateway, as, offers, "offer"), codes.OK, ""},
		{"the gateway, for nobody", search(gateway, ctx, offers, "offer"), codes.Unauthenticated, "log in"},
		{"a service that has no business there", search(application, as, offers, "offer"), codes.PermissionDenied, "spiffe://internship-matcher/application may not call"},
		{"the gateway by another authority", search(open(strange), as, offers, "offer"), codes.DeadlineExceeded, "certificate"},
		{"a service in another's place", search(gateway, as, app.Services["auth"], "offer"), codes.DeadlineExceeded, "unexpected ID"},
	} {
		if status.Code(tc.err) != tc.want || tc.err != nil && !strings.Contains(tc.err.Error(), tc.text) {
			t.Errorf("%s: %v, want %s: %s", tc.name, tc.err, tc.want, tc.text)
		}
	}
	if !strings.Contains(book.String(), `"msg":"call denied","service":"offer","caller":"spiffe://internship-matcher/application"`) {
		t.Error("the denied call is not in the log")
	}

	conn, err := service.Dial(application, offers, "offer")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = offerv1.NewOffersClient(conn).Get(as, &offerv1.GetRequest{Id: uuid.NewString()})
	if status.Code(err) != codes.NotFound {
		t.Errorf("application reads an offer: %v, want NotFound, since it may", err)
	}
	for name, call := range map[string]func() error{
		"auth": func() error {
			conn, err := service.Dial(application, app.Services["auth"], "auth")
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = authv1.NewAuthClient(conn).Login(ctx, &authv1.LoginRequest{})
			return err
		},
		"application": func() error {
			conn, err := service.Dial(open(app.Identity("auth")), app.Services["application"], "application")
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = applicationv1.NewApplicationsClient(conn).Search(as, &applicationv1.SearchRequest{})
			return err
		},
	} {
		if err := call(); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s lets a service in that has no business there: %v", name, err)
		}
	}
}

// TestRotation replaces identities and keys while people work.
func TestRotation(t *testing.T) {
	app, _ := start(t, local.Options{WAF: "off", Rate: 10_000})
	ctx, before := within(t, 2*time.Minute), account(t, app, "company")
	for _, name := range []string{"gateway", "auth", "offer", "application"} {
		if err := app.Authority.Issue(app.Identity(name), name, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if err := token.Generate(app.Tokens()); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(5 * time.Second)
	for time.Now().Before(deadline) {
		if _, err := traffic.Journey(ctx, client(app), 0); err != nil {
			t.Fatal(err)
		}
		if err := before.Do(ctx, http.MethodGet, "/v1/users/me", nil, nil); err != nil {
			t.Fatalf("a login from before: %v", err)
		}
	}
}
