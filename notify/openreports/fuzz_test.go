package openreports

import (
	"encoding/json"
	"testing"

	"github.com/kubeguardian/kubeguardian/notify/notifytest"
)

// FuzzMerge: whatever is in an object already, what was added is in it after,
// within the bound.
func FuzzMerge(f *testing.F) {
	f.Add([]byte(`{"metadata":{},"results":[{"result":"fail","properties":{"kubeguardian.dev/key":"a"}},7,null,{"properties":[]}],"summary":{"fail":"x"}}`))
	f.Add([]byte(`{"metadata":{},"results":{}}`))
	batch := notifytest.Notifications(2)
	f.Fuzz(func(t *testing.T, text []byte) {
		var o object
		if json.Unmarshal(text, &o) != nil || o == nil {
			return
		}
		d := &destination{results: 3}
		for range 2 {
			d.merge(kinds()["reports"], o, batch)
			results, _ := o["results"].([]any)
			if len(results) < 2 || len(results) > 3 || keyOf(results[len(results)-1]) != batch[1].Key || keyOf(results[len(results)-2]) != batch[0].Key {
				t.Fatalf("results %v", results)
			}
		}
		if _, err := json.Marshal(o); err != nil {
			t.Fatal(err)
		}
	})
}
