package post

import (
	"net/http"
	"strings"

	"github.com/kubeguardian/kubeguardian/notify"
)

// Over returns a client that sends by an HTTP client which is there already and
// which says who we are, such as that of the cluster's API server. The address
// that this leads to is not guarded: the server speaks to it anyway.
func Over(h *http.Client, o notify.Options) (*Client, error) {
	guard, err := NewGuard([]string{"0.0.0.0/0", "::/0"})
	if err != nil {
		return nil, err
	}
	own := *h
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{name: o.Name, http: &own, guard: guard, timeout: defaultTimeout, agent: "KubeGuardian/" + o.Version}, nil
}

// IsLabel reports whether a name can be one of a namespace, and so be put into a
// path of the API: what events say is not trusted to be.
func IsLabel(s string) bool {
	return s != "" && len(s) <= 63 && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '-' && (r < 'a' || r > 'z') && (r < '0' || r > '9')
	})
}
