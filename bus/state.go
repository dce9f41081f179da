package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kubeguardian/kubeguardian/bus/fleet"
)

// Bounds of a state, so that one agent cannot fill the server.
const (
	maxStateBytes = 256 << 10
	maxInterval   = time.Hour
)

// decodeState reads the state that the agent of a node has sent.
func decodeState(subject string, data []byte) (*fleet.State, error) {
	if len(data) > maxStateBytes {
		return nil, fmt.Errorf("%d bytes, at most %d", len(data), maxStateBytes)
	}
	var s fleet.State
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, err
	}
	if subject != statePrefix+s.Node || CheckNode(s.Node) != nil {
		return nil, fmt.Errorf("node %.60q in subject %.80s", s.Node, subject)
	}
	s.Interval = min(max(s.Interval, time.Second), maxInterval)
	return &s, nil
}

// FollowStates calls seen with the last state of each agent, and then with each
// new one, with when the bus got it, until ctx ends. What is no state goes to
// refused.
func FollowStates(ctx context.Context, js jetstream.JetStream, seen func(s *fleet.State, at time.Time), refused func(subject string, err error)) error {
	c, err := js.OrderedConsumer(ctx, StateStream, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy, FilterSubjects: []string{statePrefix + ">"}})
	if err != nil {
		return fmt.Errorf("follow states of agents: %w", err)
	}
	following, err := c.Consume(func(m jetstream.Msg) {
		meta, err := m.Metadata()
		var s *fleet.State
		if err == nil {
			s, err = decodeState(m.Subject(), m.Data())
		}
		if err != nil {
			refused(m.Subject(), err)
			return
		}
		seen(s, meta.Timestamp)
	})
	if err != nil {
		return fmt.Errorf("follow states of agents: %w", err)
	}
	defer following.Stop()
	select {
	case <-ctx.Done():
		return nil
	case <-following.Closed():
		return fmt.Errorf("follow states of agents: the bus ended that")
	}
}
