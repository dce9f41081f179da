package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/falco"
	"github.com/kubeguardian/kubeguardian/server/listener"
)

// falcoRequests is how many requests with alerts are worked on at a time.
const falcoRequests = 8

// listenFalco binds the listener for alerts of Falco, if one is configured.
func (s *Server) listenFalco(context.Context) (err error) {
	c := s.cfg.Falco
	if c.Listen == "" {
		return nil
	}
	var token config.Secret
	if c.TokenFile != "" {
		var created bool
		if token, created, err = config.Token(c.TokenFile); err != nil {
			return fmt.Errorf("falco: %w", err)
		}
		if created {
			s.log.Info("created a token for senders of Falco's alerts", "file", c.TokenFile)
		}
	}
	if s.falcoTLS, err = falcoTLS(c); err != nil {
		return err
	}
	s.falco = falco.NewReceiver(falco.ReceiverOptions{Handle: s.foreign, Token: string(token), Requests: falcoRequests})
	s.metrics.registry.MustRegister(s.falco.Collector())
	if s.falcoListener, err = listener.Bind("falco", c.Listen); err != nil {
		return err
	}
	s.onStop(listener.Closer(s.falcoListener))
	return nil
}

// falcoTLS returns nil for plain HTTP.
func falcoTLS(c config.Falco) (*tls.Config, error) {
	if c.CertFile == "" {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("load certificate of falco.listen: %w", err)
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}}
	if c.ClientCAFile == "" {
		return out, nil
	}
	pem, err := os.ReadFile(c.ClientCAFile)
	if err != nil {
		return nil, fmt.Errorf("load authorities of senders: %w", err)
	}
	out.ClientCAs, out.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !out.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("load authorities of senders: %s has no certificate in PEM", c.ClientCAFile)
	}
	return out, nil
}

// foreign keeps alerts that another program has raised about this cluster.
func (s *Server) foreign(ctx context.Context, alerts []alert.Alert) error {
	err := s.keep(ctx, alerts)
	if err != nil {
		s.log.Error("alerts of Falco are refused until they can be stored", "alerts", len(alerts), "error", err)
	}
	return err
}

// serveFalco takes alerts until ctx ends.
func (s *Server) serveFalco(ctx context.Context) error {
	srv := listener.NewServer(s.falco, listener.Limits{Body: time.Minute, Answer: 5 * time.Minute})
	srv.ErrorLog = s.httpLog("falco")
	return s.visitors.Serve(ctx, srv, s.falcoListener, s.falcoTLS, pageGrace)
}
