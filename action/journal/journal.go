// Package journal keeps the end of the log of actions beside the log, so that whoever
// may write to the database alone cannot remove the end of it unseen.
package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/kubeguardian/kubeguardian/action"
)

// A Log is the log of actions in a database.
type Log interface {
	// AppendAction adds an entry. It is on the disk when it returns.
	AppendAction(context.Context, action.Entry) (action.Entry, error)
	// Actions returns a page, newest first, and the cursor of the next one.
	Actions(ctx context.Context, before int64, limit int) ([]action.Entry, int64, error)
	// VerifyActions checks the chain, and that it still has the entries of heads
	// that were kept elsewhere. Its error may be an [action.BrokenError].
	VerifyActions(ctx context.Context, anchors ...action.Head) (action.Head, error)
}

// A Journal is a log of actions, and where it ended last, which is kept in a file
// and in the server's log. It is safe for concurrent use.
type Journal struct {
	Log
	says *slog.Logger
	file string // the last head

	mu     sync.Mutex
	head   action.Head
	broken error // what the last verification said; nil: nothing
}

// ReadHead returns the head in a file, the empty one if there is no file.
func ReadHead(file string) (action.Head, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return action.Head{}, nil
	}
	if err != nil {
		return action.Head{}, fmt.Errorf("read the head of the log of actions: %w", err)
	}
	head, err := action.ParseHead(strings.TrimSpace(string(data)))
	if err != nil {
		return action.Head{}, fmt.Errorf("read the head of the log of actions: %s: %w", file, err)
	}
	return head, nil
}

// Open verifies the log of actions, also against the head in a file. That it is not
// what it was is a problem of the health, and not an error: the server goes on.
func Open(ctx context.Context, log Log, says *slog.Logger, file string) (*Journal, error) {
	j := &Journal{Log: log, says: says, file: file}
	var err error
	if j.head, err = ReadHead(file); err != nil {
		return nil, err
	}
	head, err := j.VerifyActions(ctx)
	if broken := (*action.BrokenError)(nil); err != nil && !errors.As(err, &broken) {
		return nil, err
	}
	says.Info("verified the log of actions", "head", head.String(), "problem", err)
	return j, nil
}

// VerifyActions checks the log, also against the head that is kept beside it.
func (j *Journal) VerifyActions(ctx context.Context, anchors ...action.Head) (action.Head, error) {
	j.mu.Lock()
	own := j.head
	j.mu.Unlock()
	head, err := j.Log.VerifyActions(ctx, append(anchors, own)...)
	broken := (*action.BrokenError)(nil)
	if known := errors.As(err, &broken); (known || err == nil) && (len(anchors) == 0 || anchors[0] == action.Head{}) {
		if known {
			j.says.Error("the log of actions is not what it was", "error", err)
		}
		j.mu.Lock()
		j.broken = err
		j.mu.Unlock()
	}
	return head, err
}

// Problem says why the log is not what it was, or nil.
func (j *Journal) Problem() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.broken
}

// AppendAction adds an entry, and keeps its hash elsewhere too.
func (j *Journal) AppendAction(ctx context.Context, e action.Entry) (action.Entry, error) {
	added, err := j.Log.AppendAction(ctx, e)
	if err != nil {
		return added, err
	}
	head := action.Head{Seq: added.Seq, Hash: added.Hash}
	j.says.Info("action", "head", head.String(), "user", added.User, "source", added.Source, "action", added.Action, "object", added.Object, "result", added.Result)
	j.keep(head)
	return added, nil
}

// keep writes the head to the file, whole or not at all. While the log is broken
// the last head of the whole one stays, so that a restart finds it again.
func (j *Journal) keep(head action.Head) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken != nil || head.Seq <= j.head.Seq {
		return
	}
	j.head = head
	if err := replaceFile(j.file, head.String()+"\n"); err != nil {
		j.says.Error("keep the head of the log of actions", "error", err)
	}
}

// replaceFile gives a file another content; after a power cut it has the one or
// the other.
func replaceFile(name, content string) error {
	f, err := os.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
