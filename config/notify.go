package config

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Notify configures who is told of alerts and incidents.
type Notify struct {
	// URL is where people reach the pages, for links in messages:
	// https://guardian.example. Without it messages have no links.
	URL string `yaml:"url"`
	// Fields are added to the output fields of every message: as they are, or made
	// from its other fields by a Go template, such as {{.Field "k8s.ns.name"}}.
	Fields map[string]Text `yaml:"fields"`
	// Tags are added to the tags of every message.
	Tags         []string      `yaml:"tags"`
	Destinations []Destination `yaml:"destinations"`
	// Routes say what goes where; all that match count, up to one that stops.
	// Without any every destination gets the incidents that page.
	Routes []Route `yaml:"routes"`
}

// A Destination is where messages go. What is not given has the default that
// the comment names.
type Destination struct {
	// Name is for routes, metrics and people.
	Name string `yaml:"name"`
	// Type is webhook, slack or another one that docs/notify.md lists.
	Type Text `yaml:"type"`
	// Config is for this type.
	Config Section `yaml:"config"`
	// Priority is the least urgent one that the destination gets; debug.
	Priority string `yaml:"priority"`
	// Timeout is for one attempt; 30s.
	Timeout time.Duration `yaml:"timeout"`
	// MinBackoff and MaxBackoff bound the time between attempts, which doubles
	// each time; 1s and 5m.
	MinBackoff time.Duration `yaml:"minBackoff"`
	MaxBackoff time.Duration `yaml:"maxBackoff"`
	// Limit is how many messages the destination gets within LimitPer, 1m. What is
	// over it is told of by a summary. 0 means no limit.
	Limit    int           `yaml:"limit"`
	LimitPer time.Duration `yaml:"limitPer"`
	// SendResolved says whether the destination is told what becomes of incidents
	// that it was told of; nil: as it is usual for its type.
	SendResolved *bool `yaml:"sendResolved"`
	// MaxMessages and MaxAge bound the queue: what is beyond them goes to the dead
	// letters, the oldest first; 10000 and 24h.
	MaxMessages int           `yaml:"maxMessages"`
	MaxAge      time.Duration `yaml:"maxAge"`
}

// A Route says what goes to destinations.
type Route struct {
	To []string `yaml:"to"`
	// Of is incidents, which are told of once they page, or alerts, which are told
	// of unless they are part of an incident that paged; incidents if not given.
	Of string `yaml:"of"`
	// Match has conditions such as rule=~"Secret.*", k8s.ns.name!="kube-system" or
	// tags="k8s": all must hold. See docs/notify.md.
	Match []Text `yaml:"match"`
	// Priority is the least urgent one; debug.
	Priority string `yaml:"priority"`
	// GroupBy are fields in which alerts are equal that become one message: rule
	// and workload, if none are given.
	GroupBy []string `yaml:"groupBy"`
	// GroupWait is how long the first alert of a group waits for others, and
	// GroupWindow how long until the next message of the same group; 5s and 10m.
	GroupWait   time.Duration `yaml:"groupWait"`
	GroupWindow time.Duration `yaml:"groupWindow"`
	// Stop ends the search: later routes do not get what matches this one.
	Stop bool `yaml:"stop"`
}

// Bounds of deliveries.
const (
	maxDestinations = 100
	maxRoutes       = 1000
)

var destinationName = regexp.MustCompile(`^[a-zA-Z0-9]([-_.a-zA-Z0-9]{0,61}[a-zA-Z0-9])?$`)

var priorities = []string{"emergency", "alert", "critical", "error", "warning", "notice", "informational", "debug"}

