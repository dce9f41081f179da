package config

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

// destinationOfTest is what a reader of a section may ask for.
type destinationOfTest struct {
	KeyFile string `yaml:"keyFile"`
	HTTP    struct {
		Timeout time.Duration     `yaml:"timeout"`
		Headers map[string]string `yaml:"headers"`
	} `yaml:"http"`
}

func TestNotify(t *testing.T) {
	c, err := Load("testdata/notify.good.yaml")
	if err != nil {
		t.Fatal(err)
	}
	n := c.Notify
	if n.URL != "https://guardian.example" || len(n.Destinations) != 2 || len(n.Routes) != 2 || n.Fields["team"].Text != "payments" {
		t.Fatalf("have %+v", n)
	}
	var d destinationOfTest
	if err := n.Destinations[0].Config.Decode(&d); err != nil || d.KeyFile != "/etc/key" || d.HTTP.Timeout != 3*time.Second || d.HTTP.Headers["A"] != "b" {
		t.Errorf("have %+v, %v", d, err)
	}
	defaults := n.Destinations[1]
	if err := defaults.Config.Decode(&d); err != nil {
		t.Errorf("a section that is not there: %v", err)
	}
	defaults.Config, defaults.Type = Section{}, Text{}
	want := Destination{Name: "hook", Priority: "debug", Timeout: 30 * time.Second, MinBackoff: time.Second, MaxBackoff: 5 * time.Minute, LimitPer: time.Minute, MaxMessages: 10_000, MaxAge: 24 * time.Hour, SendResolved: new(bool)}
	if !reflect.DeepEqual(defaults, want) {
		t.Errorf("have %+v\nwant %+v", defaults, want)
	}
	if r := n.Routes[0]; r.Of != "incidents" || r.Priority != "debug" || r.GroupWindow != 10*time.Minute || len(r.GroupBy) != 2 {
		t.Errorf("have %+v", r)
	}
	if given := n.Destinations[0].SendResolved; given != nil {
		t.Errorf("sendResolved is %t where the file does not have it", *given)
	}
	if r := n.Routes[1]; !r.Stop || r.Match[1].String() != "namespace!=kube-system" || r.Match[0].Wrap(errors.New("is odd")).Error() != `testdata/notify.good.yaml:22: notify.routes[1].match[0]: is odd` {
		t.Errorf("have %+v, %v", r, r.Match[0].Wrap(errors.New("is odd")))
	}
}

func TestSection(t *testing.T) {
	for text, want := range map[string]string{
		"{keyfile: a}":                    `f.yaml:4: unknown key "notify.destinations[0].config.keyfile": did you mean "keyFile"?`,
		"{http: {timeout: soon}}":         `f.yaml:4: notify.destinations[0].config.http.timeout: want a duration such as 30s, 10m or 720h, have "soon"`,
		"{http: {headers: {A: 5}}}":       `f.yaml:4: notify.destinations[0].config.http.headers.A: want text: put it in quotes, have "5"`,
		"{http: {headers: {A: b, A: c}}}": `f.yaml:4: key "notify.destinations[0].config.http.headers.A" is there twice`,
		"{http: {headers: [A]}}":          `f.yaml:4: notify.destinations[0].config.http.headers: want keys and values, have a list`,
		"{http: {headers: {? [a] : b}}}":  `f.yaml:4: notify.destinations[0].config.http.headers: want a name in text, have a list`,
	} {
		c, err := Parse("f.yaml", []byte("notify:\n  destinations:\n  - {name: a, type: b,\n     config: "+text+"}"))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		err = c.Notify.Destinations[0].Config.Decode(&destinationOfTest{})
		if err == nil || err.Error() != want {
			t.Errorf("%s:\nhave %v\nwant %s", text, err, want)
		}
		if err := c.Notify.Destinations[0].Config.Wrap(errors.New("no")); !strings.HasPrefix(err.Error(), "f.yaml:4: notify.destinations[0].config: no") {
			t.Errorf("have %v", err)
		}
	}
	if (Section{}).Wrap(errors.New("no")).Error() != "no" || (Text{}).Wrap(nil) != nil {
		t.Error("what is not in a file has no place")
	}
}
