package post

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"

	"github.com/kubeguardian/kubeguardian/notify"
)

// An Auth is how a receiver knows us, besides a certificate: by a user's name
// and password, or by a token. The zero value is nobody.
type Auth struct {
	User         string            `yaml:"user"`
	PasswordFile notify.SecretFile `yaml:"passwordFile"`
	TokenFile    notify.SecretFile `yaml:"tokenFile"`
}

// Check returns an error unless there is a user with a password, a token, or
// nothing.
func (a Auth) Check() error {
	switch {
	case (a.User == "") != (a.PasswordFile == ""):
		return errors.New("user and passwordFile: give both or neither")
	case a.User != "" && a.TokenFile != "":
		return errors.New("tokenFile: give it or a user, not both")
	case strings.Contains(a.User, ":"):
		return errors.New("user: a name has no colon")
	}
	return nil
}

// Add adds an Authorization header: Basic for a user, else the scheme, such as
// Bearer, with the token. It reads the secret.
func (a Auth) Add(to http.Header, scheme string) error {
	file := a.TokenFile
	if a.User != "" {
		file = a.PasswordFile
	}
	if file == "" {
		return nil
	}
	secret, err := file.Read()
	if err != nil {
		return err
	}
	value := scheme + " " + string(secret)
	if a.User != "" {
		value = "Basic " + base64.StdEncoding.EncodeToString([]byte(a.User+":"+string(secret)))
	}
	if strings.ContainsAny(value, "\r\n\x00") {
		return errors.New("the secret has more than one line")
	}
	to.Set("Authorization", value)
	return nil
}

// Join returns a URL with a path after its own.
func Join(url, path string) string { return strings.TrimRight(url, "/") + path }

// CheckURL returns an error unless a URL is one of http or https. It does not
// quote the URL.
func CheckURL(url string) error {
	if !strings.HasPrefix(url, "https://") && !strings.HasPrefix(url, "http://") {
		return errors.New("url: want one that begins with https:// or http://")
	}
	return nil
}
