package repository

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/zricethezav/gitleaks/v8/detect"
	"github.com/zricethezav/gitleaks/v8/sources"
)

// Bounds of the search.
const (
	treeTime     = 5 * time.Minute
	historyTime  = 2 * time.Minute
	historyBytes = 64 << 20 // of added lines
	maxAddition  = 1 << 20  // of one file in one commit
)

// detector has the rules of gitleaks; loading them goes through a state that
// the whole process shares.
var detector = sync.OnceValues(func() (*detect.Detector, error) {
	d, err := detect.NewDetectorDefaultConfig()
	if err != nil {
		return nil, err
	}
	d.Redact = 100 // findings hold the secret otherwise
	d.MaxDecodeDepth = 1
	d.IgnoreGitleaksAllow = true // whoever commits a secret must not excuse it
	return d, nil
})

// A search finds secrets. It keeps their places.
type search struct {
	*detect.Detector
	seen map[string]bool // rule and file in the tree
}

func newSearch() (*search, error) {
	d, err := detector()
	return &search{d, map[string]bool{}}, err
}

// A file is searched in pieces: a rule is tried where one of its words occurs,
// and in a large text all of them do. What lies across an end is found in the
// overlap.
const (
	piece   = 32 << 10
	overlap = 4 << 10
)

// text searches a text, and calls found for each rule and line, from 0, at which
// it matches.
func (s *search) text(ctx context.Context, name, text string, found func(rule string, line int)) {
	line := 0
	for start := 0; ; start += piece - overlap {
		end := min(len(text), start+piece)
		//lint:ignore SA1019 version 8, the newest there is, has no other way in
		for _, f := range s.DetectContext(ctx, detect.Fragment(sources.Fragment{Raw: text[start:end], FilePath: name})) {
			found(f.RuleID, line+f.StartLine)
		}
		if end == len(text) || ctx.Err() != nil {
			return
		}
		line += strings.Count(text[start:start+piece-overlap], "\n")
	}
}

// file searches a file; place is its name as seen from the scan.
func (s *search) file(ctx context.Context, place, name string, data []byte) []Leak {
	var out []Leak
	places := map[int]bool{} // several rules may find the same
	s.text(ctx, name, string(data), func(rule string, line int) {
		s.seen[rule+"\x00"+name] = true
		if !places[line] {
			places[line] = true
			out = append(out, Leak{Rule: rule, Place: fmt.Sprintf("%s:%d", place, line+1), Test: madeUp(name)})
		}
	})
	return out
}

// git returns a command that reads the repository. It takes no settings of the
// machine, and of the repository none that runs another program.
func (r *reader) git(ctx context.Context, args ...string) *exec.Cmd {
	fixed := []string{
		"-C", r.root, "--no-pager", "--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.quotePath=false",
		"-c", "safe.directory=*", "-c", "log.showSignature=false", "-c", "diff.external=", "-c", "protocol.allow=never",
	}
	cmd := exec.CommandContext(ctx, "git", append(fixed, args...)...)
	cmd.Env = []string{"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0", "GIT_NO_LAZY_FETCH=1", "LC_ALL=C", "HOME=/nonexistent"}
	cmd.WaitDelay = time.Second
	return cmd
}

// tracked lists the files that git knows. It is false without git, and for a
// folder that is not the root of a repository.
func (r *reader) tracked() ([]string, bool) {
	if _, err := r.opened.Lstat(".git"); err != nil {
		return nil, false
	}
	cmd := r.git(r.ctx, "ls-files", "-z")
	out, err := cmd.StdoutPipe()
	if err != nil || cmd.Start() != nil {
		return nil, false
	}
	data, err := io.ReadAll(io.LimitReader(out, maxFiles*4096))
	if cmd.Wait() != nil || err != nil {
		return nil, false
	}
	return slices.DeleteFunc(strings.Split(string(data), "\x00"), func(name string) bool { return name == "" }), true
}

