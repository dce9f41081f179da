package helm

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/loader/archive"
	"helm.sh/helm/v4/pkg/ignore"
)

// ChartFile is the file that makes a folder a chart.
const ChartFile = "Chart.yaml"

// The bounds of a chart, charts in it included.
const (
	maxChartSize  = 64 << 20 // bytes, unpacked
	maxChartFiles = 10_000   // files, folders and entries of archives
	maxChartDepth = 8        // of archives in archives
)

// ErrNoChart says that an archive holds something else.
var ErrNoChart = errors.New("not the archive of a Helm chart")

// IsArchive reports whether a file may be a packed chart.
func IsArchive(name string) bool {
	return strings.HasSuffix(name, ".tgz") || strings.HasSuffix(name, ".tar.gz")
}

// A chartReader takes the files of a chart into memory, as far as they are
// within the bounds. Archives of subcharts are unpacked where they lie.
type chartReader struct {
	files   Files
	entries int
	left    int64         // bytes
	rules   *ignore.Rules // of the folder; nil for an archive
}

// Files are the files of a chart, by their names in it.
type Files []*archive.BufferedFile

// Read returns the files of a chart: a folder, or an archive. A folder may hold
// links, which are followed, as Helm does; an archive must not.
func Read(name string) (Files, error) {
	c := chartReader{left: maxChartSize}
	if !IsArchive(name) {
		c.rules = ignore.Empty()
		if _, err := os.Stat(filepath.Join(name, ignore.HelmIgnore)); err == nil {
			if c.rules, err = ignore.ParseFile(filepath.Join(name, ignore.HelmIgnore)); err != nil {
				return nil, fmt.Errorf("%s: %w", filepath.Join(name, ignore.HelmIgnore), err)
			}
		}
		c.rules.AddDefaults()
		err := c.folder(name, "", nil)
		return c.files, err
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, pathError(name, err)
	}
	defer f.Close()
	err = c.unpack(f, "", 1)
	if err == nil && !slices.ContainsFunc(c.files, func(f *archive.BufferedFile) bool { return f.Name == ChartFile }) {
		err = ErrNoChart
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c.files, nil
}

// folder takes the files of a folder, whose name in the chart is within.
// Around are the resolved names of the folders that it is in.
func (c *chartReader) folder(name, within string, around []string) error {
	real, err := filepath.EvalSymlinks(name)
	if err != nil {
		return pathError(name, err)
	}
	if slices.Contains(around, real) {
		return fmt.Errorf("%s: a link that leads to a folder around it", name)
	}
	entries, err := os.ReadDir(name)
	if err != nil {
		return pathError(name, err)
	}
	for _, e := range entries {
		at, inside := filepath.Join(name, e.Name()), path.Join(within, e.Name())
		info, err := os.Stat(at)
		if err != nil {
			return pathError(at, err)
		}
		if c.rules.Ignore(inside, info) {
			continue
		}
		if err := c.entry(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if info.IsDir() {
			err = c.folder(at, inside, append(around, real))
		} else {
			err = c.file(at, inside, info)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *chartReader) file(name, inside string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s: not a regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return pathError(name, err)
	}
	defer f.Close()
	if err := c.take(f, inside, 1); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (c *chartReader) entry() error {
	if c.entries++; c.entries > maxChartFiles {
		return fmt.Errorf("a chart of more than %d files", maxChartFiles)
	}
	return nil
}

// take reads one file of the chart.
func (c *chartReader) take(from io.Reader, name string, depth int) error {
	if dir := path.Dir(name); IsArchive(name) && path.Base(dir) == "charts" {
		return c.unpack(from, strings.TrimSuffix(strings.TrimSuffix(name, ".tgz"), ".tar.gz"), depth+1)
	}
	data, err := io.ReadAll(io.LimitReader(from, c.left+1))
	if err != nil {
		return err
	}
	if c.left -= int64(len(data)); c.left < 0 {
		return fmt.Errorf("a chart of more than %d MiB, unpacked", maxChartSize>>20)
	}
	c.files = append(c.files, &archive.BufferedFile{Name: name, Data: bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))})
	return nil
}

// unpack takes the files of an archive, whose name in the chart is within.
func (c *chartReader) unpack(from io.Reader, within string, depth int) error {
	if depth > maxChartDepth {
		return fmt.Errorf("archives nested more than %d deep", maxChartDepth)
	}
	unzipped, err := gzip.NewReader(from)
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	for entries := tar.NewReader(io.LimitReader(unzipped, 2*maxChartSize)); ; {
		head, err := entries.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unpack: %w", err)
		}
		if err := c.entry(); err != nil {
			return err
		}
		name, err := entryName(head)
		if err != nil {
			return err
		}
		if name == "" {
			continue
		}
		if err := c.take(entries, path.Join(within, name), depth); err != nil {
			return err
		}
	}
}

// entryName returns the name of a file of an archive without the folder that
// all of them are in, or "" for an entry that is no file. Names that lead out
// of the archive, and links, are refused.
func entryName(head *tar.Header) (string, error) {
	switch head.Typeflag {
	case tar.TypeDir, tar.TypeXGlobalHeader, tar.TypeXHeader:
		return "", nil
	case tar.TypeReg:
	default:
		return "", fmt.Errorf("entry %q is a link or a device: only files and folders belong in a chart", head.Name)
	}
	full := strings.ReplaceAll(head.Name, `\`, "/")
	_, name, found := strings.Cut(full, "/")
	if !found || !fs.ValidPath(path.Clean(full)) || !fs.ValidPath(path.Clean(name)) {
		return "", fmt.Errorf("entry %q is not in the folder of the chart", head.Name)
	}
	return path.Clean(name), nil
}

// pathError puts the name first, as in all messages about input.
func pathError(name string, err error) error {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		err = path.Err
	}
	return fmt.Errorf("%s: %w", name, err)
}
