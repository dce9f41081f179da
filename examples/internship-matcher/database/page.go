package database

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"
)

// The sizes of pages.
const (
	defaultPage = 20
	maxPage     = 100
)

// A Page is a part of a list that is sorted by time, the newest first. A page
// begins after the last entry of the page before, so that entries which come
// meanwhile shift nothing.
type Page struct {
	Size   int
	Before time.Time // of the last entry of the page before; far in the future for the first page
	ID     string    // of that entry
}

const firstID = "ffffffff-ffff-ffff-ffff-ffffffffffff"

// ErrPage says that a page token is none of ours.
var ErrPage = errors.New("page token: not one that a search gave")

// NewPage reads what a caller asks for. A size of 0 is 20, more than 100 is 100.
func NewPage(size int32, token string) (Page, error) {
	p := Page{Size: min(int(size), maxPage), Before: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), ID: firstID}
	if size <= 0 {
		p.Size = defaultPage
	}
	if token == "" {
		return p, nil
	}
	data, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return Page{}, ErrPage
	}
	when, id, ok := strings.Cut(string(data), " ")
	p.Before, err = time.Parse(time.RFC3339Nano, when)
	if !ok || err != nil || len(id) != len(firstID) {
		return Page{}, ErrPage
	}
	p.ID = id
	return p, nil
}

// Next returns the token of the page that follows an entry.
func Next(created time.Time, id string) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%s %s", created.UTC().Format(time.RFC3339Nano), id))
}
