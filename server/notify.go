package server

import (
	"context"
	"fmt"
	"net/http"

	"k8s.io/client-go/rest"

	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/alertmanager"
	"github.com/kubeguardian/kubeguardian/notify/delivery"
	"github.com/kubeguardian/kubeguardian/notify/discord"
	"github.com/kubeguardian/kubeguardian/notify/elasticsearch"
	"github.com/kubeguardian/kubeguardian/notify/email"
	"github.com/kubeguardian/kubeguardian/notify/file"
	"github.com/kubeguardian/kubeguardian/notify/kafka"
	"github.com/kubeguardian/kubeguardian/notify/kubernetes"
	"github.com/kubeguardian/kubeguardian/notify/loki"
	"github.com/kubeguardian/kubeguardian/notify/nats"
	"github.com/kubeguardian/kubeguardian/notify/openreports"
	"github.com/kubeguardian/kubeguardian/notify/opsgenie"
	"github.com/kubeguardian/kubeguardian/notify/otlp"
	"github.com/kubeguardian/kubeguardian/notify/pagerduty"
	"github.com/kubeguardian/kubeguardian/notify/s3"
	"github.com/kubeguardian/kubeguardian/notify/slack"
	"github.com/kubeguardian/kubeguardian/notify/splunk"
	"github.com/kubeguardian/kubeguardian/notify/syslog"
	"github.com/kubeguardian/kubeguardian/notify/teams"
	"github.com/kubeguardian/kubeguardian/notify/telegram"
	"github.com/kubeguardian/kubeguardian/notify/webhook"
	"github.com/kubeguardian/kubeguardian/store"
)

// destinations are the kinds of destinations that there are; some write objects of
// the cluster.
func destinations(cluster *rest.Config) map[string]notify.Constructor {
	return map[string]notify.Constructor{
		"alertmanager":  notify.Construct(alertmanager.New),
		"discord":       notify.Construct(discord.New),
		"elasticsearch": notify.Construct(elasticsearch.New),
		"email":         notify.Construct(email.New),
		"file":          notify.Construct(file.New),
		"kafka":         notify.Construct(kafka.New),
		"kubernetes":    inCluster(cluster, kubernetes.New),
		"loki":          notify.Construct(loki.New),
		"nats":          notify.Construct(nats.New),
		"openreports":   inCluster(cluster, openreports.New),
		"opsgenie":      notify.Construct(opsgenie.New),
		"otlp":          notify.Construct(otlp.New),
		"pagerduty":     notify.Construct(pagerduty.New),
		"s3":            notify.Construct(s3.New),
		"slack":         notify.Construct(slack.New),
		"splunk":        notify.Construct(splunk.New),
		"syslog":        notify.Construct(syslog.New),
		"teams":         notify.Construct(teams.New),
		"telegram":      notify.Construct(telegram.New),
		"webhook":       notify.Construct(webhook.New),
	}
}

// inCluster returns the constructor of a destination that is given a client of the
// cluster's API server, and its URL.
func inCluster[C any](cluster *rest.Config, build func(C, notify.Options, *http.Client, string) (notify.Destination, error)) notify.Constructor {
	return notify.Construct(func(c C, o notify.Options) (notify.Destination, error) {
		api, err := rest.HTTPClientFor(cluster)
		if err != nil {
			return nil, fmt.Errorf("connect to cluster: %w", err)
		}
		url, _, err := rest.DefaultServerUrlFor(cluster)
		if err != nil {
			return nil, fmt.Errorf("connect to cluster: %w", err)
		}
		return build(c, o, api, url.String())
	})
}

// openNotifier makes the destinations that the configuration names.
func (s *Server) openNotifier(context.Context) (err error) {
	s.notifier, err = notify.New(notify.Setup{
		Config: &s.cfg.Notify, Cluster: s.cfg.Cluster, Version: s.version, Store: s.store, Types: destinations(s.rest), Log: s.log,
	})
	if err != nil {
		return fmt.Errorf("prepare deliveries: %w", err)
	}
	s.onStop(s.notifier.Close)
	s.metrics.registry.MustRegister(s.notifier.Collector())
	return nil
}

// deliveries are what the page shows and changes of them.
type deliveries struct {
	*notify.Notifier
	store *store.Store
}

// Deliveries returns a page of messages.
func (d deliveries) Deliveries(ctx context.Context, q delivery.Query) ([]delivery.Message, int64, error) {
	return d.store.Deliveries(ctx, q)
}
