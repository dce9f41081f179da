package node

import (
	"cmp"
	"strings"
)

// compareVersions orders two versions of Debian packages:
// [epoch:]upstream[-revision].
func compareVersions(a, b string) int {
	aEpoch, a := cutEpoch(a)
	bEpoch, b := cutEpoch(b)
	aUpstream, aRevision := cutRevision(a)
	bUpstream, bRevision := cutRevision(b)
	return cmp.Or(
		compareDigits(aEpoch, bEpoch),
		compareParts(aUpstream, bUpstream),
		compareParts(aRevision, bRevision),
	)
}

func cutEpoch(v string) (epoch, rest string) {
	if epoch, rest, ok := strings.Cut(v, ":"); ok {
		return epoch, rest
	}
	return "0", v
}

func cutRevision(v string) (upstream, revision string) {
	if i := strings.LastIndexByte(v, '-'); i >= 0 {
		return v[:i], v[i+1:]
	}
	return v, "0"
}

// compareParts compares runs of other characters and runs of digits in turn.
func compareParts(a, b string) int {
	for a != "" || b != "" {
		an, bn := run(a, false), run(b, false)
		if c := compareText(a[:an], b[:bn]); c != 0 {
			return c
		}
		a, b = a[an:], b[bn:]
		an, bn = run(a, true), run(b, true)
		if c := compareDigits(a[:an], b[:bn]); c != 0 {
			return c
		}
		a, b = a[an:], b[bn:]
	}
	return 0
}

// run returns how many bytes s begins with that are digits, or are not.
func run(s string, digits bool) int {
	n := 0
	for n < len(s) && (s[n] >= '0' && s[n] <= '9') == digits {
		n++
	}
	return n
}

// compareText sorts "~" before the end, letters before the rest.
func compareText(a, b string) int {
	for i := range max(len(a), len(b)) {
		if c := cmp.Compare(order(a, i), order(b, i)); c != 0 {
			return c
		}
	}
	return 0
}

func order(s string, i int) int {
	switch {
	case i >= len(s):
		return 0
	case s[i] == '~':
		return -1
	case s[i] >= 'A' && s[i] <= 'Z' || s[i] >= 'a' && s[i] <= 'z':
		return int(s[i])
	}
	return int(s[i]) + 256
}

// compareDigits compares numbers of any length.
func compareDigits(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}
