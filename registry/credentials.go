package registry

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
)

// Credentials are names and passwords for registries. They are never printed.
type Credentials struct{ byScope map[string]authn.AuthConfig }

// String says of how many registries there are credentials.
func (c *Credentials) String() string {
	return fmt.Sprintf("credentials of %d registries", len(c.byScope))
}

// GoString is String.
func (c *Credentials) GoString() string { return c.String() }

// ParseCredentials reads a configuration file of Docker, which is also what a
// Secret of type kubernetes.io/dockerconfigjson holds. Programs that it names as
// helpers are refused: none is run. Name appears in errors.
func ParseCredentials(name string, data []byte) (*Credentials, error) {
	var config struct {
		Auths map[string]struct {
			Auth          string `json:"auth"`
			Username      string `json:"username"`
			Password      string `json:"password"`
			IdentityToken string `json:"identitytoken"`
			RegistryToken string `json:"registrytoken"`
		} `json:"auths"`
		CredsStore  string            `json:"credsStore"`
		CredHelpers map[string]string `json:"credHelpers"`
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return nil, fmt.Errorf("%s: parse Docker configuration: %s", name, strings.TrimPrefix(err.Error(), "json: "))
	}
	if config.CredsStore != "" || len(config.CredHelpers) > 0 {
		return nil, fmt.Errorf("%s: credsStore and credHelpers name programs, and none is run: want auths", name)
	}
	c := &Credentials{byScope: map[string]authn.AuthConfig{}}
	for at, auth := range config.Auths {
		user, password := auth.Username, auth.Password
		if auth.Auth != "" {
			var err error
			if user, password, err = basic(auth.Auth); err != nil {
				return nil, fmt.Errorf("%s: auths of %s: %w", name, at, err)
			}
		}
		scope := scopeOf(at)
		if strings.Contains(scope, "*") {
			return nil, fmt.Errorf("%s: auths of %s: wildcards are not supported", name, at)
		}
		c.byScope[scope] = authn.AuthConfig{
			Username: user, Password: password, IdentityToken: auth.IdentityToken, RegistryToken: auth.RegistryToken,
		}
	}
	return c, nil
}

// basic reads a name and a password.
func basic(auth string) (user, password string, err error) {
	text, err := base64.StdEncoding.DecodeString(strings.TrimSpace(auth))
	if err != nil {
		return "", "", errors.New("auth is not base64")
	}
	user, password, ok := strings.Cut(string(text), ":")
	if !ok {
		return "", "", errors.New("auth is not a name and a password")
	}
	return user, password, nil
}

// scopeOf returns the registry, with the path if there is one, that a key of the
// file means: older ones are URLs of an API.
func scopeOf(at string) string {
	if _, rest, ok := strings.Cut(at, "://"); ok {
		at = rest
	}
	host, path, _ := strings.Cut(strings.Trim(at, "/"), "/")
	if host = CanonicalHost(host); path == "" || path == "v1" || path == "v2" {
		return host
	}
	return host + "/" + path
}

// Resolve implements [authn.Keychain]: the longest path that the repository is
// below decides.
func (c *Credentials) Resolve(target authn.Resource) (authn.Authenticator, error) {
	host, path, _ := strings.Cut(target.String(), "/")
	scope := strings.TrimSuffix(CanonicalHost(host)+"/"+path, "/")
	for {
		if found, ok := c.byScope[scope]; ok {
			return authn.FromConfig(found), nil
		}
		i := strings.LastIndexByte(scope, '/')
		if i < 0 {
			return authn.Anonymous, nil
		}
		scope = scope[:i]
	}
}
