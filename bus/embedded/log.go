package embedded

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// How much of what a server says is logged.
const (
	connectionsEvery = time.Minute // one line
	faultsEvery      = 3 * time.Second
	faultsAtOnce     = 20
)

// A logger sends what a NATS server says to the log, and keeps the last error.
type logger struct {
	log         *slog.Logger
	fatal       chan error
	last        atomic.Pointer[string]
	connections limited
	faults      limited
}

func newLogger(log *slog.Logger) *logger {
	return &logger{
		log: log, fatal: make(chan error, 1),
		connections: limited{limit: rate.NewLimiter(rate.Every(connectionsEvery), 1)},
		faults:      limited{limit: rate.NewLimiter(rate.Every(faultsEvery), faultsAtOnce)},
	}
}

// A limited kind of lines is counted, and logged once in a while.
type limited struct {
	limit *rate.Limiter
	count atomic.Uint64 // all
	left  atomic.Uint64 // those since the last one that was logged
}

// tell logs a line, or counts it for the next one.
func (l *logger) tell(kind *limited, level slog.Level, text string) {
	kind.count.Add(1)
	if !kind.limit.Allow() {
		kind.left.Add(1)
		l.log.Debug(text)
		return
	}
	var more []any
	if left := kind.left.Swap(0); left > 0 {
		more = []any{"left out before it", left}
	}
	l.log.Log(context.Background(), level, text, more...)
}

// ofConnection matches what is said of a connection, which begins with its address
// and its id, and that another server is not reached, which is tried again each
// second.
var ofConnection = regexp.MustCompile(`^\S+ - [a-z]id\w*:\d+ |^Error trying to connect as leafnode `)

func (l *logger) say(level slog.Level, format string, v []any) string {
	text := strings.TrimSpace(fmt.Sprintf(format, v...))
	if ofConnection.MatchString(text) {
		l.tell(&l.connections, slog.LevelInfo, text)
	} else {
		l.tell(&l.faults, level, text)
	}
	return text
}

func (l *logger) debug(format string, v []any) {
	l.log.Debug(strings.TrimSpace(fmt.Sprintf(format, v...)))
}

// Noticef is of [natsd.Logger], and so are the others.
func (l *logger) Noticef(format string, v ...any) { l.debug(format, v) }

// Warnf is of [natsd.Logger].
func (l *logger) Warnf(format string, v ...any) { l.say(slog.LevelWarn, format, v) }

// Errorf is of [natsd.Logger].
func (l *logger) Errorf(format string, v ...any) {
	text := l.say(slog.LevelError, format, v)
	l.last.Store(&text)
}

// Debugf is of [natsd.Logger].
func (l *logger) Debugf(format string, v ...any) { l.debug(format, v) }

// Tracef is of [natsd.Logger].
func (l *logger) Tracef(string, ...any) {}

// Fatalf is of [natsd.Logger]. The NATS server expects it to end the process.
func (l *logger) Fatalf(format string, v ...any) {
	select {
	case l.fatal <- fmt.Errorf(format, v...):
	default:
	}
}
