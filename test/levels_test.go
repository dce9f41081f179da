package test

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"
)

// A scored report is what these tests read of a scan in JSON.
type scored struct {
	Score struct {
		Total  float64
		Levels []struct {
			Level string
			Score *float64
		}
	}
}

// scan runs the built program in the root of the repository.
func scan(t *testing.T, program string, args ...string) scored {
	t.Helper()
	cmd := exec.Command(program, append([]string{"scan", "--format", "json", "--fail-on", "none"}, args...)...)
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("scan %v: %v", args, err)
	}
	var r scored
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestInternshipMatcherLevels raises the score of the reference application
// step by step: the manifests done right, then the evidence of each level. A
// level that nobody has shown anything of has no points, and never looks like
// one that was seen to be bad.
func TestInternshipMatcherLevels(t *testing.T) {
	program := build(t)
	insecure := scan(t, program, matcher[3:]+"/insecure")
	if insecure.Score.Total >= 20 {
		t.Errorf("insecure scores %.1f, want less than 20", insecure.Score.Total)
	}
	evidence := t.TempDir()
	write := exec.Command("go", "run", "-C", "examples/internship-matcher", "./evidence", evidence)
	write.Dir = ".."
	if out, err := write.CombinedOutput(); err != nil {
		t.Fatalf("write evidence: %v\n%s", err, out)
	}
	secured := []string{matcher[3:] + "/secured"}
	before := scan(t, program, secured...)
	if before.Score.Total <= insecure.Score.Total+20 {
		t.Errorf("secured scores %.1f without evidence, insecure %.1f", before.Score.Total, insecure.Score.Total)
	}
	for _, step := range []struct {
		folder, level string
	}{{"image", "container"}, {"infrastructure", "infrastructure"}, {"code", "code"}} {
		secured = append(secured, "--evidence", filepath.Join(evidence, step.folder))
		after := scan(t, program, secured...)
		if after.Score.Total <= before.Score.Total {
			t.Errorf("the evidence of %s takes the score from %.1f to %.1f", step.folder, before.Score.Total, after.Score.Total)
		}
		for i, l := range after.Score.Levels {
			if l.Level == step.level && (l.Score == nil || *l.Score <= *before.Score.Levels[i].Score) {
				t.Errorf("the evidence of %s does not raise the level %s", step.folder, step.level)
			}
		}
		before = after
	}
	if before.Score.Total < 95 {
		t.Errorf("secured scores %.1f with all its evidence, want 95 or more", before.Score.Total)
	}
	t.Logf("insecure %.1f, secured with evidence %.1f", insecure.Score.Total, before.Score.Total)
}
