// Package traffic uses the application as people do, and attacks it as others
// do.
package traffic

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// A Client calls the public API for one person.
type Client struct {
	URL   string
	HTTP  *http.Client
	Token string // of a login, if any
}

// A Refusal is an answer that is not a success.
type Refusal struct {
	Method, Path string
	Status       int
	Detail       string
}

// Error implements error.
func (r *Refusal) Error() string {
	return fmt.Sprintf("%s %s: %d %s", r.Method, r.Path, r.Status, r.Detail)
}

// Code returns the status code of a refusal, 0 for other errors.
func Code(err error) int {
	r, ok := errors.AsType[*Refusal](err)
	if !ok {
		return 0
	}
	return r.Status
}

// Do sends a request with a JSON body, unless it is nil, and reads the answer
// into another, unless it is nil.
func (c Client) Do(ctx context.Context, method, path string, body, into any, headers ...string) error {
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return err
		}
		reader = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.URL+path, reader)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("User-Agent", "internship-matcher-traffic/1.0")
	req.Header.Set("Accept", "application/json")
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := c.HTTP.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		var problem struct{ Detail string }
		_ = json.Unmarshal(data, &problem) // whatever answered, its status says enough
		return &Refusal{method, path, res.StatusCode, problem.Detail}
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(data, into)
}

// Again does what a client does that wants an answer: it repeats a request
// which got none, or 429 or 5xx, until the context ends. All requests of the
// API may be repeated.
func (c Client) Again(ctx context.Context, method, path string, body, into any, headers ...string) error {
	for {
		err := c.Do(ctx, method, path, body, into, headers...)
		code := Code(err)
		if err == nil || code != 0 && code != http.StatusTooManyRequests && code < 500 || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// The answers of the API, as far as they are used here.
type (
	User struct {
		ID, Role string
	}
	Login struct {
		Token string
		User  User
	}
	Offer struct {
		ID, CompanyID, Title string
		Version              int64
		Deleted              bool
	}
	Application struct {
		ID, OfferID, StudentID, Status string
	}
	Page[T any] struct {
		Items         []T
		NextPageToken string
	}
)
