package server

import (
	"fmt"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubeguardian/kubeguardian/artifact"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/policy/image"
	"github.com/kubeguardian/kubeguardian/registry"
)

// openRegistries makes what reads from registries: policies that are artifacts,
// and the images of pods. Nothing is asked yet.
func (s *Server) openRegistries() error {
	access, err := registryAccess(s.cfg.Registries, false)
	if err != nil {
		return fmt.Errorf("open registries: %w", err)
	}
	s.images = image.New(image.Options{Credentials: access, Transport: access, Log: s.log})
	// Where policies come from the configuration says, and not who makes pods.
	if access, err = registryAccess(s.cfg.Registries, true); err != nil {
		return fmt.Errorf("open registries: %w", err)
	}
	s.artifacts = artifact.New(artifact.Options{Registries: access, Cache: filepath.Join(s.cfg.DataDir, "artifacts")})
	return nil
}

func registryAccess(cfg config.Registries, loopback bool) (*registry.Access, error) {
	opts := registry.Options{CredentialsFile: cfg.CredentialsFile, AllowLoopback: loopback}
	for _, a := range cfg.Authorities {
		opts.Authorities = append(opts.Authorities, registry.Authority(a))
	}
	return registry.New(opts)
}

// An imageCollector exports what the verifier of images counts.
type imageCollector struct{ verifier *image.Verifier }

// descriptions are those of its metrics.
func (imageCollector) descriptions() (verified, remembered, failed *prometheus.Desc) {
	name := func(part string) string { return prometheus.BuildFQName("kubeguardian", "image", part) }
	return prometheus.NewDesc(name("verifications_total"), "Images looked at in their registry for an image policy.", nil, nil),
		prometheus.NewDesc(name("verifications_remembered_total"), "Answers about images that were known already.", nil, nil),
		prometheus.NewDesc(name("verification_failures_total"), "Answers about images and tags that no registry gave.", nil, nil)
}

// Describe implements [prometheus.Collector].
func (c imageCollector) Describe(out chan<- *prometheus.Desc) {
	verified, remembered, failed := c.descriptions()
	out <- verified
	out <- remembered
	out <- failed
}

// Collect implements [prometheus.Collector].
func (c imageCollector) Collect(out chan<- prometheus.Metric) {
	verified, remembered, failed := c.descriptions()
	stats := c.verifier.Stats()
	out <- prometheus.MustNewConstMetric(verified, prometheus.CounterValue, float64(stats.Verified))
	out <- prometheus.MustNewConstMetric(remembered, prometheus.CounterValue, float64(stats.Remembered))
	out <- prometheus.MustNewConstMetric(failed, prometheus.CounterValue, float64(stats.Failed))
}
