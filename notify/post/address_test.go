package post_test

import (
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

func TestAddresses(t *testing.T) {
	for _, c := range []struct {
		url  string
		file notify.SecretFile
		want string
	}{
		{"https://a/b", "", ""},
		{"http://10.0.0.1:8080", "", ""},
		{"", "file", ""},
		{"", "", "one of"},
		{"https://a", "file", "one of"},
		{"a/b", "", "want http"},
		{"ftp://a", "", "want http"},
		{"https://user:S3cret@a", "", "password"},
		{"://S3cret", "", "want http"},
	} {
		err := post.CheckAddress(c.url, c.file)
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "S3cret")) {
			t.Errorf("%q and %q: %v, want %q", c.url, c.file, err, c.want)
		}
	}
	if got, err := post.Address("https://a", ""); err != nil || got != "https://a" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := post.Address("", "no-such-file"); err == nil || !strings.Contains(err.Error(), "no-such-file") {
		t.Errorf("got %v", err)
	}
}
