package condition

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"

	"github.com/kubeguardian/kubeguardian/event"
)

// number reads a whole number as Falco does: decimal or hexadecimal. A negative
// one wraps around where only positive ones are known.
func number(s string, unsigned bool) (event.Value, error) {
	base, digits := 10, s
	if strings.HasPrefix(s, "0x") || strings.HasPrefix(s, "0X") {
		base, digits = 16, s[2:]
	}
	if unsigned && !strings.HasPrefix(digits, "-") {
		n, err := strconv.ParseUint(strings.TrimPrefix(digits, "+"), base, 64)
		if err != nil {
			return event.Value{}, fmt.Errorf("%q is not a whole number", s)
		}
		return event.Uint(n), nil
	}
	n, err := strconv.ParseInt(digits, base, 64)
	if err != nil {
		return event.Value{}, fmt.Errorf("%q is not a whole number", s)
	}
	if unsigned {
		return event.Uint(uint64(n)), nil
	}
	return event.Number(n), nil
}

// port reads the number of a port, or the name of its service.
func port(s string) (event.Value, error) {
	if s == "" {
		return event.Port(0), nil
	}
	if n, err := strconv.ParseUint(s, 10, 16); err == nil {
		return event.Port(uint16(n)), nil
	}
	for _, network := range []string{"tcp", "udp"} {
		if n, err := net.LookupPort(network, s); err == nil {
			return event.Port(uint16(n)), nil
		}
	}
	return event.Value{}, fmt.Errorf("unrecognized protocol or port '%s'", s)
}

// address reads an address: with a dot it is one of IPv4.
func address(s string) (event.Value, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Is4() != strings.Contains(s, ".") || a.Zone() != "" {
		return event.Value{}, fmt.Errorf("unrecognized IP address '%s'", s)
	}
	return event.IP(string(a.AsSlice())), nil
}

func unhex(s string) (string, error) {
	b, err := hex.DecodeString(s)
	if err != nil {
		return "", fmt.Errorf("unrecognized hex string '%s': want pairs of hex digits", s)
	}
	return string(b), nil
}

// wholeRegexp compiles a POSIX expression so that it matches whole texts.
func wholeRegexp(pattern string) (*regexp.Regexp, error) {
	tree, err := syntax.Parse(pattern, syntax.POSIX|syntax.ClassNL)
	if err != nil {
		return nil, fmt.Errorf("invalid regular expression '%s': %w", pattern, err)
	}
	re, err := regexp.Compile(`\A(?:` + tree.String() + `)\z`)
	if err != nil {
		return nil, fmt.Errorf("invalid regular expression '%s': %w", pattern, err)
	}
	return re, nil
}
