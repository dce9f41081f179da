package control_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/finding"
)

const goodControl = `level: cluster
controls:
- id: CLU-AAA-01
  title: Title
  severity: high
  subjects: [workload, Role.rbac.authorization.k8s.io]
  definition: what it demands
  why: what may happen
  fix: {class: guide, text: what to do}
  frameworks: {mitre: [T1610]}
  evidence: [api]
  evaluator: rbac.executors
`

func catalogueOf(files map[string]string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return fsys
}

func TestLoadCatalogue(t *testing.T) {
	c, err := control.LoadCatalogue(catalogueOf(map[string]string{
		"catalogue.yaml": "version: \"2026.11\"\n", "sub/b.yaml": strings.ReplaceAll(goodControl, "AAA", "BBB"), "a.yml": goodControl, "README.md": "no: [yaml",
	}))
	if err != nil {
		t.Fatal(err)
	}
	got := c.Controls()
	if c.Version() != "2026.11" || len(got) != 2 || got[0].ID != "CLU-AAA-01" || got[1].ID != "CLU-BBB-01" || got[0].Level != finding.Cluster {
		t.Errorf("catalogue %s: %+v", c.Version(), got)
	}
}

func TestLoadCatalogueErrors(t *testing.T) {
	replace := func(old, new string) string {
		if !strings.Contains(goodControl, old) {
			t.Fatalf("no %q to replace", old)
		}
		return strings.Replace(goodControl, old, new, 1)
	}
	again := strings.SplitAfterN(goodControl, "\n", 3)[2]
	tests := []struct{ name, text, want string }{
		{"unknown key", replace("  why:", "  wy:"), "c.yaml:8: unknown key wy"},
		{"unknown key in the fix", replace("class: guide", "kind: guide"), "c.yaml:9: unknown key kind"},
		{"duplicate key", replace("  why: what may happen", "  why: a\n  why: b"), `c.yaml:9: mapping key "why" already defined at line 8`},
		{"wrong type", replace("title: Title", "title: [a, b]"), "c.yaml:4: cannot unmarshal !!seq"},
		{"broken YAML", replace("title: Title", "title: \"Title"), "c.yaml:"},
		{"two documents", goodControl + "---\nlevel: code\n", "c.yaml: want one YAML document"},
		{"empty file", "", "c.yaml: file is empty"},
		{"unknown level", replace("level: cluster", "level: clusters"), `c.yaml:1: unknown level "clusters"`},
		{"second version", "version: \"2\"\n" + goodControl, "catalogue.yaml:1: another file gives the version too"},
		{"bad id", replace("CLU-AAA-01", "CLU-1"), "c.yaml:3: control CLU-1: id must be CLU-AAA-NN"},
		{"id of another level", replace("CLU-AAA-01", "CON-AAA-01"), "c.yaml:3: control CON-AAA-01: id must be CLU-AAA-NN"},
		{"no id", replace("id: CLU-AAA-01", "id: ''"), "c.yaml:3: control without id: id must be"},
		{"id twice", goodControl + again, "c.yaml:13: control CLU-AAA-01: id is already used at c.yaml:3"},
		{"unknown severity", replace("severity: high", "severity: severe"), `c.yaml:3: control CLU-AAA-01: unknown severity "severe"`},
		{"no title", replace("title: Title", "title: ' '"), "c.yaml:3: control CLU-AAA-01: title must be one line of text"},
		{"long title", replace("title: Title", "title: |\n    a\n    b"), "title must be one line of text"},
		{"no fix", replace("text: what to do", "text: ''"), "fix.text must be one line of text"},
		{"unknown fix class", replace("class: guide", "class: magic"), `unknown fix.class "magic": want auto, suggest or guide`},
		{"unknown evaluator", replace("rbac.executors", "rbac.executor"), `unknown evaluator "rbac.executor"`},
		{"unknown excuse", goodControl + "  unless: it.rains\n", `unknown unless "it.rains"`},
		{"no subject", replace("[workload, Role.rbac.authorization.k8s.io]", "[]"), "subjects must name at least one kind"},
		{"bad subject", replace("[workload,", "[pods,"), `subject "pods" is neither workload nor a kind`},
		{"unknown evidence", replace("[api]", "[rumour]"), `unknown evidence "rumour"`},
		{"no evidence", replace("[api]", "[]"), "evidence must name at least one kind"},
		{"unknown framework", replace("mitre:", "miter:"), `framework "miter"`},
		{"empty framework", replace("[T1610]", "[]"), `framework "mitre" has no ids`},
		{"too large", goodControl + strings.Repeat("# filler\n", 1<<17), "c.yaml: file is larger than 1048576 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := control.LoadCatalogue(catalogueOf(map[string]string{"catalogue.yaml": "version: \"1\"\n", "c.yaml": tt.text}))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error = %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestLoadCatalogueAcrossFiles(t *testing.T) {
	family := func(level, id string) string {
		return strings.NewReplacer("cluster", level, "CLU-AAA-01", id).Replace(goodControl) + "  family: twins\n"
	}
	tests := []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"no version", map[string]string{"c.yaml": goodControl}, "no file gives the version"},
		{"no control", map[string]string{"c.yaml": "version: \"1\"\n"}, "no file gives a control"},
		{"nothing", nil, "no file gives a control"},
		{"family in two levels", map[string]string{"v.yaml": "version: \"1\"\n", "a.yaml": family("cluster", "CLU-AAA-01"), "b.yaml": family("code", "COD-AAA-01")},
			"b.yaml:3: control COD-AAA-01: family twins has members in two levels"},
		{"unknown part", map[string]string{"v.yaml": "version: \"1\"\n", "c.yaml": goodControl + "  parts: [CLU-AAA-02]\n"},
			`c.yaml:3: control CLU-AAA-01: part "CLU-AAA-02" is no control of the level that scores`},
		{"part of itself", map[string]string{"v.yaml": "version: \"1\"\n", "c.yaml": goodControl + "  parts: [CLU-AAA-01]\n"},
			`c.yaml:3: control CLU-AAA-01: part "CLU-AAA-01" is no control of the level that scores`},
		{"parts in a family", map[string]string{"v.yaml": "version: \"1\"\n", "c.yaml": family("cluster", "CLU-AAA-01") + "  parts: [CLU-AAA-02]\n"},
			"c.yaml:3: control CLU-AAA-01: a control with parts does not score and is in no family"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := control.LoadCatalogue(catalogueOf(tt.files)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error = %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestLoadCatalogueReportsAllErrors(t *testing.T) {
	text := "level: cluster\ncontrols:"
	for i := range 200 {
		text += fmt.Sprintf("\n- id: CLU-%d", i)
	}
	_, err := control.LoadCatalogue(catalogueOf(map[string]string{"v.yaml": "version: \"1\"\n", "c.yaml": text}))
	var all interface{ Unwrap() []error }
	if !errors.As(err, &all) || len(all.Unwrap()) != 100 {
		t.Errorf("LoadCatalogue gave %v", err)
	}
}

func TestBuiltInCatalogue(t *testing.T) {
	c, err := control.LoadCatalogue(content.Controls())
	if err != nil {
		t.Fatal(err)
	}
	if c.Version() != "2026.11" || len(c.Controls()) != 175 {
		t.Errorf("catalogue %s has %d controls", c.Version(), len(c.Controls()))
	}
}

func FuzzLoadCatalogue(f *testing.F) {
	f.Add("version: \"1\"\n" + goodControl)
	f.Add(goodControl)
	f.Add("level: code\ncontrols: [{id: &a x, fix: *a}]")
	f.Add("controls:\n- *x")
	f.Add("\x00")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := control.LoadCatalogue(catalogueOf(map[string]string{"c.yaml": text}))
		if (c == nil) == (err == nil) {
			t.Fatalf("catalogue %v, error %v", c, err)
		}
		if err == nil && (c.Version() == "" || len(c.Controls()) == 0) {
			t.Fatal("an empty catalogue loads")
		}
	})
}
