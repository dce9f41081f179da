package post

import (
	"errors"
	"net/url"

	"github.com/kubeguardian/kubeguardian/notify"
)

// CheckAddress wants either a URL or a file that has one, and the former to be of
// http or https.
func CheckAddress(address string, file notify.SecretFile) error {
	if (address == "") == (file == "") {
		return errors.New("give one of url and urlFile")
	}
	if address == "" {
		return nil
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return errors.New("url: want http://… or https://…")
	}
	if u.User != nil {
		return errors.New("url: a password in it is a secret: give a urlFile, or a header by headerFiles")
	}
	return nil
}

// Address returns the URL, or the one in the file.
func Address(address string, file notify.SecretFile) (string, error) {
	if file == "" {
		return address, nil
	}
	secret, err := file.Read()
	return string(secret), err
}
