package server

import (
	"context"
	"fmt"

	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/webhook"
)

// destinations are the kinds of destinations that there are.
func destinations() map[string]notify.Constructor {
	return map[string]notify.Constructor{
		"webhook": notify.Construct(webhook.New),
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
