package server

import (
	"fmt"
	"os"

	"github.com/kubeguardian/kubeguardian/access"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/web"
)

// openGate reads or makes the login token, and prepares whom else to ask.
func (s *Server) openGate() (*access.Gate, error) {
	w := s.cfg.Web
	var o access.Options
	if w.Login.Token {
		token, created, err := config.Token(w.TokenFile)
		if err != nil {
			return nil, err
		}
		if created {
			s.log.Info("created a login token for the page", "file", w.TokenFile)
		}
		o.Tokens = []access.Token{{User: "login token", Role: access.Admin, Value: string(token)}}
	}
	cluster, err := access.NewCluster(s.rest, w.Login.Audiences)
	if err != nil {
		return nil, err
	}
	if w.Login.Kubernetes {
		o.Issuers = append(o.Issuers, cluster)
	}
	if s.oidc, err = openOIDC(w.Login.OIDC); err != nil {
		return nil, err
	}
	if s.oidc != nil {
		o.Issuers = append([]access.Issuer{s.oidc}, o.Issuers...)
	}
	if o.Authorizer = cluster; w.Authorization == "roles" {
		o.Authorizer = grants(w.Roles)
	}
	return access.New(o)
}

// openOIDC reads what it takes to ask an issuer; nil if none is named.
func openOIDC(c config.OIDC) (*access.OIDC, error) {
	if c.Issuer == "" {
		return nil, nil
	}
	o := access.OIDCConfig{
		Issuer: c.Issuer, ClientID: c.ClientID, RedirectURL: c.RedirectURL, Scopes: c.Scopes,
		UsernameClaim: c.UsernameClaim, UsernamePrefix: c.UsernamePrefix, GroupsClaim: c.GroupsClaim, GroupsPrefix: c.GroupsPrefix,
	}
	if c.ClientSecretFile != "" {
		secret, err := config.ClientSecret(c.ClientSecretFile)
		if err != nil {
			return nil, err
		}
		o.ClientSecret = string(secret)
	}
	if c.CAFile != "" {
		var err error
		if o.CA, err = os.ReadFile(c.CAFile); err != nil {
			return nil, fmt.Errorf("read web.login.oidc.caFile: %w", err)
		}
	}
	return access.NewOIDC(o)
}

func grants(roles []config.RoleGrant) (out access.Grants) {
	for _, r := range roles {
		out = append(out, access.Grant{Role: access.Role(r.Role), Users: r.Users, Groups: r.Groups})
	}
	return out
}

// loginPage says what the login page asks for.
func (s *Server) loginPage() web.Login {
	l := web.Login{Token: s.cfg.Web.Login.Token, OIDC: s.oidc}
	if s.cfg.Web.Login.Kubernetes {
		l.Audience = s.cfg.Web.Login.Audiences[0]
	}
	return l
}
