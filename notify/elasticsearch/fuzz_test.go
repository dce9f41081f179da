package elasticsearch

import (
	"encoding/json"
	"testing"
)

// FuzzJudge: whatever a server answers, the batch is delivered only if the answer
// says so of each document, and nothing of the answer is in an error.
func FuzzJudge(f *testing.F) {
	f.Add([]byte(`{"errors":false,"items":[{"create":{"status":201}},{"create":{"status":409,"error":{"type":"version_conflict_engine_exception"}}}]}`), 2)
	f.Add([]byte(`{"items":[{"create":{"status":400,"error":{"type":"a b"}}}]}`), 1)
	f.Add([]byte(`{"items":[{}]}`), 1)
	f.Add([]byte(`{"items":[{"create":{}}]}`), 1)
	f.Fuzz(func(t *testing.T, answer []byte, sent int) {
		err := judge(answer, sent)
		if err != nil && len(err.Error()) > 200 {
			t.Errorf("the error repeats the answer: %v", err)
		}
		if err != nil {
			return
		}
		var said struct {
			Items []map[string]struct{ Status int }
		}
		if json.Unmarshal(answer, &said) != nil || len(said.Items) != sent {
			t.Fatalf("%d documents are delivered by %q", sent, answer)
		}
		for _, item := range said.Items {
			taken := false
			for _, r := range item {
				taken = r.Status/100 == 2 || r.Status == 409
			}
			if !taken {
				t.Fatalf("a document is delivered by %q", answer)
			}
		}
	})
}
