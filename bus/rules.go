package bus

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Rules are the rules for agents: files of the server, and what it makes of them.
type Rules struct {
	Files    []RuleFile        `json:"files"`
	Match    string            `json:"match"`    // first or all
	Priority string            `json:"priority"` // the least urgent that alerts
	Select   []RuleSelection   `json:"select,omitempty"`
	Append   []RuleAppend      `json:"append,omitempty"`
	Static   map[string]string `json:"static,omitempty"`
}

// A RuleFile is a file of rules.
type RuleFile struct {
	Name string `json:"name"`
	Data []byte `json:"data"`
}

// A RuleSelection switches the rules with a name or a tag on or off.
type RuleSelection struct {
	Rule string `json:"rule,omitempty"`
	Tag  string `json:"tag,omitempty"`
	On   bool   `json:"on"`
}

// A RuleAppend adds to the outputs of rules.
type RuleAppend struct {
	Source string      `json:"source,omitempty"`
	Rule   string      `json:"rule,omitempty"`
	Tags   []string    `json:"tags,omitempty"`
	Output string      `json:"output,omitempty"`
	Fields []RuleField `json:"fields,omitempty"`
}

// A RuleField is an output field that is added.
type RuleField struct {
	Name   string `json:"name"`
	Format string `json:"format,omitempty"`
}

// Hash tells rules from all others. It is short enough to be read aloud.
func (r *Rules) Hash() string {
	data, err := json.Marshal(r)
	if err != nil { // strings and bytes always encode
		return ""
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// maxRules bounds rules once they are unpacked, in bytes.
const maxRules = 32 << 20

// Encode returns rules as they are sent and kept: JSON, compressed by gzip.
func (r *Rules) Encode() ([]byte, error) {
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	if err := errors.Join(json.NewEncoder(zip).Encode(r), zip.Close()); err != nil {
		return nil, fmt.Errorf("encode rules: %w", err)
	}
	if out.Len() > MaxMessage-4096 {
		return nil, fmt.Errorf("rules for agents take %d bytes compressed, at most %d", out.Len(), MaxMessage-4096)
	}
	return out.Bytes(), nil
}

// DecodeRules reads what [Rules.Encode] wrote.
func DecodeRules(data []byte) (*Rules, error) {
	zip, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("read rules of the server: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(zip, maxRules+1))
	if err != nil {
		return nil, fmt.Errorf("read rules of the server: %w", err)
	}
	if len(text) > maxRules {
		return nil, fmt.Errorf("read rules of the server: more than %d bytes", maxRules)
	}
	var r Rules
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("read rules of the server: %w", err)
	}
	if len(r.Files) == 0 {
		return nil, errors.New("read rules of the server: there are no files")
	}
	return &r, nil
}

// SendRules gives rules to all agents, now and later.
func SendRules(ctx context.Context, js jetstream.JetStream, r *Rules) error {
	data, err := r.Encode()
	if err != nil {
		return err
	}
	if _, err := js.Publish(ctx, ruleSubject, data); err != nil {
		return fmt.Errorf("send rules to agents: %w", err)
	}
	return nil
}

// rulesInterval is how often an agent asks for the rules, besides being told of
// new ones: what is told while a connection is made is lost.
const rulesInterval = 30 * time.Second

// FollowRules calls use with the rules of the server, and again when there are
// others, until ctx ends; what cannot be read goes there as an error. A server
// that has none is not asked in vain: use is not called.
func FollowRules(ctx context.Context, nc *nats.Conn, use func(*Rules, error)) error {
	told := make(chan *nats.Msg, 4)
	sub, err := nc.ChanSubscribe(ruleSubject, told)
	if err != nil {
		return fmt.Errorf("follow rules of the server: %w", err)
	}
	defer sub.Unsubscribe()
	var last []byte
	for wait := time.Duration(0); ; {
		var data []byte
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case m := <-told:
			data = m.Data
		case <-timer.C:
			data, wait = askRules(ctx, nc)
		}
		timer.Stop()
		if data == nil || bytes.Equal(data, last) {
			continue
		}
		last = data
		use(DecodeRules(data))
	}
}

// askRules asks for the rules that were sent last, and says when to ask again.
func askRules(ctx context.Context, nc *nats.Conn) ([]byte, time.Duration) {
	if !nc.IsConnected() {
		return nil, time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	m, err := nc.RequestWithContext(ctx, ruleRequest, nil)
	if err != nil || m.Header.Get("Status") != "" { // there are none, or not yet
		return nil, rulesInterval / 6
	}
	return m.Data, rulesInterval
}
