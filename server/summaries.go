package server

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"k8s.io/client-go/dynamic"

	"github.com/kubeguardian/kubeguardian/audit"
	"github.com/kubeguardian/kubeguardian/clusterpolicy"
)

// auditOwner owns what audits write into the status of constraints.
const auditOwner = "kubeguardian-audit"

// summaries are what audits said of the constraints of the cluster, in their
// status. The zero value writes none.
type summaries struct {
	cluster *clusterpolicy.Watcher
	client  dynamic.Interface
	log     *slog.Logger
	written map[[2]string]string // by kind and name, without the time
}

// write writes the status of those constraints of which an audit says something
// else than the one before: a status that is the same costs the cluster nothing.
// What could not be written is, after the next audit.
func (s *summaries) write(ctx context.Context, now *inForce, result *audit.Result) {
	if s.cluster == nil || now == nil || !s.cluster.OwnsGatekeeperKinds() {
		return
	}
	statuses := result.Statuses(time.Now(), audit.StatusViolations)
	for _, o := range now.cluster.Objects {
		if !clusterpolicy.IsConstraint(o.Kind) || !o.InForce {
			continue
		}
		status := statuses.Of(o.Kind.Kind, o.Name)
		fields, text, err := fieldsOf(status)
		key := [2]string{o.Kind.Kind, o.Name}
		if err == nil && s.written[key] == text {
			continue
		}
		if err == nil {
			err = clusterpolicy.ApplyConstraintStatus(ctx, s.client, o.Kind.Kind, o.Name, auditOwner, fields)
		}
		if err != nil {
			s.log.Warn("the audit is not in the status of a constraint", "error", err)
			continue
		}
		s.written[key] = text
	}
}

// fieldsOf returns a status as the API has it, and as text without its time.
func fieldsOf(status audit.ConstraintStatus) (fields map[string]any, text string, err error) {
	data, err := json.Marshal(status)
	if err == nil {
		err = json.Unmarshal(data, &fields)
	}
	if err != nil {
		return nil, "", err
	}
	status.AuditTimestamp = time.Time{}
	data, err = json.Marshal(status)
	return fields, string(data), err
}
