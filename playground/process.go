package playground

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// ProcessName is the argument that a program is given to be [Process].
const ProcessName = "playground-trial"

// A step of a policy cannot be stopped from within, nor can the memory be bounded
// that it takes, such as that of a number shifted by a billion. So policies are tried
// in a process of their own, which is little and ends.
const (
	maxMemory = 384 << 20        // of the process, beyond what it begins with
	maxAnswer = 8 << 20          // bytes
	patience  = 30 * time.Second // for the process to start and to end
)

// exitTooLong is the exit code of a process whose time was over.
const exitTooLong = 3

// noMemory are the last words of Go, and of its race detector, where there is no more.
var noMemory = []string{"out of memory", "cannot allocate memory", "failed to allocate"}

// ErrMemory is that a trial took too much memory.
var ErrMemory = fmt.Errorf("the trial took more than %d MiB of memory: make it simpler", maxMemory>>20)

// An answer is what a process writes: one of these.
type answer struct {
	Result *PolicyResult `json:"result,omitempty"`
	Wrong  string        `json:"wrong,omitempty"` // with what was to be tried
	Failed string        `json:"failed,omitempty"`
}

// Process tries the policies that it reads from in, and writes to out what came of
// it. It bounds the memory of its process, and ends it when the time is over: it is
// for one that does nothing else, see [Options].
func Process(ctx context.Context, in io.Reader, out io.Writer) error {
	var t PolicyTrial
	if err := json.NewDecoder(io.LimitReader(in, maxAnswer)).Decode(&t); err != nil {
		return fmt.Errorf("read the trial: %w", err)
	}
	if err := boundMemory(maxMemory); err != nil {
		return fmt.Errorf("bound the memory of the trial: %w", err)
	}
	time.AfterFunc(limit, func() { os.Exit(exitTooLong) })
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var a answer
	result, err := tryPolicy(ctx, t)
	var input *InputError
	switch {
	case errors.As(err, &input):
		a.Wrong = err.Error()
	case err != nil:
		a.Failed = err.Error()
	default:
		a.Result = &result
	}
	return json.NewEncoder(out).Encode(a)
}

// apart tries policies in a process.
func (p *Playground) apart(ctx context.Context, t PolicyTrial) (none PolicyResult, err error) {
	in, err := json.Marshal(t)
	if err != nil {
		return none, fmt.Errorf("hand over the trial: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, limit+patience)
	defer cancel()
	var out, said bounded
	out.left, said.left = maxAnswer, 64<<10
	cmd := exec.CommandContext(ctx, p.Program, ProcessName)
	cmd.Args[0] = "kubeguardian"
	cmd.Dir, cmd.Env = "/", []string{"GOMAXPROCS=1", "GOTRACEBACK=none"} // nothing that the server knows
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = bytes.NewReader(in), &out, &said, time.Second
	if err := cmd.Run(); err != nil {
		return none, ended(ctx, err, said.String())
	}
	var a answer
	if err := json.Unmarshal(out.Bytes(), &a); err != nil {
		return none, fmt.Errorf("read what came of the trial: %w", err)
	}
	switch {
	case a.Result != nil:
		return *a.Result, nil
	case a.Wrong != "":
		return none, &InputError{errors.New(a.Wrong)}
	}
	return none, fmt.Errorf("try it: %s", a.Failed)
}

// ended returns why a process ended without an answer.
func ended(ctx context.Context, err error, said string) error {
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return ErrTooLong
	case errors.As(err, &exit) && exit.ExitCode() == exitTooLong:
		return ErrTooLong
	case errors.As(err, &exit) && slices.ContainsFunc(noMemory, func(words string) bool { return strings.Contains(said, words) }):
		return ErrMemory
	}
	first, _, _ := strings.Cut(said, "\n")
	return fmt.Errorf("run the trial in a process: %w: %s", err, first)
}

// bounded keeps the beginning of what is written, and fails for what is too much.
type bounded struct {
	bytes.Buffer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, errors.New("the answer is too long")
	}
	return b.Buffer.Write(p)
}
