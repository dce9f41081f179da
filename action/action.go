// Package action is the log of what people did: each entry holds the hash of the
// one before, so that whoever knows the last hash knows them all.
//
// The hash of an entry is the SHA-256, in hexadecimal digits, of its fields in
// the order of [Entry], each as a netstring: its length in bytes in decimal
// digits, a colon, the bytes, a comma. Before them comes the netstring of
// [Format], and Hash itself is left out. Seq is in decimal digits, Time in
// nanoseconds since 1970 in decimal digits, all else as it is.
//
// The chain shows that an entry was changed, removed, added in between or moved.
// It cannot show that the last ones were removed, nor that all were made anew by
// somebody who may write to the store: for that one compares with a [Head] that
// was kept elsewhere.
package action

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Format names the way hashes are made.
const Format = "kubeguardian action 1"

// The results of actions. A failed one has the reason after it.
const (
	Allowed = "allowed" // it was begun
	Done    = "done"
	Denied  = "denied"
	Failed  = "failed"
)

// The longest texts that are kept, in bytes; what is longer is cut.
const (
	maxText   = 512
	maxChange = 4096
)

// An Entry says that somebody did something, or was not allowed to.
type Entry struct {
	Seq      int64     `json:"seq"` // 1, 2, 3 …
	Time     time.Time `json:"time"`
	User     string    `json:"user"`             // "": not known
	Source   string    `json:"source"`           // the address that asked
	Action   string    `json:"action"`           // what it takes to be allowed to, such as "update incidents", or "log in"
	Object   string    `json:"object,omitempty"` // the path of it
	Change   string    `json:"change,omitempty"` // what was sent, without secrets
	Result   string    `json:"result"`
	Previous string    `json:"previous"` // the hash of the entry before; "" for the first
	Hash     string    `json:"hash"`
}

// Sum returns what the hash of an entry must be.
func (e *Entry) Sum() string {
	h := sha256.New()
	for _, field := range []string{
		Format, strconv.FormatInt(e.Seq, 10), strconv.FormatInt(e.Time.UnixNano(), 10), e.User, e.Source, e.Action, e.Object, e.Change, e.Result, e.Previous,
	} {
		fmt.Fprintf(h, "%d:%s,", len(field), field)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// A Head is the last entry of a log, as far as somebody has seen it.
type Head struct {
	Seq  int64  `json:"seq"` // 0: there is none
	Hash string `json:"hash"`
}

// String returns what [ParseHead] reads.
func (h Head) String() string { return fmt.Sprintf("%d:%s", h.Seq, h.Hash) }

// ParseHead reads SEQ:HASH.
func ParseHead(text string) (Head, error) {
	seq, hash, _ := strings.Cut(text, ":")
	n, err := strconv.ParseInt(seq, 10, 64)
	raw, hashErr := hex.DecodeString(hash)
	empty := n == 0 && hash == ""
	if err != nil || hashErr != nil || n < 0 || !empty && (n == 0 || len(raw) != sha256.Size) {
		return Head{}, fmt.Errorf("want the number of an entry and its hash, such as 12:9f86…, have %q", cut(text, 100))
	}
	return Head{n, strings.ToLower(hash)}, nil
}

// Seal makes an entry the one after a head: it gets its number and its hash, and
// its texts lose what a database may not keep.
func (h Head) Seal(e Entry) Entry {
	e.Seq, e.Time, e.Previous = h.Seq+1, e.Time.UTC(), h.Hash
	for _, text := range []*string{&e.User, &e.Source, &e.Action, &e.Object, &e.Result} {
		*text = cut(*text, maxText)
	}
	e.Change = cut(e.Change, maxChange)
	e.Hash = e.Sum()
	return e
}

// cut returns a text without NUL and what is not UTF-8, of so many bytes at most.
func cut(text string, most int) string {
	text = strings.ReplaceAll(text[:min(len(text), most+1)], "\x00", "\uFFFD")
	const more = "…"
	if text = strings.ToValidUTF8(text, "\uFFFD"); len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-len(more)], "") + more
}

// A BrokenError says where a log is not what it was.
type BrokenError struct {
	Seq    int64 // of the entry
	Reason string
}

// Error names the entry.
func (e *BrokenError) Error() string { return fmt.Sprintf("entry %d: %s", e.Seq, e.Reason) }

// Next checks that an entry follows the head, and returns the head after it. The
// error is a [BrokenError].
func (h Head) Next(e Entry) (Head, error) {
	switch {
	case e.Seq != h.Seq+1:
		return h, &BrokenError{h.Seq + 1, fmt.Sprintf("it is missing: entry %d follows entry %d", e.Seq, h.Seq)}
	case e.Previous != h.Hash:
		return h, &BrokenError{e.Seq, "it does not follow the entry before it: one of them was changed"}
	case e.Hash != e.Sum():
		return h, &BrokenError{e.Seq, "its hash is another one: it was changed"}
	}
	return Head{e.Seq, e.Hash}, nil
}
