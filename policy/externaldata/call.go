package externaldata

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/semaphore"
)

// The bounds of what a provider answers.
const (
	maxAnswerBytes = 4 << 20
	maxDepth       = 64 // levels of a value
)

// The objects of the protocol.
const (
	protocol     = group + "/v1beta1"
	requestKind  = "ProviderRequest"
	responseKind = "ProviderResponse"
)

// A caller calls one provider.
type caller struct {
	*provider
	http    *http.Client
	turns   *semaphore.Weighted
	breaker breaker
}

func newCaller(p *provider, own *certificate) *caller {
	return &caller{provider: p, turns: semaphore.NewWeighted(MaxCalls), http: &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: p.roots, GetClientCertificate: own.get},
			DialContext:            (&net.Dialer{Timeout: p.timeout, Control: checkAddress}).DialContext,
			MaxIdleConnsPerHost:    MaxCalls,
			IdleConnTimeout:        90 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
			DisableCompression:     true,
		},
	}}
}

// checkAddress refuses to connect to what is no provider, whatever its name
// resolves to: a metadata service gives the credentials of the machine to whoever
// asks, and is always reached by a link-local address or one of a few others. An
// address of the machine itself may be that of a provider beside this program.
func checkAddress(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("read address %s: %w", address, err)
	}
	if ip := embedded(to.Addr()); forbidden(ip) {
		return fmt.Errorf("address %s is not that of a provider", to.Addr())
	}
	return nil
}

func forbidden(ip netip.Addr) bool {
	if ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() {
		return true
	}
	switch ip.String() {
	case "fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16":
		return true
	}
	return false
}

// embedded returns the IPv4 address that an IPv6 address stands for, directly or
// behind a translator (RFC 6052), or else the address.
func embedded(ip netip.Addr) netip.Addr {
	ip = ip.Unmap().WithZone("")
	if netip.MustParsePrefix("64:ff9b::/96").Contains(ip) {
		wide := ip.As16()
		return netip.AddrFrom4([4]byte(wide[12:]))
	}
	return ip
}

// A request is what a provider is asked.
type request struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Request    struct {
		Keys []string `json:"keys"`
	} `json:"request"`
}

// A response is what a provider answers.
type response struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Response   struct {
		Idempotent  bool   `json:"idempotent"`
		Items       []Item `json:"items"`
		SystemError string `json:"systemError"`
	} `json:"response"`
}

// call waits for its turn and asks the provider, unless it hangs.
func (p *caller) call(ctx context.Context, keys []string) (*Answer, error) {
	if err := p.turns.Acquire(ctx, 1); err != nil {
		return nil, fmt.Errorf("%d calls of it are running: %w", MaxCalls, p.late(err))
	}
	defer p.turns.Release(1)
	if err := p.breaker.allow(time.Now()); err != nil {
		return nil, err
	}
	answer, err := p.ask(ctx, keys)
	if !errors.Is(ctx.Err(), context.Canceled) {
		p.breaker.note(err != nil && ctx.Err() != nil, time.Now())
	}
	return answer, err
}

// ask asks the provider.
func (p *caller) ask(ctx context.Context, keys []string) (*Answer, error) {
	body := request{APIVersion: protocol, Kind: requestKind}
	body.Request.Keys = keys
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "kubeguardian")
	resp, err := p.http.Do(req)
	if err != nil {
		return nil, p.late(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		return nil, fmt.Errorf("it answers %s: redirects are not followed", resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read its answer: %w", p.late(err))
	}
	answer, err := parse(data)
	if err != nil && resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %s: %w", resp.Status, err)
	}
	if err != nil {
		return nil, err
	}
	answer.StatusCode = resp.StatusCode
	return answer, nil
}

// late says that the time ran out, where that is the cause, and leaves out what
// the error for the caller says already.
func (p *caller) late(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer within its timeout of %s", p.timeout)
	}
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// parse reads a ProviderResponse. Its version may be an older one, whose fields
// are the same.
func parse(data []byte) (*Answer, error) {
	if len(data) > maxAnswerBytes {
		return nil, fmt.Errorf("its answer has more than %d bytes", maxAnswerBytes)
	}
	var r response
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("read its answer: %w", err)
	}
	if r.Kind != responseKind || !strings.HasPrefix(r.APIVersion, group+"/") {
		return nil, fmt.Errorf("its answer is a %q of %q: want a %s of %s", clip(r.Kind), clip(r.APIVersion), responseKind, protocol)
	}
	for _, i := range r.Response.Items {
		if tooDeep(i.Value, maxDepth) {
			return nil, fmt.Errorf("its answer for %q is nested deeper than %d levels", clip(i.Key), maxDepth)
		}
	}
	return &Answer{Items: r.Response.Items, SystemError: r.Response.SystemError, Idempotent: r.Response.Idempotent}, nil
}

// tooDeep reports whether a value has more levels.
func tooDeep(value any, levels int) bool {
	switch value := value.(type) {
	case map[string]any:
		for _, v := range value {
			if levels == 0 || tooDeep(v, levels-1) {
				return true
			}
		}
	case []any:
		for _, v := range value {
			if levels == 0 || tooDeep(v, levels-1) {
				return true
			}
		}
	}
	return false
}
