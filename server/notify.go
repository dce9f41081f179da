package server

import (
	"context"
	"fmt"

	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/alertmanager"
	"github.com/kubeguardian/kubeguardian/notify/discord"
	"github.com/kubeguardian/kubeguardian/notify/elasticsearch"
	"github.com/kubeguardian/kubeguardian/notify/email"
	"github.com/kubeguardian/kubeguardian/notify/file"
	"github.com/kubeguardian/kubeguardian/notify/kafka"
	"github.com/kubeguardian/kubeguardian/notify/loki"
	"github.com/kubeguardian/kubeguardian/notify/nats"
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
)

// destinations are the kinds of destinations that there are.
func destinations() map[string]notify.Constructor {
	return map[string]notify.Constructor{
		"alertmanager":  notify.Construct(alertmanager.New),
		"discord":       notify.Construct(discord.New),
		"elasticsearch": notify.Construct(elasticsearch.New),
		"email":         notify.Construct(email.New),
		"file":          notify.Construct(file.New),
		"kafka":         notify.Construct(kafka.New),
		"loki":          notify.Construct(loki.New),
		"nats":          notify.Construct(nats.New),
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

// openNotifier makes the destinations that the configuration names.
func (s *Server) openNotifier(context.Context) (err error) {
	s.notifier, err = notify.New(notify.Setup{
		Config: &s.cfg.Notify, Cluster: s.cfg.Cluster, Version: s.version, Store: s.store, Types: destinations(), Log: s.log,
	})
	if err != nil {
		return fmt.Errorf("prepare deliveries: %w", err)
	}
	s.onStop(s.notifier.Close)
	s.metrics.registry.MustRegister(s.notifier.Collector())
	return nil
}
