package email_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/email"
	"github.com/kubeguardian/kubeguardian/notify/notifytest"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

const password = "S3cretOfTheMail"

func made(t *testing.T, s *server, change func(*email.Config)) notify.Destination {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := email.Config{
		Server: s.Addr().String(), From: "KubeGuardian <kg@example.org>", To: []string{"a@example.org", "B <b@example.org>"},
		Username: "kg", PasswordFile: notify.SecretFile(file), TLS: post.Config{AllowAddresses: []string{"127.0.0.1"}, Timeout: time.Minute},
	}
	change(&c)
	log := &notifytest.Log{}
	d, err := email.New(c, notify.Options{Name: "mail", Log: log.Logger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		notifytest.Silent(t, log.String(), password)
	})
	return d
}

// secured returns a server with a certificate, and the file of its authority.
func secured(t *testing.T, implicit bool) (*server, string) {
	a := notifytest.NewAuthority(t)
	return newServer(t, &tls.Config{Certificates: []tls.Certificate{a.Pair}}, implicit), a.CAFile
}

func TestDelivers(t *testing.T) {
	for _, encryption := range []string{"starttls", "tls"} {
		t.Run(encryption, func(t *testing.T) {
			s, ca := secured(t, encryption == "tls")
			d := made(t, s, func(c *email.Config) { c.Encryption, c.TLS.CAFile = encryption, ca })
			want := notifytest.Notifications(12)
			for i := range want {
				if err := d.Send(t.Context(), want[i:i+1]); err != nil {
					t.Fatalf("%d: %v", i, err)
				}
			}
			got := s.received()
			if len(got) != 12 {
				t.Fatalf("%d mails", len(got))
			}
			for i, m := range got {
				if !m.tls || m.user != "/kg/"+password || !strings.HasPrefix(m.from, "FROM:<kg@example.org>") || len(m.to) != 2 || m.to[1] != "TO:<b@example.org>" {
					t.Errorf("got %+v", m)
				}
				checkMail(t, m.data, want[i])
			}
		})
	}
}

// checkMail parses a mail as readers do. What attackers write is in no header but
// the subject.
func checkMail(t *testing.T, data string, n notify.Notification) {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	if err != nil || !strings.HasPrefix(subject, "[KubeGuardian] ") || strings.ContainsAny(subject, "\r\n\x00\x1b") || len([]rune(subject)) > 215 {
		t.Errorf("subject %q, %v", subject, err)
	}
	body := io.Reader(m.Body)
	if m.Header.Get("Content-Transfer-Encoding") == "quoted-printable" {
		body = quotedprintable.NewReader(body)
	}
	text, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	if m.Header.Get("Message-ID") != "<"+n.Key+"@kubeguardian>" || m.Header.Get("Auto-Submitted") != "auto-generated" || m.Header.Get("Bcc") != "" ||
		!strings.Contains(string(text), "Pod: shop/web") || !strings.Contains(string(text), n.URL) || strings.ContainsAny(string(text), "\x00\x1b") {
		t.Errorf("got %v\n%.500s", m.Header, text)
	}
}

// TestAnswers: what a server says of the mail is for good with 5xx; all else is
// tried again.
func TestAnswers(t *testing.T) {
	s, ca := secured(t, false)
	d := made(t, s, func(c *email.Config) { c.TLS.CAFile, c.TLS.Timeout = ca, 5*time.Second }) // one answer is waited for in vain
	one := notifytest.Notifications(1)
	const retry, permanent, fine = "retry", "permanent", "fine"
	for _, c := range []struct{ at, answer, want string }{
		{"greeting", "421 busy", retry}, {"greeting", "554 no", retry}, {"EHLO", "550 no", retry}, {"STARTTLS", "454 not now", retry},
		{"AUTH", "535 no: ECHO", retry}, {"AUTH", "454 later: ECHO", retry},
		{"MAIL", "451 later", retry}, {"MAIL", "452 full", retry}, {"MAIL", "530 who", permanent}, {"MAIL", "550 no", permanent},
		{"RCPT", "450 later", retry}, {"RCPT", "421 bye", retry}, {"RCPT", "550 nobody " + password, permanent}, {"RCPT", "553 bad", permanent},
		{"DATA", "451 later", retry}, {"DATA", "554 no", permanent},
		{"content", "452 full", retry}, {"content", "421 bye", retry}, {"content", "552 too large", permanent}, {"content", "554 spam " + password, permanent},
		{"RSET", "421 bye", fine}, {"QUIT", "500 what", fine},
		{"greeting", "hello " + password, retry}, {"MAIL", password, retry},
	} {
		s.says(c.at, c.answer)
		before := len(s.received())
		err := d.Send(t.Context(), one)
		got := fine
		switch {
		case notify.IsPermanent(err):
			got = permanent
		case err != nil:
			got = retry
		}
		if got != c.want || (len(s.received()) > before) != (c.want == fine) {
			t.Errorf("%s after %s: %s (%v), want %s", c.answer, c.at, got, err, c.want)
		}
		if err != nil {
			notifytest.Silent(t, err.Error(), password)
			if !strings.HasPrefix(err.Error(), "mail: send by 127.0.0.1:") {
				t.Errorf("the error does not say where: %v", err)
			}
		}
		s.says(c.at, "")
	}
	if err := d.Send(t.Context(), one); err != nil {
		t.Errorf("when all is well again: %v", err)
	}
}

