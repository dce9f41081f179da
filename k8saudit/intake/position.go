package intake

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/kubeguardian/kubeguardian/k8saudit"
)

// Checkpoints are where positions may be kept among other notes.
type Checkpoints interface {
	// Checkpoint returns what was saved last under a name; known is false if
	// nothing was.
	Checkpoint(ctx context.Context, name string) (body []byte, known bool, err error)
	// SaveCheckpoint keeps a note. It is on the disk when it returns.
	SaveCheckpoint(ctx context.Context, name string, body []byte) error
}

// Positions are [k8saudit.Positions] in checkpoints, of a replica that has a name or of the only
// one.
type Positions struct {
	Checkpoints Checkpoints
	Replica     string
}

func (p Positions) name(log string) string {
	if p.Replica == "" {
		return "audit file " + log
	}
	return "audit file " + log + " of " + p.Replica
}

// Position is [k8saudit.Positions].
func (p Positions) Position(ctx context.Context, log string) (pos k8saudit.Position, known bool, err error) {
	body, known, err := p.Checkpoints.Checkpoint(ctx, p.name(log))
	if err == nil && known {
		if err = json.Unmarshal(body, &pos); err != nil {
			err = fmt.Errorf("read position in %s: %w", log, err)
		}
	}
	return pos, known, err
}

// SavePosition is [k8saudit.Positions].
func (p Positions) SavePosition(ctx context.Context, log string, pos k8saudit.Position) error {
	body, err := json.Marshal(pos)
	if err != nil {
		return fmt.Errorf("encode position in %s: %w", log, err)
	}
	return p.Checkpoints.SaveCheckpoint(ctx, p.name(log), body)
}
