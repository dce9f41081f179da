package config

import (
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// validate checks what types cannot say and fills in the values that follow
// from others.
func (d *decoder) validate(c *Config) {
	d.required("cluster", c.Cluster)
	d.required("dataDir", c.DataDir)
	d.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	d.web(c)
	d.webhook(c)
	d.admission(&c.Admission)
	d.registries(&c.Registries)
	d.falco(c)
	d.bus(c)
	d.hub(c)
	d.paths("detection.rules", c.Detection.Rules)
	d.detection(&c.Detection)
	d.atLeast("detection.respondWithin", c.Detection.RespondWithin, time.Minute)
	d.atLeast("scan.interval", c.Scan.Interval, 10*time.Second)
	d.atLeast("retention.alerts", c.Retention.Alerts, time.Hour)
	d.atLeast("retention.decisions", c.Retention.Decisions, time.Hour)
	d.atLeast("retention.readiness", c.Retention.Readiness, time.Hour)
	d.tracing(&c.Tracing)
	if c.Retention.Records < 1000 {
		d.bad("retention.records", "want 1000 or more, have %d", c.Retention.Records)
	}
	if m := c.Retention.MaxMiB; m != 0 && (m < 64 || m > 1<<24) {
		d.bad("retention.maxMiB", "want 0 or 64 to %d, have %d", 1<<24, m)
	}
	d.notify(&c.Notify)
}

func (d *decoder) tracing(t *Tracing) {
	if t.Endpoint == "" {
		return
	}
	d.address("tracing.endpoint", t.Endpoint)
	if t.Plaintext && t.CAFile != "" {
		d.bad("tracing.plaintext", "tracing.caFile is set too: give one of them")
	}
	if !(t.Ratio > 0 && t.Ratio <= 1) {
		d.bad("tracing.ratio", "want more than 0 and at most 1, have %v", t.Ratio)
	}
}

// rules checks what shapes detection rules.
func (d *decoder) rules(c *Detection) {
	for i, s := range c.Select {
		if (s.Rule == "") == (s.Tag == "") {
			d.bad(index("detection.select", i), "give one of rule and tag")
		}
	}
	for i, a := range c.Append {
		if a.Output == "" && len(a.Fields) == 0 {
			d.bad(index("detection.append", i), "give output, fields or both")
		}
		for j, f := range a.Fields {
			if f.Name == "" {
				d.bad(index(index("detection.append", i)+".fields", j), "name is missing")
			}
		}
	}
	for i, s := range c.Cooldown {
		d.cooldown(index("detection.cooldown", i), s)
	}
	for i, f := range c.Static {
		if !staticName.MatchString(f.Name) {
			d.bad(index("detection.static", i), "want a name of letters, digits and _, have %q", clip(f.Name))
		}
	}
}

func (d *decoder) cooldown(key string, c Cooldown) {
	if c.Rule != "" && c.Tag != "" {
		d.bad(key, "give one of rule and tag, or neither for all rules")
	}
	if c.Within < 0 || c.Within > 24*time.Hour {
		d.bad(key+".within", "want 0s to 24h, have %s", c.Within)
	}
	if c.Within == 0 && (len(c.By) > 0 || c.Limit != 0) {
		d.bad(key, "by and limit are of the time that within gives: give it")
	}
	if c.Limit < 0 || c.Limit > 100_000 {
		d.bad(key+".limit", "want 0 to 100000, have %d", c.Limit)
	}
	for i, field := range c.By {
		d.required(index(key+".by", i), field)
	}
}

var staticName = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_]*$`)

func (d *decoder) web(c *Config) {
	w := &c.Web
	host, ok := d.address("web.listen", w.Listen)
	switch tls := w.CertFile != ""; {
	case tls && w.KeyFile == "":
		d.bad("web.certFile", "web.keyFile is missing: give both")
	case !tls && w.KeyFile != "":
		d.bad("web.keyFile", "web.certFile is missing: give both")
	case tls && w.OwnAuthority:
		d.bad("web.ownAuthority", "web.certFile is set too: give one of them")
	case ok && !tls && !w.OwnAuthority && !loopback(host):
		d.bad("web.listen", "%s is not a loopback address: without TLS the login token could be read on the way: set web.certFile and web.keyFile, or web.ownAuthority, or listen on 127.0.0.1", w.Listen)
	}
	if w.TokenFile == "" {
		w.TokenFile = filepath.Join(c.DataDir, "token")
	}
	d.login(w)
}

// login checks that somebody may log in, and what they may do then.
func (d *decoder) login(w *Web) {
	if !w.Login.Token && !w.Login.Kubernetes && w.Login.OIDC.Issuer == "" {
		d.bad("web.login", "nobody could log in: switch on token or kubernetes, or name an issuer")
	}
	d.oidc(&w.Login.OIDC)
	if w.Login.Kubernetes && len(w.Login.Audiences) == 0 {
		d.bad("web.login.audiences", "want one or more: a token for the API server itself is not to be given to others")
	}
	d.paths("web.login.audiences", w.Login.Audiences)
	d.oneOf("web.authorization", w.Authorization, "kubernetes", "roles")
	if len(w.Roles) > 0 && w.Authorization != "roles" {
		d.bad("web.roles", "they count with authorization: roles alone")
	}
	for i, grant := range w.Roles {
		key := index("web.roles", i)
		d.oneOf(key+".role", grant.Role, "viewer", "responder", "admin")
		if len(grant.Users)+len(grant.Groups) == 0 {
			d.bad(key, "give users, groups or both")
		}
		d.paths(key+".users", grant.Users)
		d.paths(key+".groups", grant.Groups)
	}
}

// oidcCallback is where the issuer sends browsers back to.
const oidcCallback = "/login/oidc/callback"

func (d *decoder) oidc(o *OIDC) {
	const key = "web.login.oidc"
	if o.Issuer == "" {
		if d.lines[key] != 0 {
			d.bad(key, "issuer is missing")
		}
		return
	}
	d.required(key+".clientID", o.ClientID)
	if u, err := url.Parse(o.Issuer); err != nil || !secureURL(u) || u.RawQuery != "" {
		d.bad(key+".issuer", "want https://host, with a path if it has one, have %q", clip(o.Issuer))
	}
	if u, err := url.Parse(o.RedirectURL); err != nil || !secureURL(u) || u.Path != oidcCallback || u.RawQuery != "" {
		d.bad(key+".redirectURL", "want https://host%s, have %q", oidcCallback, clip(o.RedirectURL))
	}
	d.required(key+".usernameClaim", o.UsernameClaim)
	d.paths(key+".scopes", o.Scopes)
}

// secureURL reports whether a URL is one of HTTPS, or of this machine.
func secureURL(u *url.URL) bool {
	return u.Hostname() != "" && u.User == nil && u.Fragment == "" && (u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname()))
}

func (d *decoder) falco(c *Config) {
	f := &c.Falco
	if f.Listen == "" {
		if *f != (Falco{}) {
			d.bad("falco", "listen is missing: say where alerts are taken")
		}
		return
	}
	host, ok := d.address("falco.listen", f.Listen)
	switch tls := f.CertFile != ""; {
	case tls && f.KeyFile == "":
		d.bad("falco.certFile", "falco.keyFile is missing: give both")
	case !tls && f.KeyFile != "":
		d.bad("falco.keyFile", "falco.certFile is missing: give both")
	case !tls && f.ClientCAFile != "":
		d.bad("falco.clientCAFile", "without TLS nobody shows a certificate: set falco.certFile and falco.keyFile")
	case ok && !tls && !loopback(host):
		d.bad("falco.listen", "%s is not a loopback address: without TLS the token could be read on the way: set falco.certFile and falco.keyFile", f.Listen)
	}
	if f.TokenFile == "" && f.ClientCAFile == "" {
		f.TokenFile = filepath.Join(c.DataDir, "falco-token")
	}
}

func (d *decoder) webhook(c *Config) {
	w := &c.Webhook
	host, ok := d.address("webhook.listen", w.Listen)
	byService := w.Service.Name != "" || w.Service.Namespace != ""
	switch {
	case byService && w.URL != "":
		d.bad("webhook.url", "webhook.service is set too: give one of them")
	case byService:
		d.dnsLabel("webhook.service.namespace", w.Service.Namespace)
		d.dnsLabel("webhook.service.name", w.Service.Name)
		if w.Service.Port < 1 || w.Service.Port > 65535 {
			d.bad("webhook.service.port", "want 1 to 65535, have %d", w.Service.Port)
		}
	case w.URL != "":
		d.webhookURL(w.URL)
	case !ok: // reported above
	case host == "" || unspecified(host):
		d.bad("webhook.listen", "%s does not say how the API server reaches it: set webhook.url or webhook.service", w.Listen)
	default:
		w.URL = "https://" + w.Listen
	}
	d.webhookLife(w)
}

// webhookLife checks how the listener ends, who is trusted and who calls.
func (d *decoder) webhookLife(w *Webhook) {
	if d.lines["webhook.drain"] == 0 && w.Service.Name != "" {
		w.Drain = 5 * time.Second
	}
	if w.Drain < 0 || w.Drain > time.Minute {
		d.bad("webhook.drain", "want 0s to 1m, have %s", w.Drain)
	}
	if w.AuthoritySecret != "" {
		d.dnsLabel("webhook.authoritySecret", w.AuthoritySecret)
	}
	switch {
	case w.ClientCAFile != "" && len(w.ClientNames) == 0:
		d.bad("webhook.clientCAFile", "webhook.clientNames is missing: say which of its clients is the API server")
	case w.ClientCAFile == "" && len(w.ClientNames) > 0:
		d.bad("webhook.clientNames", "webhook.clientCAFile is missing: give both")
	}
	d.paths("webhook.clientNames", w.ClientNames)
}

// webhookURL checks what the API server demands of a webhook's URL.
func (d *decoder) webhookURL(raw string) {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Scheme != "https" || u.Hostname() == "":
		d.bad("webhook.url", "want https://host:port, have %q", clip(raw))
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		d.bad("webhook.url", "want https://host:port without user, path, query or fragment")
	}
}

func (d *decoder) admission(a *Admission) {
	d.oneOf("admission.failurePolicy", a.FailurePolicy, "Ignore", "Fail")
	for i, resource := range a.FailClosed {
		if !groupResource.MatchString(resource) {
			d.bad(index("admission.failClosed", i), "want a resource and its group, for example pods or deployments.apps, have %q", clip(resource))
		}
	}
	if a.Timeout < time.Second || a.Timeout > 30*time.Second || a.Timeout%time.Second != 0 {
		d.bad("admission.timeout", "want 1s to 30s in whole seconds, have %s", a.Timeout)
	}
	for i, ns := range a.ExemptNamespaces {
		d.dnsLabel(index("admission.exemptNamespaces", i), ns)
	}
	d.paths("admission.policies", a.Policies)
	d.externalData(&a.ExternalData)
}

func (d *decoder) externalData(e *ExternalData) {
	switch {
	case e.CertFile != "" && e.KeyFile == "":
		d.bad("admission.externalData.certFile", "admission.externalData.keyFile is missing: give both")
	case e.CertFile == "" && e.KeyFile != "":
		d.bad("admission.externalData.keyFile", "admission.externalData.certFile is missing: give both")
	}
	if e.CacheTTL < 0 || e.CacheTTL > 24*time.Hour {
		d.bad("admission.externalData.cacheTTL", "want 0s to 24h, have %s", e.CacheTTL)
	}
}

func (d *decoder) detection(c *Detection) {
	d.oneOf("detection.match", c.Match, "first", "all")
	d.oneOf("detection.priority", c.Priority, "emergency", "alert", "critical", "error", "warning", "notice", "informational", "debug")
	d.rules(c)
	d.oneOf("detection.compat", c.Compat, "falco", "fixed")
	d.paths("detection.auditFiles", c.AuditFiles)
	for i, file := range c.AuditFiles {
		if !filepath.IsAbs(file) && strings.TrimSpace(file) != "" {
			d.bad(index("detection.auditFiles", i), "want the whole path, have %q", clip(file))
		}
		if slices.Contains(c.AuditFiles[:i], file) {
			d.bad(index("detection.auditFiles", i), "%q is there twice", clip(file))
		}
	}
	if h := c.Heartbeat; h != 0 && (h < time.Second || h > time.Hour) {
		d.bad("detection.heartbeat", "want 1s to 1h, or 0s, have %s", h)
	}
	d.paths("detection.ownerKeys", c.OwnerKeys)
}

func (d *decoder) registries(r *Registries) {
	seen := map[string]bool{}
	for i, a := range r.Authorities {
		key := index("registries.authorities", i)
		switch {
		case !registryHost.MatchString(a.Host):
			d.bad(key+".host", "want a host, with its port unless that is 443, have %q", clip(a.Host))
		case seen[a.Host]:
			d.bad(key+".host", "%s is named twice", a.Host)
		}
		seen[a.Host] = true
		d.required(key+".caFile", a.CAFile)
	}
}

// bad reports an error at the line of a key, or of the nearest section above
// it that the file has.
func (d *decoder) bad(key, format string, args ...any) {
	at := key
	for d.lines[at] == 0 && strings.Contains(at, ".") {
		at = at[:strings.LastIndex(at, ".")]
	}
	d.errorf(max(d.lines[at], 1), key+": "+format, args...)
}

func (d *decoder) required(key, value string) {
	if strings.TrimSpace(value) == "" || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' }) {
		d.bad(key, "want text, have %q", clip(value))
	}
}

func (d *decoder) paths(key string, list []string) {
	for i, p := range list {
		d.required(index(key, i), p)
	}
}

func (d *decoder) oneOf(key, value string, known ...string) {
	if !slices.Contains(known, value) {
		d.bad(key, "unknown value %q%s", clip(value), didYouMean(value, known))
	}
}

func (d *decoder) atLeast(key string, value, least time.Duration) {
	if value < least {
		d.bad(key, "want %s or more, have %s", least, value)
	}
}

var dnsLabel = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

var groupResource = regexp.MustCompile(`^[a-z]+(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

var registryHost = regexp.MustCompile(`^([a-z0-9][-.a-z0-9]*|\[[0-9a-f:.]+\])(:[0-9]{1,5})?$`)

func (d *decoder) dnsLabel(key, value string) {
	if !dnsLabel.MatchString(value) {
		d.bad(key, "want a Kubernetes name (lower-case letters, digits and dashes), have %q", clip(value))
	}
}

// address checks host:port and returns the host.
func (d *decoder) address(key, value string) (host string, ok bool) {
	host, port, err := net.SplitHostPort(value)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		d.bad(key, "want host:port, for example 127.0.0.1:8080, have %q", clip(value))
		return "", false
	}
	return host, true
}

func index(key string, i int) string { return key + "[" + strconv.Itoa(i) + "]" }

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func unspecified(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsUnspecified()
}
