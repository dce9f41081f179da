package access

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestRoles(t *testing.T) {
	seen := map[Permission]bool{}
	for _, role := range Roles() {
		for _, p := range added[role] {
			if verb, resource := p.split(); seen[p] || resource == "" || strings.Contains(resource, " ") || verb == "*" || resource == "*" {
				t.Errorf("%s has %q, which is there twice or is not a verb and a resource", role, p)
			}
			seen[p] = true
			if p.Role() != role || !role.Allows(p) || !Admin.Allows(p) {
				t.Errorf("%q is of role %s, not %s, or an admin may not", p, p.Role(), role)
			}
		}
	}
	for _, p := range Viewer.Permissions() {
		if p.Changes() {
			t.Errorf("a viewer may %s", p)
		}
	}
	for _, role := range []Role{"", "root", "ADMIN"} {
		if role.Allows("list alerts") {
			t.Errorf("role %q may list alerts", role)
		}
	}
	if Admin.Allows("") || Permission("list secrets").Role() != "" {
		t.Error("a role has a permission that there is not")
	}
}

func TestTokens(t *testing.T) {
	g, err := New(Options{Tokens: []Token{{"ada", Admin, "secret-of-ada"}, {"ben", Viewer, "secret-of-ben"}}})
	if err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]string{"secret-of-ada": "ada", "secret-of-ben": "ben", "secret-of-cara": "", "": "", "secret-of-ad": ""} {
		c, err := g.Token(t.Context(), value)
		if want == "" {
			if !errors.Is(err, ErrInvalid) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%q: %v", value, err)
			}
			continue
		}
		if id, err := c.Identity(t.Context()); err != nil || id.User != want {
			t.Errorf("%q is of %s, %v", value, id.User, err)
		}
	}
	if _, err := New(Options{Tokens: []Token{{User: "ada"}}}); err == nil || !strings.Contains(err.Error(), "login token of ada: it is empty") {
		t.Errorf("an empty token: %v", err)
	}
}

func TestGrants(t *testing.T) {
	g, err := New(Options{Authorizer: Grants{{Role: Responder, Users: []string{"ada"}, Groups: []string{"on-call"}}, {Role: Viewer, Groups: []string{"staff"}}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		id   Identity
		may  []Permission
		deny []Permission
	}{
		{Identity{User: "ada"}, []Permission{"list alerts", "update incidents"}, []Permission{"list actions"}},
		{Identity{User: "ben", Groups: []string{"staff", "on-call"}}, []Permission{"update incidents"}, []Permission{"update settings"}},
		{Identity{User: "cara", Groups: []string{"staff"}}, []Permission{"list alerts"}, []Permission{"update incidents"}},
		{Identity{User: "on-call", Groups: []string{"ada"}}, nil, []Permission{"list alerts"}},
		{Identity{}, nil, []Permission{"list alerts"}},
	} {
		for _, p := range append(slices.Clone(c.may), c.deny...) {
			err := g.Allow(t.Context(), c.id, p)
			if may := slices.Contains(c.may, p); may != (err == nil) {
				t.Errorf("%v, %s: %v", c.id, p, err)
			}
			if denied := (*Denied)(nil); err != nil && (!errors.As(err, &denied) || denied.Permission != p) {
				t.Errorf("%v, %s: %v", c.id, p, err)
			}
		}
	}
	if nobody, _ := New(Options{}); nobody.Allow(t.Context(), Identity{User: "ada"}, "list alerts") == nil {
		t.Error("without an authorizer one may")
	}
}
