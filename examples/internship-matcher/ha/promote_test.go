package ha

import (
	"strings"
	"testing"
	"time"
)

// node2 of three, and what it may see of the others.
var (
	own    = Status{ID: 2, Name: "node2", Up: true, Received: 100}
	behind = Status{ID: 1, Name: "node1", Up: true, Received: 99}
	equal  = Status{ID: 3, Name: "node3", Up: true, Received: 100}
)

func with(s Status, change func(*Status)) Status {
	change(&s)
	return s
}

func TestWhoMayBePromoted(t *testing.T) {
	n := &Node{Config: Config{Peer: Peer{ID: 2}, Peers: []Peer{{ID: 1}, {ID: 3}}}}
	tests := map[string]struct {
		own    Status
		others view
		why    string // not; none if it may
	}{
		"it has most":                  {own, view{nodes: []Status{behind}}, ""},
		"as much, and lower number":    {own, view{nodes: []Status{equal}}, ""},
		"as much, and higher number":   {own, view{nodes: []Status{with(behind, func(s *Status) { s.Received = 100 })}}, "lower number"},
		"another has more":             {own, view{nodes: []Status{with(equal, func(s *Status) { s.Received = 101 })}}, "node3 has more"},
		"there is a primary":           {own, view{primary: &Peer{Name: "node1"}, nodes: []Status{behind}}, "node1 is primary"},
		"it is alone":                  {own, view{}, "too few"},
		"another may have more":        {own, view{nodes: []Status{{ID: 3, Name: "node3"}}}, "too few"},
		"another still gets commits":   {own, view{nodes: []Status{with(equal, func(s *Status) { s.Streaming = true })}}, "node3 still follows"},
		"it still gets commits itself": {with(own, func(s *Status) { s.Streaming = true }), view{nodes: []Status{equal}}, "still follows"},
		"it does not answer":           {Status{ID: 2}, view{nodes: []Status{equal}}, "does not answer"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := n.mayLead(test.own, test.others)
			if test.why == "" && err != nil || test.why != "" && (err == nil || !strings.Contains(err.Error(), test.why)) {
				t.Errorf("got %v, want %q", err, test.why)
			}
		})
	}
}

func TestWhoMakesTheCluster(t *testing.T) {
	n := &Node{Config: Config{Peers: []Peer{{ID: 2}, {ID: 3}}}}
	for name, test := range map[string]struct {
		others []Status
		want   bool
	}{
		"all are empty":    {[]Status{{ID: 2}, {ID: 3}}, true},
		"one has data":     {[]Status{{ID: 2}, {ID: 3, Data: true}}, false},
		"one is not there": {[]Status{{ID: 2}}, false},
	} {
		if got := n.first(view{nodes: test.others}); got != test.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

// Nobody is promoted before an old primary has stopped, whoever promotes.
func TestTimesFit(t *testing.T) {
	if fenceAfter >= promoteAfter || fenceAfter >= standInAfter || standInAfter >= grace || followAfter >= restartAfter {
		t.Error("a time is not long enough for the one before")
	}
}

func TestWatch(t *testing.T) {
	var w watch
	then := time.Now().Add(-time.Minute)
	if got := w.lasts(true, then); got < time.Minute {
		t.Errorf("lasts %s, want a minute", got)
	}
	w.acted = true
	if got := w.lasts(true, time.Now()); got < time.Minute || !w.acted {
		t.Errorf("lasts %s, acted %v: it has not ended", got, w.acted)
	}
	if got := w.lasts(false, time.Now()); got != 0 || w.acted {
		t.Errorf("lasts %s, acted %v: it has ended", got, w.acted)
	}
}

func TestReadPeers(t *testing.T) {
	peers, err := ReadPeers("1:a:10.0.0.1,2:b:2001:db8::1")
	if err != nil || len(peers) != 2 || peers[1] != (Peer{2, "b", "2001:db8::1"}) || writePeers(peers) != "1:a:10.0.0.1,2:b:2001:db8::1" {
		t.Errorf("got %v, %v", peers, err)
	}
	for _, text := range []string{"", "1:a", "x:a:h", "0:a:h", "1:a:h,"} {
		if peers, err := ReadPeers(text); err == nil {
			t.Errorf("%q: got %v", text, peers)
		}
	}
	var c Config
	if err := c.Among(peers, "b"); err != nil || c.ID != 2 || len(c.Peers) != 1 || c.Peers[0].ID != 1 {
		t.Errorf("got %+v, %v", c, err)
	}
	if err := new(Config).Among(peers, "c"); err == nil {
		t.Error("c is one of a and b")
	}
}
