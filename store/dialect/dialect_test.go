package dialect_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/store/dialect"
)

func TestRebind(t *testing.T) {
	for query, want := range map[string]string{
		"SELECT 1":                          "SELECT 1",
		"a = ? AND b IN (?, ?)":             "a = $1 AND b IN ($2, $3)",
		"a = ?1 OR b = ?1":                  "a = $1 OR b = $1",
		`a = '?''?' AND "b?" = ?`:           `a = '?''?' AND "b?" = $1`,
		`a LIKE ? ESCAPE '\' OR b = ?`:      `a ILIKE $1 ESCAPE '\' OR b = $2`,
		"a -- it's what? yes\n, b = ?":      "a -- it's what? yes\n, b = $1",
		"a = ? -- the end?":                 "a = $1 -- the end?",
		"unclosed '? and ?":                 "unclosed '? and ?",
		strings.Repeat("?,", 11) + "'LIKE ": "$1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,'LIKE ",
	} {
		if have := strings.TrimPrefix(dialect.Rebind(query), dialect.OnPrimary); have != want {
			t.Errorf("%s: have %s, want %s", query, have, want)
		}
	}
}

// TestColumns turns rows into arrays by the types of the first one.
func TestColumns(t *testing.T) {
	list, types, err := dialect.Columns([]any{"a\x00", 1, []byte(nil), true, "b", int64(2), []byte{3}, false}, 4)
	want := []any{[]string{"a\uFFFD", "b"}, []int64{1, 2}, [][]byte{nil, {3}}, []int64{1, 0}}
	if err != nil || types != "?::text[], ?::bigint[], ?::bytea[], ?::bigint[]" || !reflect.DeepEqual(list, want) {
		t.Errorf("have %#v %s %v", list, types, err)
	}
	if _, _, err := dialect.Columns([]any{"a", 1}, 1); err == nil {
		t.Error("a column of texts takes a number")
	}
}