func (d *decoder) notify(c *Notify) {
	if u, err := url.Parse(c.URL); c.URL != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "") {
		d.bad("notify.url", "want the URL of the pages, such as https://guardian.example, have %q", clip(c.URL))
	}
	c.URL = strings.TrimRight(c.URL, "/")
	d.paths("notify.tags", c.Tags)
	if len(c.Destinations) > maxDestinations {
		d.bad("notify.destinations", "%d destinations, at most %d", len(c.Destinations), maxDestinations)
	}
	if len(c.Routes) > maxRoutes {
		d.bad("notify.routes", "%d routes, at most %d", len(c.Routes), maxRoutes)
	}
	var names []string
	for i := range c.Destinations {
		key, one := index("notify.destinations", i), &c.Destinations[i]
		if !destinationName.MatchString(one.Name) {
			d.bad(key+".name", "want up to 63 letters, digits, dashes, dots and underscores, have %q", clip(one.Name))
		}
		if slices.Contains(names, one.Name) {
			d.bad(key+".name", "%q is there twice", clip(one.Name))
		}
		names = append(names, one.Name)
		d.required(key+".type", one.Type.Text)
		d.destination(key, one)
	}
	for i := range c.Routes {
		d.route(index("notify.routes", i), &c.Routes[i], names)
	}
}

// given reports whether the file has a key.
func (d *decoder) given(key string) bool { return d.lines[key] != 0 }

// between gives a key that is not there its default, and checks one that is.
func (d *decoder) between(key string, value *time.Duration, usual, least, most time.Duration) {
	if !d.given(key) {
		*value = usual
	}
	if *value < least || *value > most {
		d.bad(key, "want %s to %s, have %s", least, most, *value)
	}
}

func (d *decoder) destination(key string, c *Destination) {
	d.priority(key+".priority", &c.Priority)
	d.between(key+".timeout", &c.Timeout, 30*time.Second, 100*time.Millisecond, 5*time.Minute)
	d.between(key+".minBackoff", &c.MinBackoff, time.Second, 10*time.Millisecond, time.Hour)
	d.between(key+".maxBackoff", &c.MaxBackoff, max(5*time.Minute, c.MinBackoff), c.MinBackoff, 24*time.Hour)
	d.between(key+".limitPer", &c.LimitPer, time.Minute, time.Second, 24*time.Hour)
	d.between(key+".maxAge", &c.MaxAge, 24*time.Hour, time.Minute, 30*24*time.Hour)
	if c.Limit < 0 || c.Limit > 100_000 {
		d.bad(key+".limit", "want 0 to 100000, have %d", c.Limit)
	}
	if !d.given(key + ".maxMessages") {
		c.MaxMessages = 10_000
	}
	if c.MaxMessages < 1 || c.MaxMessages > 1_000_000 {
		d.bad(key+".maxMessages", "want 1 to 1000000, have %d", c.MaxMessages)
	}
}

func (d *decoder) priority(key string, value *string) {
	if !d.given(key) {
		*value = "debug"
	}
	d.oneOf(key, *value, priorities...)
}

func (d *decoder) route(key string, c *Route, names []string) {
	if len(c.To) == 0 {
		d.bad(key+".to", "want the names of destinations")
	}
	for i, name := range c.To {
		if !slices.Contains(names, name) {
			d.bad(index(key+".to", i), "there is no destination %q%s", clip(name), didYouMean(name, names))
		}
	}
	if !d.given(key + ".of") {
		c.Of = "incidents"
	}
	d.oneOf(key+".of", c.Of, "incidents", "alerts")
	d.priority(key+".priority", &c.Priority)
	d.paths(key+".groupBy", c.GroupBy)
	if c.Of == "incidents" {
		for _, name := range []string{"groupBy", "groupWait", "groupWindow"} {
			if d.given(key + "." + name) {
				d.bad(key+"."+name, "an incident is a group already: this is for routes of alerts")
			}
		}
	}
	d.between(key+".groupWait", &c.GroupWait, 5*time.Second, 0, time.Hour)
	d.between(key+".groupWindow", &c.GroupWindow, max(10*time.Minute, c.GroupWait), c.GroupWait, 7*24*time.Hour)
	if !d.given(key + ".groupBy") {
		c.GroupBy = []string{"rule", "workload"}
	}
}