// history searches what commits added, and says why if it could not.
func (r *reader) history(s *search) {
	if _, err := r.opened.Lstat(".git"); err != nil {
		r.tree.History = "the folder has no .git"
		return
	}
	if _, err := exec.LookPath("git"); err != nil {
		r.tree.History = "the program git is not installed"
		return
	}
	if _, err := r.opened.Lstat(".git/shallow"); err == nil {
		r.tree.History = "the clone is shallow: fetch all of it (in GitHub Actions: fetch-depth: 0)"
	}
	ctx, cancel := context.WithTimeout(r.ctx, historyTime)
	defer cancel()
	cmd := r.git(ctx, "log", "--all", "--full-history", "-p", "-U0", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames",
		"--no-show-signature", "--diff-filter=AM", "--format=commit %H")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		r.tree.History = "git log: " + err.Error()
		return
	}
	additions := newAdditions(out)
	for additions.next() {
		r.tree.Leaks = append(r.tree.Leaks, s.addition(ctx, r, &additions.now)...)
	}
	stopped := ctx.Err() != nil || additions.total > historyBytes
	if stopped {
		cancel()
	}
	switch err := cmd.Wait(); {
	case stopped:
		r.tree.History = fmt.Sprintf("it is more than what is searched: %d MiB or %s", historyBytes>>20, historyTime)
	case err != nil:
		r.tree.History = "git log: " + err.Error()
	}
}

// addition searches what a commit added to a file.
func (s *search) addition(ctx context.Context, r *reader, a *addition) []Leak {
	var out []Leak
	s.text(ctx, a.file, a.text.String(), func(rule string, at int) {
		key := rule + "\x00" + a.file
		if s.seen[key] || len(r.tree.Leaks)+len(out) >= maxPlaces {
			return // it is in the tree, or was found in a later commit
		}
		s.seen[key] = true
		line := 0
		if at < len(a.lines) {
			line = a.lines[at]
		}
		out = append(out, Leak{Rule: rule, Place: r.place(a.file, line), Commit: a.commit[:min(12, len(a.commit))], Test: madeUp(a.file)})
	})
	return out
}

// An addition is the lines that a commit added to a file.
type addition struct {
	commit, file string
	text         strings.Builder
	lines        []int // where each was
}

// additions reads the output of git log -p -U0.
type additions struct {
	from  *bufio.Reader
	now   addition
	ahead string // the line that ended the last addition
	total int
}

func newAdditions(from io.Reader) *additions {
	return &additions{from: bufio.NewReaderSize(from, 64<<10)}
}

// hunk is where the added lines of a part of a difference begin.
var hunk = regexp.MustCompile(`^@@ -[0-9,]+ \+([0-9]+)(?:,[0-9]+)? @@`)

// next reads the next addition; false at the end, and over the bounds.
func (a *additions) next() bool {
	a.now = addition{commit: a.now.commit}
	line, number, inside := a.ahead, 0, false
	a.ahead = ""
	for {
		switch {
		case inside && strings.HasPrefix(line, "+"):
			if a.now.text.Len() < maxAddition {
				a.now.text.WriteString(line[1:] + "\n")
				a.now.lines = append(a.now.lines, number)
				a.total += len(line)
			}
			number++
		case inside && (strings.HasPrefix(line, "-") || strings.HasPrefix(line, `\`)):
		case strings.HasPrefix(line, "commit "), strings.HasPrefix(line, "diff --git "):
			inside = false
			if a.now.text.Len() > 0 {
				a.ahead = line
				return a.total <= historyBytes
			}
			if sha, ok := strings.CutPrefix(line, "commit "); ok {
				a.now.commit = sha
			}
		case !inside && strings.HasPrefix(line, "+++ "):
			a.now.file = strings.TrimPrefix(strings.Trim(line[4:], "\"\t"), "b/")
		default:
			if at := hunk.FindStringSubmatch(line); at != nil {
				inside = true
				number, _ = strconv.Atoi(at[1])
			}
		}
		var err error
		if line, err = a.line(); err != nil {
			return a.now.text.Len() > 0 && a.total <= historyBytes
		}
	}
}

// line reads a line without its end, of which what is too long is left out.
func (a *additions) line() (string, error) {
	var out []byte
	for {
		part, more, err := a.from.ReadLine()
		if err != nil {
			return "", err
		}
		if len(out) < maxAddition {
			out = append(out, part...)
		}
		if !more {
			return string(out), nil
		}
	}
}
