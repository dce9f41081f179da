package post

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/notify"
)

// maxRetryAfter bounds how long a receiver can ask to be left alone.
const maxRetryAfter = time.Hour

// Retryable reports whether an answer that does not accept a request is worth
// another attempt:
//
//	408, 425, 429                     yes
//	500 and above, but for 501, 505   yes
//	all others                        no
func Retryable(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return false
	}
	return status >= 500
}

// An AnswerError is an answer that does not accept a request.
type AnswerError struct{ Status int }

// Error has the status and its text.
func (e *AnswerError) Error() string {
	return "answer " + strings.TrimSpace(strconv.Itoa(e.Status)+" "+http.StatusText(e.Status))
}

// StatusError returns nil for an answer of 2xx, and for others an [*AnswerError] that is
// [notify.Permanent] unless [Retryable]; what can be tried again is marked by
// [notify.RetryAfter] with what the answer asks for, at most an hour. The answer's
// words are not in it: a receiver may repeat what it was sent.
func StatusError(resp *http.Response) error {
	status := resp.StatusCode
	if status >= 200 && status < 300 {
		return nil
	}
	err := error(&AnswerError{status})
	switch {
	case status >= 300 && status < 400:
		return notify.Permanent(fmt.Errorf("%w: redirects are not followed, give the URL that it leads to", err))
	case !Retryable(status):
		return notify.Permanent(err)
	}
	if after := retryAfter(resp.Header.Get("Retry-After"), time.Now()); after > 0 {
		return notify.RetryAfter(err, after)
	}
	return err
}

// retryAfter reads seconds or a date; 0 if the value is neither.
func retryAfter(value string, now time.Time) time.Duration {
	var d time.Duration
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		d = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}
