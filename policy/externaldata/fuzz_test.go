package externaldata

import (
	"encoding/json"
	"strings"
	"testing"
)

// FuzzParse expects any answer to be an error, or one whose items can be written
// as JSON within its bounds.
func FuzzParse(f *testing.F) {
	const head = `{"apiVersion":"externaldata.gatekeeper.sh/v1beta1","kind":"ProviderResponse","response":`
	for _, seed := range []string{
		head + `{"idempotent":true,"items":[{"key":"a","value":"b"},{"key":"c","error":"d"}],"systemError":""}}`,
		head + `{"items":[{"key":"a","value":{"b":[1,2.5e300,null,true]}}]}}`,
		head + `{"items":[{"value":` + strings.Repeat("[", 80) + strings.Repeat("]", 80) + `}]}}`,
		head + `null}`, `null`, `{}`, `[]`, `{"kind":1}`, head, "\xff", head + `{"items":[null]}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		answer, err := parse(data)
		if err != nil {
			if answer != nil || len(err.Error()) > 2000 {
				t.Fatalf("answer %v with error of %d bytes", answer, len(err.Error()))
			}
			return
		}
		for _, i := range answer.Items {
			if _, err := json.Marshal(i); err != nil || tooDeep(i.Value, maxDepth) {
				t.Fatalf("item %v: %v", i, err)
			}
			if i.bytes() < len(i.Key) {
				t.Fatal("an item takes less than its key")
			}
		}
	})
}
