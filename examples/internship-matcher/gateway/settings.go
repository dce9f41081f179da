package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
)

// Settings are what the gateway reads from its environment.
type Settings struct {
	Listen      string // LISTEN_ADDRESS, for clients; default :8080
	Health      string // HEALTH_ADDRESS, for probes and metrics; default :8081
	IdentityDir string // IDENTITY_DIR
	PublicKeys  string // TOKEN_PUBLIC_KEY_FILE

	Auth, Offer, Application string // AUTH_ADDRESS, OFFER_ADDRESS, APPLICATION_ADDRESS

	WAF     string         // WAF_MODE: block (default), detect or off
	Rate    int            // RATE_LIMIT, requests of one client per second; default 50
	Proxies []netip.Prefix // TRUSTED_PROXIES, whose X-Forwarded-For to believe; default none

	LogLevel slog.Level // LOG_LEVEL
	Traces   bool       // OTEL_EXPORTER_OTLP_ENDPOINT is set
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
		if getenv(key) == "" {
			errs = append(errs, fmt.Errorf("%s is not set", key))
		}
		return getenv(key)
	}
	s := Settings{
		Listen: get("LISTEN_ADDRESS", ":8080"), Health: get("HEALTH_ADDRESS", ":8081"),
		IdentityDir: must("IDENTITY_DIR"), PublicKeys: must("TOKEN_PUBLIC_KEY_FILE"),
		Auth: must("AUTH_ADDRESS"), Offer: must("OFFER_ADDRESS"), Application: must("APPLICATION_ADDRESS"),
		WAF:    get("WAF_MODE", "block"),
		Traces: getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "",
	}
	if s.WAF != "block" && s.WAF != "detect" && s.WAF != "off" {
		errs = append(errs, fmt.Errorf("WAF_MODE: %q is not block, detect or off", s.WAF))
	}
	var err error
	if s.Rate, err = strconv.Atoi(get("RATE_LIMIT", "50")); err != nil || s.Rate < 1 {
		errs = append(errs, fmt.Errorf("RATE_LIMIT: %q is not a positive number", getenv("RATE_LIMIT")))
	}
	for text := range strings.SplitSeq(getenv("TRUSTED_PROXIES"), ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("TRUSTED_PROXIES: %w", err))
		}
		s.Proxies = append(s.Proxies, prefix)
	}
	if err := s.LogLevel.UnmarshalText([]byte(get("LOG_LEVEL", "info"))); err != nil {
		errs = append(errs, fmt.Errorf("LOG_LEVEL: %w", err))
	}
	return s, errors.Join(errs...)
}
