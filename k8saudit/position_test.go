package k8saudit

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// Files are read in the order in which they were live, whatever packing did to
// their times, and files of others are left alone.
func TestLogFiles(t *testing.T) {
	for _, tc := range []struct {
		name  string
		files []string // in the order of their last write
		want  []string
	}{
		{"renamed by the API server", []string{"audit-2026-11-26T10-00-00.000.log", "audit-2026-11-26T09-00-00.000.log.gz", "audit.log"},
			[]string{"audit-2026-11-26T09-00-00.000.log.gz", "audit-2026-11-26T10-00-00.000.log", "audit.log"}},
		{"numbered by logrotate", []string{"audit.log", "audit.log.1", "audit.log.2.gz", "audit.log.10.gz"},
			[]string{"audit.log.10.gz", "audit.log.2.gz", "audit.log.1", "audit.log"}},
		{"dated by logrotate", []string{"audit.log-20261126", "audit.log-20261125.gz", "audit.log"},
			[]string{"audit.log-20261125.gz", "audit.log-20261126", "audit.log"}},
		{"both", []string{"audit.log.1", "audit-2026.log", "audit.log"}, []string{"audit.log.1", "audit-2026.log", "audit.log"}},
		{"others", []string{"audit.log", "audit.log.bak", "audit.log.", "audit-old.log", "audit.logx", "other.log", "audit-1.txt", "audit.log.1x", "audit"}, []string{"audit.log"}},
		{"none", nil, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			for i, name := range tc.files {
				path, at := filepath.Join(dir, name), time.Unix(1_800_000_000+int64(i), 0)
				if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Chtimes(path, at, at); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Mkdir(filepath.Join(dir, "audit.log.3"), 0o700); err != nil {
				t.Fatal(err)
			}
			files, err := logFiles(filepath.Join(dir, "audit.log"))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range files {
				got = append(got, filepath.Base(f.path))
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("files %q, want %q", got, tc.want)
			}
		})
	}
}
