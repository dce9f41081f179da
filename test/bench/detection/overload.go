package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/k8saudit"
	"github.com/kubeguardian/kubeguardian/rule"
	"github.com/kubeguardian/kubeguardian/store"
)

// receive is a receiver with the built-in rules and a store, in a process of
// its own. It prints its address; at /seen it says what it has handled.
func receive() error {
	ctx := context.Background()
	rules, err := loadRules(0)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "detection-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	db, err := store.Open(ctx, filepath.Join(dir, "db"))
	if err != nil {
		return err
	}
	defer db.Close()
	receiver := k8saudit.NewReceiver(k8saudit.ReceiverOptions{Batches: 8, Bytes: 64 << 20, Handle: func(ctx context.Context, events []*event.Event) error {
		var alerts []alert.Alert
		for _, e := range events {
			alerts = append(alerts, rules.Match(e, rule.First)...)
		}
		_, err := db.AddAlerts(ctx, alerts)
		return err
	}})
	mux := http.NewServeMux()
	mux.Handle("/audit", receiver)
	mux.HandleFunc("/seen", func(w http.ResponseWriter, _ *http.Request) {
		counts, err := db.Counts(ctx)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		json.NewEncoder(w).Encode(seen{receiver.Counters(), counts.Alerts}) // the sender notices if it is cut
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	return http.Serve(ln, mux)
}

type seen struct {
	k8saudit.Counters
	Alerts int
}

// overloadReceiver sends batches as fast as it can, from more connections than
// the receiver takes at once, and each again until it is acknowledged.
func overloadReceiver(lasting time.Duration) error {
	child := exec.Command(os.Args[0], "-receiver")
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		return err
	}
	if err := child.Start(); err != nil {
		return err
	}
	defer func() { child.Process.Kill(); child.Wait() }() // its end is what is asked for
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return fmt.Errorf("start receiver: %w", err)
	}
	base := "http://" + strings.TrimSpace(address)
	rules, err := loadRules(0)
	if err != nil {
		return err
	}
	s := sender{rules: rules}
	var group sync.WaitGroup
	errs := make([]error, 32)
	end := time.Now().Add(lasting)
	for i := range errs {
		group.Go(func() { errs[i] = s.send(base+"/audit", i, end) })
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return s.report(base, child.Process.Pid, lasting)
}

// A sender counts events.
type sender struct {
	rules                          *rule.Set
	acknowledged, refused, implied atomic.Int64
}

// A batch is a body for the receiver, and how many alerts it implies. Its audit
// ids are new each time.
type batch struct {
	body   []byte
	alerts int64
}

const (
	batchSize = 400
	batchMark = "MARKMARK"
)

func newBatch(seed uint64, rules *rule.Set) (b batch, err error) {
	lines := bytes.TrimSpace(newGenerator(seed).log(batchSize))
	for line := range bytes.SplitSeq(lines, []byte("\n")) {
		e, err := k8saudit.Parse(line)
		if err != nil {
			return b, err
		}
		b.alerts += int64(len(rules.Match(e, rule.First)))
	}
	b.body = append([]byte(`{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":[`), bytes.ReplaceAll(lines, []byte("\n"), []byte(","))...)
	b.body = append(bytes.ReplaceAll(b.body, []byte(`"auditID":"`), []byte(`"auditID":"`+batchMark)), "]}"...)
	return b, nil
}

// send posts batches until the end, each again until it is acknowledged.
func (s *sender) send(url string, seed int, end time.Time) error {
	b, err := newBatch(uint64(1000+seed), s.rules)
	if err != nil {
		return err
	}
	for n := 0; time.Now().Before(end); n++ {
		body := bytes.ReplaceAll(b.body, []byte(batchMark), fmt.Appendf(nil, "%02x%06x", seed, n))
		for {
			status, err := post(url, body)
			if err != nil {
				return err
			}
			if status == http.StatusOK {
				break
			}
			if status != http.StatusTooManyRequests && status != http.StatusServiceUnavailable {
				return fmt.Errorf("send batch: status %d", status)
			}
			s.refused.Add(batchSize)
			time.Sleep(20 * time.Millisecond) // less than it asks for
		}
		s.acknowledged.Add(batchSize)
		s.implied.Add(b.alerts)
	}
	return nil
}

func post(url string, body []byte) (status int, err error) {
	res, err := http.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, errors.Join(err, res.Body.Close())
}

// report compares what was acknowledged with what the receiver has.
func (s *sender) report(base string, pid int, lasting time.Duration) error {
	acknowledged, refused, implied := s.acknowledged.Load(), s.refused.Load(), s.implied.Load()
	res, err := http.Get(base + "/seen")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var got seen
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil {
		return err
	}
	memory, err := peak(strconv.Itoa(pid))
	if err != nil {
		return err
	}
	fmt.Printf("sent for %s: %d events acknowledged (%.0f a second), %d refused and sent again; handled %d; alerts %d, of which the events imply %d; memory at most %d MB\n",
		lasting, acknowledged, float64(acknowledged)/lasting.Seconds(), refused, got.Events, got.Alerts, implied, memory>>10)
	if int64(got.Events) != acknowledged || int64(got.Alerts) != implied {
		return fmt.Errorf("%d events acknowledged and %d handled, %d alerts implied and %d stored", acknowledged, got.Events, implied, got.Alerts)
	}
	return nil
}
