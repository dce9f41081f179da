package email_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"net/textproto"
	"strings"
	"sync"
	"testing"
)

// A server is a small mail server: it does what RFC 5321 has a client need, and
// says what it is told to at a step.
type server struct {
	net.Listener
	tls      *tls.Config // for STARTTLS; nil: not offered
	implicit bool        // TLS from the first byte on

	mu    sync.Mutex
	say   map[string]string // an answer in place of the usual one, by command
	mails []received
}

type received struct {
	from string
	to   []string
	data string
	user string
	tls  bool
}

func newServer(t *testing.T, encryption *tls.Config, implicit bool) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{Listener: l, tls: encryption, implicit: implicit, say: map[string]string{}}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				if s.implicit {
					conn = tls.Server(conn, s.tls)
				}
				s.serve(conn, s.implicit)
			})
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return s
}

func (s *server) answer(command, usual string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if said, ok := s.say[command]; ok {
		return said
	}
	return usual
}

// says sets the answer to a command; "" the usual one.
func (s *server) says(command, answer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if delete(s.say, command); answer != "" {
		s.say[command] = answer
	}
}

func (s *server) received() []received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]received(nil), s.mails...)
}

func (s *server) serve(conn net.Conn, encrypted bool) {
	text := textproto.NewConn(conn)
	reply := func(line string) { fmt.Fprintf(conn, "%s\r\n", line) }
	reply(s.answer("greeting", "220 test ESMTP"))
	mail := received{tls: encrypted}
	for {
		line, err := text.ReadLine()
		if err != nil {
			return
		}
		command, rest, _ := strings.Cut(line, " ")
		switch command = strings.ToUpper(command); command {
		case "EHLO":
			reply("250-test")
			if s.tls != nil && !encrypted {
				reply("250-STARTTLS")
			}
			reply("250-AUTH PLAIN LOGIN")
			reply(s.answer(command, "250 8BITMIME"))
		case "STARTTLS":
			reply(s.answer(command, "220 go on"))
			secure := tls.Server(conn, s.tls)
			if secure.Handshake() != nil {
				return
			}
			s.again(secure)
			return
		case "AUTH":
			_, secret, _ := strings.Cut(rest, " ")
			plain, _ := base64.StdEncoding.DecodeString(secret)
			mail.user = string(bytes.ReplaceAll(plain, []byte{0}, []byte("/")))
			reply(strings.ReplaceAll(s.answer(command, "235 welcome"), "ECHO", secret+" "+mail.user))
		case "MAIL":
			mail.from, mail.to = rest, nil
			reply(s.answer(command, "250 ok"))
		case "RCPT":
			mail.to = append(mail.to, rest)
			reply(s.answer(command, "250 ok"))
		case "DATA":
			answer := s.answer(command, "354 go on")
			reply(answer)
			if answer[0] != '3' {
				continue
			}
			data, err := text.ReadDotBytes()
			if err != nil {
				return
			}
			mail.data = string(data)
			if answer := s.answer("content", "250 queued"); answer[0] != '2' {
				reply(answer)
				continue
			}
			s.mu.Lock()
			s.mails = append(s.mails, mail)
			s.mu.Unlock()
			reply("250 queued")
		case "QUIT":
			reply(s.answer(command, "221 bye"))
			return
		case "RSET", "NOOP":
			reply(s.answer(command, "250 ok"))
		default:
			reply("500 what")
		}
	}
}

// again serves the same connection after STARTTLS, without a greeting.
func (s *server) again(conn net.Conn) {
	s.serve(&skipGreeting{Conn: conn}, true)
}

// skipGreeting leaves out the first line that is written.
type skipGreeting struct {
	net.Conn
	greeted bool
}

func (c *skipGreeting) Write(p []byte) (int, error) {
	if !c.greeted {
		c.greeted = true
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// endless sends a line without an end to whoever connects.
func endless(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		w := bufio.NewWriter(conn)
		w.WriteString("220 ")
		for range 1 << 16 {
			if _, err := w.WriteString(strings.Repeat("x", 1024)); err != nil {
				break
			}
		}
		conn.Close()
	}
}