func TestConnections(t *testing.T) {
	s, ca := secured(t, false)
	one := notifytest.Notifications(1)
	other, _ := secured(t, false)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	flood, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer flood.Close()
	go endless(flood)
	for name, c := range map[string]struct {
		change func(*email.Config)
		want   string
		dead   bool
	}{
		"an unknown authority":           {func(c *email.Config) { c.Server = other.Addr().String() }, "certificate", false},
		"no TLS where it is wanted":      {func(c *email.Config) { c.Server = newServer(t, nil, false).Addr().String() }, "not offer", false},
		"TLS from the start":             {func(c *email.Config) { c.Encryption = "tls" }, "", false},
		"nobody listens":                 {func(c *email.Config) { c.Server = closed(t) }, "refused", false},
		"says nothing":                   {func(c *email.Config) { c.Server, c.TLS.Timeout = silent.Addr().String(), 100*time.Millisecond }, "no answer in time", false},
		"a line without end":             {func(c *email.Config) { c.Server = flood.Addr().String() }, "", false},
		"an address that is not allowed": {func(c *email.Config) { c.TLS.AllowAddresses = nil }, "allowAddresses", true},
		"the password is gone":           {func(c *email.Config) { c.PasswordFile += "2" }, "no such file", false},
	} {
		d := made(t, s, func(conf *email.Config) { conf.TLS.CAFile = ca; c.change(conf) })
		err := d.Send(t.Context(), one)
		if err == nil || !strings.Contains(err.Error(), c.want) || notify.IsPermanent(err) != c.dead {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		} else {
			notifytest.Silent(t, err.Error(), password)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	d := made(t, s, func(c *email.Config) { c.Server = silent.Addr().String() })
	if err := d.Send(ctx, one); !errors.Is(err, context.DeadlineExceeded) || notify.IsPermanent(err) {
		t.Errorf("a context that ends: %v", err)
	}
	plain := newServer(t, nil, false)
	d = made(t, plain, func(c *email.Config) { c.Encryption, c.Username, c.PasswordFile = "none", "", "" })
	if err := d.Send(t.Context(), one); err != nil || len(plain.received()) != 1 {
		t.Errorf("without encryption: %v", err)
	}
}

func closed(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestConfigurations(t *testing.T) {
	good := email.Config{Server: "smtp.example.org:587", From: "a@example.org", To: []string{"b@example.org"}}
	if _, err := email.New(good, notify.Options{}); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*email.Config){
		"want host:port":  func(c *email.Config) { c.Server = "smtp.example.org" },
		"port":            func(c *email.Config) { c.Server = "smtp.example.org:99999" },
		`encryption "x"`:  func(c *email.Config) { c.Encryption = "x" },
		"passwordFile":    func(c *email.Config) { c.Username = "u" },
		"could be read":   func(c *email.Config) { c.Username, c.PasswordFile, c.Encryption = "u", "p", "none" },
		`auth "x"`:        func(c *email.Config) { c.Auth = "x" },
		"1 to 100":        func(c *email.Config) { c.To = nil },
		`address "no\nx"`: func(c *email.Config) { c.To = []string{"no\nx"} },
		"of HTTP":         func(c *email.Config) { c.TLS.Proxy = "http://p" },
		"allowed address": func(c *email.Config) { c.TLS.AllowAddresses = []string{"x"} },
		"authorities":     func(c *email.Config) { c.TLS.CAFile = "no-such-file" },
		"timeout":         func(c *email.Config) { c.TLS.Timeout = time.Hour },
	} {
		c := good
		change(&c)
		if _, err := email.New(c, notify.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
