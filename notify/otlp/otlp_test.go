package otlp_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	"google.golang.org/protobuf/proto"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/notifytest"
	"github.com/kubeguardian/kubeguardian/notify/otlp"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

func read(t *testing.T, r *http.Request, body []byte) *collector.ExportLogsServiceRequest {
	t.Helper()
	var req collector.ExportLogsServiceRequest
	if err := proto.Unmarshal(body, &req); err != nil || r.Header.Get("Content-Type") != "application/x-protobuf" || !strings.HasSuffix(r.URL.Path, "/v1/logs") {
		t.Errorf("%s %v: %v", r.URL, r.Header, err)
	}
	return &req
}

func TestConforms(t *testing.T) {
	notifytest.HTTP{
		New: func(t *testing.T, to notifytest.Target) notify.Destination {
			d, err := otlp.New(otlp.Config{URL: to.URL, Auth: post.Auth{TokenFile: to.SecretFile}, HTTP: post.Config{AllowAddresses: []string{"127.0.0.1"}}}, to.Options)
			if err != nil {
				t.Fatal(err)
			}
			return d
		},
		Accept: func(t *testing.T, w http.ResponseWriter, r *http.Request, body []byte) {
			if got := r.Header.Get("Authorization"); got != "Bearer token-S3cr3tOfTheFile" {
				t.Errorf("Authorization %q", got)
			}
			req := read(t, r, body)
			if len(req.ResourceLogs) != 1 || len(req.ResourceLogs[0].ScopeLogs[0].LogRecords) == 0 {
				t.Errorf("request %v", req)
			}
			answer, err := proto.Marshal(&collector.ExportLogsServiceResponse{})
			if err != nil {
				t.Error(err)
			}
			w.Header().Set("Content-Type", "application/x-protobuf")
			w.Write(answer)
		},
	}.Conform(t)
}

// receive returns what a collector gets of a batch, when it rejects some.
func receive(t *testing.T, rejects int64, batch []notify.Notification) (*collector.ExportLogsServiceRequest, error) {
	t.Helper()
	var got *collector.ExportLogsServiceRequest
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got = read(t, r, body)
		answer, err := proto.Marshal(&collector.ExportLogsServiceResponse{PartialSuccess: &collector.ExportLogsPartialSuccess{RejectedLogRecords: rejects, ErrorMessage: "S3cret"}})
		if err != nil {
			t.Error(err)
		}
		w.Write(answer)
	}))
	defer srv.Close()
	d, err := otlp.New(otlp.Config{URL: srv.URL, HTTP: post.Config{AllowAddresses: []string{"127.0.0.1"}}}, notify.Options{Name: "otlp", Cluster: "prod", Version: "1.2.3"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	err = d.Send(t.Context(), batch)
	return got, err
}

func attributes(list []*common.KeyValue) map[string]*common.AnyValue {
	out := map[string]*common.AnyValue{}
	for _, kv := range list {
		out[kv.Key] = kv.Value
	}
	return out
}

func TestRecords(t *testing.T) {
	batch := notifytest.Notifications(4)
	batch[0].Alert.OutputFields = map[string]any{
		"k8s.ns.name": "shop", "proc.pid": json.Number("4711"), "evt.big": json.Number("12345678901234567890"), "f": 1.5, "b": true, "l": []any{"a"}, "none": nil, "bad": "\xff",
	}
	batch[1].Alert.Cluster = "edge"
	batch[3].Alert.Cluster = ""
	got, err := receive(t, 0, batch)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.ResourceLogs) != 2 {
		t.Fatalf("%d resources, want one for each of 2 clusters", len(got.ResourceLogs))
	}
	of := attributes(got.ResourceLogs[0].Resource.Attributes)
	if of["k8s.cluster.name"].GetStringValue() != "prod" || of["service.name"].GetStringValue() != "kubeguardian" || of["service.version"].GetStringValue() != "1.2.3" {
		t.Errorf("resource %v", of)
	}
	records := got.ResourceLogs[0].ScopeLogs[0].LogRecords
	if len(records) != 3 {
		t.Fatalf("%d records, want 3", len(records))
	}
	r, a := records[0], attributes(records[0].Attributes)
	if r.TimeUnixNano != uint64(batch[0].Alert.Time.UnixNano()) || r.SeverityText != "Critical" || r.SeverityNumber != 18 || r.EventName != "kubeguardian.alert" || r.Body.GetStringValue() != batch[0].Alert.Output {
		t.Errorf("record %v", r)
	}
	if a["k8s.ns.name"].GetStringValue() != "shop" || a["proc.pid"].GetIntValue() != 4711 || a["evt.big"].GetStringValue() != "12345678901234567890" || a["f"].GetDoubleValue() != 1.5 ||
		!a["b"].GetBoolValue() || a["l"].GetStringValue() != `["a"]` || a["bad"].GetStringValue() != "\uFFFD" || a["none"] != nil || len(a["kubeguardian.tags"].GetArrayValue().Values) != 2 {
		t.Errorf("attributes %v", a)
	}
	i := attributes(records[1].Attributes)
	if records[1].EventName != "kubeguardian.incident" || i["kubeguardian.incident.score"].GetIntValue() != 60 || records[1].Body.GetStringValue() != batch[2].Incident.Story {
		t.Errorf("incident %v", records[1])
	}
}

func TestRejectedRecordsAreNotSentAgain(t *testing.T) {
	_, err := receive(t, 2, notifytest.Notifications(3))
	if !notify.IsPermanent(err) || !strings.Contains(err.Error(), "otlp: 2 of 3 records were rejected") || strings.Contains(err.Error(), "S3cret") {
		t.Errorf("%v", err)
	}
}

func TestSeverities(t *testing.T) {
	want := []int32{21, 19, 18, 17, 13, 10, 9, 5}
	for p := alert.Emergency; p <= alert.Debug; p++ {
		batch := notifytest.Notifications(1)
		batch[0].Alert.Priority = p
		got, err := receive(t, 0, batch)
		if err != nil {
			t.Fatal(err)
		}
		if n := int32(got.ResourceLogs[0].ScopeLogs[0].LogRecords[0].SeverityNumber); n != want[p] {
			t.Errorf("%s has %d, want %d", p, n, want[p])
		}
	}
}

func TestConfig(t *testing.T) {
	for want, c := range map[string]otlp.Config{
		"url: want one that":    {URL: "collector:4317"},
		"user and passwordFile": {URL: "http://a", Auth: post.Auth{User: "u"}},
		"read authorities":      {URL: "http://a", HTTP: post.Config{CAFile: "none"}},
	} {
		if _, err := otlp.New(c, notify.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
}
