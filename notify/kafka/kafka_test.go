package kafka_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/kafka"
	"github.com/kubeguardian/kubeguardian/notify/notifytest"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

const topic = "security-alerts"

// cluster starts brokers in this process that speak Kafka's protocol.
func cluster(t *testing.T, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(3), kfake.SeedTopics(4, topic)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func build(t *testing.T, c kafka.Config) notify.Destination {
	t.Helper()
	if c.Topic == "" {
		c.Topic = topic
	}
	c.TLS.AllowAddresses = []string{"127.0.0.1", "::1"}
	d, err := kafka.New(c, notify.Options{Name: "under-test", Cluster: "prod"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// deliver sends until it is taken, as a worker does: the time of one attempt is
// short here.
func deliver(t *testing.T, d notify.Destination, batch []notify.Notification) {
	t.Helper()
	var err error
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); {
		if err = d.Send(t.Context(), batch); err == nil {
			return
		}
		if notify.IsPermanent(err) {
			break
		}
	}
	t.Fatal(err)
}

// consume returns the first n records of the topic.
func consume(t *testing.T, c *kfake.Cluster, n int, opts ...kgo.Opt) []*kgo.Record {
	t.Helper()
	client, err := kgo.NewClient(append(opts, kgo.SeedBrokers(c.ListenAddrs()...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var out []*kgo.Record
	for len(out) < n {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%d records, want %d: %v", len(out), n, fetches.Errors())
		}
		out = append(out, fetches.Records()...)
	}
	return out
}

func TestProduces(t *testing.T) {
	c := cluster(t)
	d := build(t, kafka.Config{Brokers: c.ListenAddrs(), Plaintext: true})
	batch := notifytest.Notifications(30)
	batch[1].Alert.Cluster = ""
	for _, b := range [][]notify.Notification{batch[:20], batch[20:]} {
		if err := d.Send(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	records := consume(t, c, len(batch))
	keys := map[string]bool{}
	for i, r := range records { // all are of one pod, and so in one partition and in order
		var doc struct {
			ID           string
			Notification struct{ Key string }
		}
		if err := json.Unmarshal(r.Value, &doc); err != nil {
			t.Fatal(err)
		}
		if doc.Notification.Key != batch[i].Key || string(r.Key) != "prod/Pod/shop/web" || !r.Timestamp.Equal(batch[i].Alert.Time.Truncate(time.Millisecond)) {
			t.Errorf("record %d: key %s, time %s, %s", i, r.Key, r.Timestamp, r.Value)
		}
		keys[string(r.Headers[0].Value)] = r.Headers[0].Key == "kubeguardian-key"
	}
	if len(keys) != len(batch) || !keys[batch[0].Key] {
		t.Errorf("%d keys, want %d", len(keys), len(batch))
	}
}

// TestBrokersThatFail: the answer of a broker decides whether a batch is tried
// again.
func TestBrokersThatFail(t *testing.T) {
	for _, tc := range []struct {
		err       *kerr.Error
		permanent bool
	}{
		{kerr.MessageTooLarge, true}, {kerr.InvalidRecord, true},
		{kerr.TopicAuthorizationFailed, false}, {kerr.NotEnoughReplicas, false}, {kerr.KafkaStorageError, false},
	} {
		t.Run(tc.err.Message, func(t *testing.T) {
			t.Parallel()
			c := cluster(t)
			c.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
				c.KeepControl()
				in := req.(*kmsg.ProduceRequest)
				out := in.ResponseKind().(*kmsg.ProduceResponse)
				for _, topic := range in.Topics {
					rt := kmsg.NewProduceResponseTopic()
					rt.Topic, rt.TopicID = topic.Topic, topic.TopicID
					for _, p := range topic.Partitions {
						rp := kmsg.NewProduceResponseTopicPartition()
						rp.Partition, rp.ErrorCode = p.Partition, tc.err.Code
						rt.Partitions = append(rt.Partitions, rp)
					}
					out.Topics = append(out.Topics, rt)
				}
				return out, nil, true
			})
			d := build(t, kafka.Config{Brokers: c.ListenAddrs(), Plaintext: true, TLS: post.Config{Timeout: 2 * time.Second}})
			err := d.Send(t.Context(), notifytest.Notifications(2))
			if err == nil || notify.IsPermanent(err) != tc.permanent || !strings.Contains(err.Error(), "under-test: produce to topic "+topic) {
				t.Errorf("permanent %t, %v", notify.IsPermanent(err), err)
			}
		})
	}
}

// TestAfterAnOutage: the topic comes after the first attempts.
func TestAfterAnOutage(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	d := build(t, kafka.Config{Brokers: c.ListenAddrs(), Plaintext: true, TLS: post.Config{Timeout: 2 * time.Second}})
	batch := notifytest.Notifications(3)
	if err := d.Send(t.Context(), batch); err == nil || notify.IsPermanent(err) {
		t.Fatalf("without the topic: %v", err)
	}
	admin, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	create := kmsg.NewPtrCreateTopicsRequest()
	create.Topics = []kmsg.CreateTopicsRequestTopic{{Topic: topic, NumPartitions: 1, ReplicationFactor: 1}}
	if _, err := create.RequestWith(t.Context(), admin); err != nil {
		t.Fatal(err)
	}
	deliver(t, d, batch)
	if got := consume(t, c, len(batch)); len(got) < len(batch) {
		t.Errorf("%d records, want %d", len(got), len(batch))
	}
}

func TestSASLOverTLS(t *testing.T) {
	srv := httptest.NewTLSServer(nil)
	defer srv.Close()
	dir := t.TempDir()
	ca, password := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "password")
	write := func(file string, data []byte) {
		t.Helper()
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
	const secret = "p4ssw0rd-of-kafka"
	for _, mechanism := range []string{"plain", "scram-sha-256", "scram-sha-512"} {
		t.Run(mechanism, func(t *testing.T) {
			c := cluster(t, kfake.EnableSASL(), kfake.Superuser(strings.ToUpper(mechanism), "kubeguardian", secret),
				kfake.TLS(&tls.Config{Certificates: srv.TLS.Certificates}))
			d := build(t, kafka.Config{
				Brokers: c.ListenAddrs(), SASL: mechanism, Auth: post.Auth{User: "kubeguardian", PasswordFile: notify.SecretFile(password)},
				TLS: post.Config{CAFile: ca, Timeout: 2 * time.Second},
			})
			write(password, []byte("another"))
			err := d.Send(t.Context(), notifytest.Notifications(1))
			if err == nil || notify.IsPermanent(err) {
				t.Errorf("with another password: %v, want an error that is worth another attempt", err)
			} else {
				notifytest.Silent(t, err.Error(), secret, "another")
			}
			write(password, []byte(secret+"\n"))
			deliver(t, d, notifytest.Notifications(1))
			os.Remove(password)
			if d := build(t, kafka.Config{
				Brokers: c.ListenAddrs(), SASL: mechanism, Auth: post.Auth{User: "kubeguardian", PasswordFile: notify.SecretFile(password)},
				TLS: post.Config{CAFile: ca, Timeout: 2 * time.Second},
			}); notify.IsPermanent(d.Send(t.Context(), notifytest.Notifications(1))) {
				t.Error("without the file: permanent")
			}
		})
	}
}

func TestEndsWithItsContext(t *testing.T) {
	d := build(t, kafka.Config{Brokers: []string{"127.0.0.1:1"}, Plaintext: true})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	err := d.Send(ctx, notifytest.Notifications(2))
	if err == nil || notify.IsPermanent(err) || time.Since(began) > time.Minute || !strings.Contains(err.Error(), "last connection: ") {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}

func TestForbiddenAddress(t *testing.T) {
	d, err := kafka.New(kafka.Config{Brokers: []string{"169.254.169.254:9092"}, Topic: topic, TLS: post.Config{Timeout: time.Second}}, notify.Options{Name: "under-test"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Send(t.Context(), notifytest.Notifications(1)); !notify.IsPermanent(err) || !strings.Contains(err.Error(), "169.254.169.254") {
		t.Errorf("%v", err)
	}
}

func TestConfig(t *testing.T) {
	for want, c := range map[string]kafka.Config{
		"brokers and topic: give both": {Brokers: []string{"a:1"}},
		"brokers: want host:port":      {Brokers: []string{"a"}, Topic: "t"},
		"sasl: want plain":             {Brokers: []string{"a:1"}, Topic: "t", SASL: "gssapi", Auth: post.Auth{User: "u", PasswordFile: "p"}},
		"SASL is for a user":           {Brokers: []string{"a:1"}, Topic: "t", SASL: "plain"},
		"user and passwordFile":        {Brokers: []string{"a:1"}, Topic: "t", Auth: post.Auth{User: "u"}},
		`unknown format "avro"`:        {Brokers: []string{"a:1"}, Topic: "t", Format: "avro"},
		"tls.timeout: want 1s to 5m":   {Brokers: []string{"a:1"}, Topic: "t", TLS: post.Config{Timeout: time.Millisecond}},
		"read authorities":             {Brokers: []string{"a:1"}, Topic: "t", TLS: post.Config{CAFile: "none"}},
		"read allowed address":         {Brokers: []string{"a:1"}, Topic: "t", TLS: post.Config{AllowAddresses: []string{"x"}}},
	} {
		if _, err := kafka.New(c, notify.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
}
