package web

import (
	"html"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestPagesAreDocumented compares docs/pages.md with the routes, and the keys of it
// with the help that pages show.
func TestPagesAreDocumented(t *testing.T) {
	data, err := os.ReadFile("../docs/pages.md")
	if err != nil {
		t.Fatal(err)
	}
	documented, served := map[string]string{}, map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| [^|]+ \\| `(/[^`]*)` \\| ([a-z ]+) \\|").FindAllStringSubmatch(string(data), -1) {
		documented[row[1]] = row[2]
	}
	for _, r := range newSite(t).routes() {
		if r.method == "GET" && !r.api() && r.needs != "" && r.path != "/" {
			served[strings.TrimSuffix(r.path, "{$}")] = string(r.needs)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(served)) {
		if documented[path] != served[path] {
			t.Errorf("%s needs %q, and docs/pages.md says %q", path, served[path], documented[path])
		}
	}
	for path := range documented {
		if served[path] == "" {
			t.Errorf("docs/pages.md has %s, which is no page", path)
		}
	}

	layout, err := files.ReadFile("templates/layout.html")
	if err != nil {
		t.Fatal(err)
	}
	help := regexp.MustCompile(`(?m)^  <dt>(.*)</dt><dd>(.*)</dd>$`).FindAllStringSubmatch(string(layout), -1)
	if len(help) == 0 {
		t.Error("the help has no keys")
	}
	code := strings.NewReplacer("<kbd>", "`", "</kbd>", "`")
	for _, key := range help {
		if row := html.UnescapeString("| " + code.Replace(key[1]) + " | " + code.Replace(key[2]) + " |"); !strings.Contains(string(data), row) {
			t.Errorf("docs/pages.md lacks %s", row)
		}
	}
}
