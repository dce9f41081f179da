package service

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/database"
)

// Settings are what a service reads from its environment. Secrets are files
// that the environment names; the only one that may be a value is
// DATABASE_PASSWORD, in place of DATABASE_PASSWORD_FILE, which shows how it
// should not be.
type Settings struct {
	Listen       string // LISTEN_ADDRESS, gRPC; default :9090
	Health       string // HEALTH_ADDRESS, HTTP without TLS for probes and metrics; default :8081
	IdentityDir  string // IDENTITY_DIR
	PublicKeys   string // TOKEN_PUBLIC_KEY_FILE
	SigningKey   string // TOKEN_SIGNING_KEY_FILE, auth only
	Database     database.Config
	LogLevel     slog.Level
	OfferAddress string // OFFER_ADDRESS, application only
	Traces       bool   // OTEL_EXPORTER_OTLP_ENDPOINT is set, which the exporter reads itself
}

// FromEnv reads settings. All that is wrong is in one error.
func FromEnv(getenv func(string) string) (Settings, error) {
	var errs []error
	get := func(key, otherwise string) string {
		if v := getenv(key); v != "" {
			return v
		}
		return otherwise
	}
	must := func(key string) string {
		v := getenv(key)
		if v == "" {
			errs = append(errs, fmt.Errorf("%s is not set", key))
		}
		return v
	}
	s := Settings{
		Listen:       get("LISTEN_ADDRESS", ":9090"),
		Health:       get("HEALTH_ADDRESS", ":8081"),
		IdentityDir:  must("IDENTITY_DIR"),
		PublicKeys:   must("TOKEN_PUBLIC_KEY_FILE"),
		SigningKey:   getenv("TOKEN_SIGNING_KEY_FILE"),
		OfferAddress: getenv("OFFER_ADDRESS"),
		Traces:       getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "",
		Database: database.Config{
			Host: must("DATABASE_HOST"), Name: must("DATABASE_NAME"), User: must("DATABASE_USER"),
			PasswordFile: getenv("DATABASE_PASSWORD_FILE"),
			Password:     getenv("DATABASE_PASSWORD"),
			SSLMode:      get("DATABASE_SSLMODE", "verify-full"),
			RootCertFile: getenv("DATABASE_ROOT_CA_FILE"),
		},
	}
	var err error
	if s.Database.Port, err = strconv.Atoi(get("DATABASE_PORT", "5432")); err != nil {
		errs = append(errs, fmt.Errorf("DATABASE_PORT: %w", err))
	}
	if (s.Database.PasswordFile == "") == (s.Database.Password == "") {
		errs = append(errs, errors.New("want either DATABASE_PASSWORD_FILE or DATABASE_PASSWORD"))
	}
	if err := s.LogLevel.UnmarshalText([]byte(get("LOG_LEVEL", "info"))); err != nil {
		errs = append(errs, fmt.Errorf("LOG_LEVEL: %w", err))
	}
	return s, errors.Join(errs...)
}
