// Package otlp sends messages as log records by OTLP over HTTP, to an
// OpenTelemetry Collector or to whatever else takes them.
package otlp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	collector "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/proto"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/document"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

// A Config says where log records are sent.
type Config struct {
	// URL is that of the receiver, such as http://collector:4318; records go to
	// /v1/logs below it.
	URL  string      `yaml:"url"`
	Auth post.Auth   `yaml:"auth"`
	HTTP post.Config `yaml:"http"`
}

type destination struct {
	Config
	client *post.Client
	o      notify.Options
}

// New returns the destination.
func New(c Config, o notify.Options) (notify.Destination, error) {
	if err := errors.Join(post.CheckURL(c.URL), c.Auth.Check()); err != nil {
		return nil, err
	}
	client, err := post.New(c.HTTP, o)
	if err != nil {
		return nil, err
	}
	return &destination{c, client, o}, nil
}

// Batch is [notify.Batcher].
func (d *destination) Batch() int { return 200 }

// Close is [notify.Destination].
func (d *destination) Close() error { return d.client.Close() }

// Send sends a batch. Records that the receiver says it has rejected are not
// sent again, as the protocol demands.
func (d *destination) Send(ctx context.Context, batch []notify.Notification) error {
	body, err := proto.Marshal(d.request(batch))
	if err != nil {
		return notify.Permanent(fmt.Errorf("%s: encode records: %w", d.o.Name, err))
	}
	header := http.Header{}
	if err := d.Auth.Add(header, "Bearer"); err != nil {
		return fmt.Errorf("%s: %w", d.o.Name, err)
	}
	answer, err := d.client.Send(ctx, post.Request{URL: post.Join(d.URL, "/v1/logs"), Type: "application/x-protobuf", Header: header, Body: body})
	if err != nil {
		return err
	}
	var result collector.ExportLogsServiceResponse
	if proto.Unmarshal(answer, &result) != nil {
		return nil // some answer in JSON, or not at all: the status says that all was taken
	}
	if n := result.GetPartialSuccess().GetRejectedLogRecords(); n > 0 {
		return notify.Permanent(fmt.Errorf("%s: %d of %d records were rejected", d.o.Name, n, len(batch)))
	}
	return nil
}

// request returns a batch as one request, with a resource for each cluster.
func (d *destination) request(batch []notify.Notification) *collector.ExportLogsServiceRequest {
	out := &collector.ExportLogsServiceRequest{}
	records := map[string]*logs.ScopeLogs{}
	for i := range batch {
		n := &batch[i]
		cluster := n.Alert.Cluster
		if cluster == "" {
			cluster = d.o.Cluster
		}
		scope, known := records[cluster]
		if !known {
			scope = &logs.ScopeLogs{Scope: &common.InstrumentationScope{Name: "kubeguardian", Version: d.o.Version}}
			records[cluster] = scope
			out.ResourceLogs = append(out.ResourceLogs, &logs.ResourceLogs{
				Resource: &resource.Resource{Attributes: present(
					text("service.name", "kubeguardian"), text("service.version", d.o.Version), text("k8s.cluster.name", cluster),
				)},
				ScopeLogs: []*logs.ScopeLogs{scope},
			})
		}
		scope.LogRecords = append(scope.LogRecords, record(n))
	}
	return out
}

// maxBody bounds the text of a record.
const maxBody = 32 << 10

func record(n *notify.Notification) *logs.LogRecord {
	a := &n.Alert
	out := &logs.LogRecord{
		TimeUnixNano: uint64(max(a.Time.UnixNano(), 0)), ObservedTimeUnixNano: uint64(max(n.Last.UnixNano(), 0)),
		SeverityNumber: severity(a.Priority), SeverityText: a.Priority.String(),
		Body: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: document.Text(n, maxBody)}},
		Attributes: []*common.KeyValue{
			text("kubeguardian.id", a.ID), text("kubeguardian.key", n.Key), text("kubeguardian.rule", a.Rule), text("kubeguardian.source", a.Source),
			{Key: "kubeguardian.count", Value: value(n.Count)}, texts("kubeguardian.tags", a.Tags), texts("kubeguardian.tactics", a.Tactics),
			text("kubeguardian.subject", a.Subject.String()), text("host.name", a.Hostname), text("url.full", n.URL),
		},
		EventName: "kubeguardian.alert",
	}
	if i := n.Incident; i != nil {
		out.EventName = "kubeguardian.incident"
		out.Attributes = append(out.Attributes, text("kubeguardian.incident.id", i.ID), text("kubeguardian.incident.state", string(i.State)),
			&common.KeyValue{Key: "kubeguardian.incident.score", Value: value(i.Score)})
	}
	for _, name := range slices.Sorted(maps.Keys(a.OutputFields)) {
		if v := value(a.OutputFields[name]); v != nil {
			out.Attributes = append(out.Attributes, &common.KeyValue{Key: valid(name), Value: v})
		}
	}
	out.Attributes = present(out.Attributes...)
	return out
}

// present returns the attributes that have a value.
func present(list ...*common.KeyValue) []*common.KeyValue {
	return slices.DeleteFunc(list, func(kv *common.KeyValue) bool { return kv == nil })
}

// severity returns the number that the data model of logs gives a severity of
// syslog.
func severity(p alert.Priority) logs.SeverityNumber {
	switch p {
	case alert.Emergency:
		return logs.SeverityNumber_SEVERITY_NUMBER_FATAL
	case alert.AlertPriority:
		return logs.SeverityNumber_SEVERITY_NUMBER_ERROR3
	case alert.Critical:
		return logs.SeverityNumber_SEVERITY_NUMBER_ERROR2
	case alert.Error:
		return logs.SeverityNumber_SEVERITY_NUMBER_ERROR
	case alert.Warning:
		return logs.SeverityNumber_SEVERITY_NUMBER_WARN
	case alert.Notice:
		return logs.SeverityNumber_SEVERITY_NUMBER_INFO2
	case alert.Debug:
		return logs.SeverityNumber_SEVERITY_NUMBER_DEBUG
	}
	return logs.SeverityNumber_SEVERITY_NUMBER_INFO
}

// text returns an attribute, nil for one that is empty.
func text(key, s string) *common.KeyValue {
	if s == "" {
		return nil
	}
	return &common.KeyValue{Key: key, Value: value(s)}
}

func texts(key string, list []string) *common.KeyValue {
	if len(list) == 0 {
		return nil
	}
	return &common.KeyValue{Key: key, Value: value(list)}
}

// value returns a value as OTLP has it; nil for none.
func value(v any) *common.AnyValue {
	switch v := v.(type) {
	case nil:
		return nil
	case string:
		return &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: valid(v)}}
	case bool:
		return &common.AnyValue{Value: &common.AnyValue_BoolValue{BoolValue: v}}
	case int:
		return &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: int64(v)}}
	case int64:
		return &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: v}}
	case float64:
		return &common.AnyValue{Value: &common.AnyValue_DoubleValue{DoubleValue: v}}
	case json.Number:
		if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return value(n)
		}
		return value(v.String()) // exact, which a double may not be
	case []string:
		list := &common.ArrayValue{}
		for _, item := range v {
			list.Values = append(list.Values, value(item))
		}
		return &common.AnyValue{Value: &common.AnyValue_ArrayValue{ArrayValue: list}}
	}
	encoded, err := json.Marshal(v) // lists and objects
	if err != nil {
		return nil
	}
	return value(string(encoded))
}

// valid returns text that protobuf can carry.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
