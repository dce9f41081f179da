package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// stopPrimary stops PostgreSQL for the time of the outage, and lets it go on.
func (p *parts) stopPrimary(ctx context.Context) (fault, error) {
	f := fault{name: "PostgreSQL", at: time.Now()}
	before := p.memory()
	if err := p.primary.Freeze(); err != nil {
		return f, err
	}
	said, text, peak := time.Duration(0), "", before
	for time.Since(f.at) < p.outage && ctx.Err() == nil {
		if err := wait(ctx, time.Second); err != nil {
			break
		}
		peak = max(peak, p.memory())
		if problem, err := p.servers[0].problem(ctx, "Database"); err == nil && problem != "" && text == "" {
			said, text = time.Since(f.at), problem
		}
	}
	if err := errors.Join(ctx.Err(), p.primary.Thaw()); err != nil {
		return f, err
	}
	if text == "" {
		return f, errors.New("the health of a server did not say that nothing can be stored")
	}
	back := time.Now()
	err := progress(ctx, "the health does not say that all is well again", func() (bool, uint64, error) {
		problem, err := p.servers[0].problem(ctx, "Database")
		return err == nil && problem == "", 0, err
	})
	f.note = fmt.Sprintf("; the health said so after %s (%s), and the contrary %s after it was back; both servers took %d MiB before, and at most %d MiB meanwhile",
		said.Round(time.Second), text, time.Since(back).Round(time.Second), before>>20, peak>>20)
	return f, err
}

// problem returns what the health of a server says is wrong with one of its parts;
// "" if nothing is.
func (s *replica) problem(ctx context.Context, part string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	token, err := os.ReadFile(filepath.Join(s.dir, "token"))
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.web+"/api/v1/health/checks", nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var list struct {
		Items []struct{ Name, State, Detail string }
	}
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		return "", fmt.Errorf("read health: %s: %w", resp.Status, err)
	}
	for _, check := range list.Items {
		if check.Name == part {
			if check.State == "ok" {
				return "", nil
			}
			return check.Detail, nil
		}
	}
	return "", fmt.Errorf("the health says nothing of %s: %s", part, resp.Status)
}

// memory returns the bytes of memory that all servers take.
func (p *parts) memory() (n uint64) {
	for _, s := range p.servers {
		text, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(s.pid()), "statm")) // one that is gone takes none
		if fields := strings.Fields(string(text)); len(fields) > 1 {
			pages, _ := strconv.ParseUint(fields[1], 10, 64) // a number, says the kernel
			n += pages * uint64(os.Getpagesize())
		}
	}
	return n
}
