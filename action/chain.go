package action

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// A Chain verifies a log, entry by entry from the first one on.
type Chain struct {
	head Head
	open map[int64][]string // hashes of entries that were seen elsewhere, and not yet here
}

// NewChain returns a chain of which nothing is known yet. Anchors are heads that
// were kept elsewhere: the log must have these entries.
func NewChain(anchors ...Head) *Chain {
	c := &Chain{open: map[int64][]string{}}
	for _, a := range anchors {
		if a.Seq > 0 {
			c.open[a.Seq] = append(c.open[a.Seq], a.Hash)
		}
	}
	return c
}

// Head returns the last entry that was added.
func (c *Chain) Head() Head { return c.head }

// Add checks the next entry. The error is a [BrokenError].
func (c *Chain) Add(e Entry) (err error) {
	if c.head, err = c.head.Next(e); err != nil {
		return err
	}
	for _, hash := range c.open[e.Seq] {
		if hash != e.Hash {
			return &BrokenError{e.Seq, "it is another one than was seen before: the log was written anew"}
		}
	}
	delete(c.open, e.Seq)
	return nil
}

// End says that no entry follows. The error is a [BrokenError].
func (c *Chain) End() error {
	var missing []int64
	for seq := range c.open {
		missing = append(missing, seq)
	}
	if len(missing) == 0 {
		return nil
	}
	return &BrokenError{slices.Min(missing), "it was seen before and is missing: the end of the log was removed"}
}

// MaxExport bounds what [ReadExport] reads, in bytes.
const MaxExport = 1 << 30

// ReadExport reads entries as the API gives them, and returns them in the order of
// their numbers: an array, as all of the log is exported, pages of it, or one entry
// after the other. Fields that entries do not have are an error: nobody could tell
// whether they were changed. So is a text with no value at all, which no export is.
func ReadExport(r io.Reader) ([]Entry, error) {
	limited := &io.LimitedReader{R: r, N: MaxExport + 1}
	d := json.NewDecoder(bufio.NewReader(limited))
	d.DisallowUnknownFields()
	var all []Entry
	for empty := true; ; empty = false {
		values, err := readValue(d)
		all = append(all, values...)
		switch {
		case empty && errors.Is(err, io.EOF):
			return nil, errors.New("read entries of the log of actions: nothing is there: the export of a log without entries is []")
		case limited.N == 0:
			return nil, fmt.Errorf("read entries of the log of actions: more than %d bytes", int64(MaxExport))
		case errors.Is(err, io.EOF):
			Sort(all)
			return all, nil
		case err != nil:
			return nil, fmt.Errorf("read entries of the log of actions: %w", err)
		}
	}
}

// Sort puts entries in the order of their numbers.
func Sort(entries []Entry) {
	slices.SortStableFunc(entries, func(a, b Entry) int { return cmp.Compare(a.Seq, b.Seq) })
}

// readValue reads the next array, page or entry. The error is [io.EOF] where there
// is none, and another one where it ends too early.
func readValue(d *json.Decoder) ([]Entry, error) {
	token, err := d.Token()
	switch {
	case err != nil:
		return nil, err
	case token == json.Delim('['):
		return readArray(d)
	case token == json.Delim('{'):
		return readObject(d)
	}
	return nil, fmt.Errorf("at byte %d: want an entry, a page or an array of entries, have %T", d.InputOffset(), token)
}

// readArray reads the entries of an array that has begun.
func readArray(d *json.Decoder) (out []Entry, err error) {
	for d.More() {
		var e Entry
		if err := d.Decode(&e); err != nil {
			return nil, early(d, err)
		}
		out = append(out, e)
	}
	_, err = d.Token()
	return out, early(d, err)
}

// readObject reads a page, or the one entry that it is.
func readObject(d *json.Decoder) ([]Entry, error) {
	fields := map[string]json.RawMessage{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, early(d, err)
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, early(d, err)
		}
		fields[fmt.Sprint(key)] = value
	}
	if _, err := d.Token(); err != nil {
		return nil, early(d, err)
	}
	var page struct {
		Items []Entry `json:"items"`
		Next  string  `json:"next"`
	}
	if _, is := fields["items"]; is {
		err := strict(fields, &page)
		return page.Items, early(d, err)
	}
	var e Entry
	err := strict(fields, &e)
	return []Entry{e}, early(d, err)
}

// strict decodes fields into v, which must have all of them.
func strict(fields map[string]json.RawMessage, v any) error {
	data, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

// early is an error within a value: its end is not that of the log.
func early(d *json.Decoder, err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("at byte %d: %w", d.InputOffset(), err)
	}
	return nil
}
