package ha

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// repmgr chooses whom to promote among the nodes on which its daemon runs. The
// daemon does not start while there is no primary, so one that has been started
// too late is missing, with all that only this node may have; and if it is
// missing everywhere, nobody is promoted. So the supervisors have the last word,
// and the first when repmgr says nothing.

// door is the socket on which a supervisor is asked to promote its node.
func door(runDir string) string { return filepath.Join(runDir, "supervisor.sock") }

// Promote asks the supervisor of a node on this machine to promote it. It is
// what repmgr runs.
func Promote(ctx context.Context, runDir string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", door(runDir))
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://supervisor/promote", nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10)) // what there is
		return fmt.Errorf("not promoted: %s", why)
	}
	return nil
}

// servePromote answers [Promote], for the own user only.
func (n *Node) servePromote() (*http.Server, error) {
	path := door(n.RunDir)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /promote", func(w http.ResponseWriter, r *http.Request) {
		if err := n.promote(r.Context()); err != nil {
			n.log.Error("not promoted", "error", err)
			http.Error(w, err.Error(), http.StatusConflict)
		}
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 2 * time.Second}
	go func() { _ = server.Serve(listener) }() // ends with Close
	return server, nil
}

// promote makes the node the primary, if that is right. One that already is
// needs nothing.
func (n *Node) promote(ctx context.Context) error {
	n.turn.Lock()
	defer n.turn.Unlock()
	own := Ask(ctx, n.Config)
	if own.Primary {
		return nil
	}
	others := n.peers.look(ctx)
	if err := n.mayLead(own, others); err != nil {
		return err
	}
	n.log.Warn("promoting this node", "seen", len(others.nodes))
	return n.repmgr(ctx, "standby", "promote")
}

// mayLead says why a standby must not be promoted, if it must not.
func (n *Node) mayLead(own Status, others view) error {
	if !own.Up {
		return errors.New("PostgreSQL does not answer")
	}
	if others.primary != nil {
		return fmt.Errorf("%s is primary", others.primary.Name)
	}
	up := 1
	for _, s := range others.nodes {
		switch {
		case !s.Up:
			continue
		case s.Streaming:
			return fmt.Errorf("%s still follows a primary", s.Name)
		case s.better(own):
			return fmt.Errorf("%s has more, or as much and the lower number", s.Name)
		}
		up++
	}
	switch {
	case own.Streaming:
		return errors.New("it still follows a primary")
	case 2*up <= len(n.Peers)+1:
		return errors.New("too few nodes answer") // one that does not may have more
	}
	return nil
}

// standIn promotes the node where repmgr promoted nobody.
func (n *Node) standIn(ctx context.Context) {
	n.log.Warn("no primary, and repmgr has not promoted one")
	if err := n.promote(ctx); err != nil {
		n.log.Warn("not promoted", "error", err)
	}
}
