package notify

import (
	"errors"
	"time"
)

// IsPermanent reports whether err, or what it wraps, is marked by [Permanent].
func IsPermanent(err error) bool {
	var p permanentError
	return errors.As(err, &p)
}

// Delay returns the time that err, or what it wraps, is marked with by
// [RetryAfter].
func Delay(err error) (d time.Duration, asked bool) {
	var r retryError
	if errors.As(err, &r) {
		return r.after, true
	}
	return 0, false
}
