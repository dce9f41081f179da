package server

import (
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
	if o.Authorizer = cluster; w.Authorization == "roles" {
		o.Authorizer = grants(w.Roles)
	}
	return access.New(o)
}

func grants(roles []config.RoleGrant) (out access.Grants) {
	for _, r := range roles {
		out = append(out, access.Grant{Role: access.Role(r.Role), Users: r.Users, Groups: r.Groups})
	}
	return out
}

// loginPage says what the login page asks for.
func (s *Server) loginPage() web.Login {
	l := web.Login{Token: s.cfg.Web.Login.Token}
	if s.cfg.Web.Login.Kubernetes {
		l.Audience = s.cfg.Web.Login.Audiences[0]
	}
	return l
}
