// Package falco takes alerts from Falco and Falcosidekick over HTTP, so that an
// existing Falco reports to KubeGuardian as it did to Falcosidekick.
package falco

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/event"
)

// Bounds of one alert.
const (
	maxName   = 512 // bytes of a rule, a host name, a source or a tag
	maxTags   = 100
	maxFields = 1000
	maxDepth  = 8 // of values in output fields
)

// Parse reads the alerts of a request: one object with the keys of Falco's JSON
// output or of Falcosidekick's payload, several one after the other, or arrays
// of them. An alert has an id that follows from what it says, so that one which
// comes again has the same. Other keys are ignored.
//
// The error says which alert is wrong and why, in words for who sent it.
func Parse(body []byte) ([]alert.Alert, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	var alerts []alert.Alert
	for {
		var value json.RawMessage
		switch err := d.Decode(&value); {
		case errors.Is(err, io.EOF) && len(alerts) > 0:
			return alerts, nil
		case errors.Is(err, io.EOF):
			return nil, errors.New("body is empty: want an alert as JSON")
		case err != nil:
			return nil, errors.New("body is not JSON: set json_output to true in falco.yaml")
		}
		list := []json.RawMessage{value}
		if value[0] == '[' {
			if err := json.Unmarshal(value, &list); err != nil {
				return nil, fmt.Errorf("read array of alerts: %w", err)
			}
		}
		for _, text := range list {
			if len(alerts) == maxAlerts {
				return nil, fmt.Errorf("more than %d alerts in one request", maxAlerts)
			}
			a, err := parseAlert(text)
			if err != nil {
				return nil, fmt.Errorf("alert %d: %w", len(alerts)+1, err)
			}
			alerts = append(alerts, a)
		}
	}
}

// payload is what is read of an alert, by the keys of Falco.
type payload struct {
	rule, priority, time, output, message, source, hostname string

	tags   []string
	fields map[string]any
}

func parseAlert(text []byte) (alert.Alert, error) {
	p, err := readPayload(text)
	if err != nil {
		return alert.Alert{}, err
	}
	a := alert.Alert{
		Rule: p.rule, Source: p.source, Output: printable(p.output), OutputFields: p.fields,
		Hostname: p.hostname, Tags: p.tags, Tactics: alert.Tactics(p.tags),
	}
	if a.Priority, err = alert.ParsePriority(p.priority); err != nil {
		return a, err
	}
	if a.Time, err = time.Parse(time.RFC3339Nano, p.time); err != nil {
		return a, fmt.Errorf("time is not of RFC 3339: %q", clip(p.time))
	}
	if year := a.Time.Year(); year < 1970 || year > 2200 {
		return a, fmt.Errorf("time is not of our age: %q", clip(p.time))
	}
	a.Time = a.Time.UTC()
	if a.Output == "" {
		a.Output = printable(p.message)
	}
	if a.Output == "" {
		a.Output = a.Rule
	}
	if a.ID, err = identity(&a); err != nil {
		return a, err
	}
	describe(&a)
	return a, nil
}

// readPayload reads the keys of one alert. Keys are compared exactly, as Falco
// writes them.
func readPayload(text []byte) (*payload, error) {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(text, &keys); err != nil || keys == nil {
		return nil, errors.New("want a JSON object: set json_output to true in falco.yaml")
	}
	p := &payload{}
	for _, key := range []struct {
		name string
		to   *string
	}{
		{"rule", &p.rule}, {"priority", &p.priority}, {"time", &p.time}, {"output", &p.output},
		{"message", &p.message}, {"source", &p.source}, {"hostname", &p.hostname},
	} {
		if err := decode(keys[key.name], key.to); err != nil {
			return nil, fmt.Errorf("%s is not text", key.name)
		}
	}
	if err := decode(keys["tags"], &p.tags); err != nil {
		return nil, errors.New("tags are not a list of texts")
	}
	if err := decode(keys["output_fields"], &p.fields); err != nil {
		return nil, errors.New("output_fields is not an object")
	}
	if p.source == "" {
		p.source = event.Syscall
	}
	return p, p.check()
}

// decode reads a value, with numbers as they are written. A key that is absent
// or null leaves the zero value.
func decode(text json.RawMessage, to any) error {
	if len(text) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return d.Decode(to)
}

// check holds what is required, as Falcosidekick does, and the bounds.
func (p *payload) check() error {
	for _, key := range []struct{ name, value string }{{"rule", p.rule}, {"priority", p.priority}, {"time", p.time}} {
		if key.value == "" {
			return fmt.Errorf("%s is missing", key.name)
		}
	}
	if len(p.fields) == 0 {
		return errors.New("output_fields are missing: set json_include_output_fields_property to true in falco.yaml")
	}
	for _, key := range []struct{ name, value string }{{"rule", p.rule}, {"source", p.source}, {"hostname", p.hostname}} {
		if err := checkName(key.name, key.value); err != nil {
			return err
		}
	}
	if len(p.tags) > maxTags {
		return fmt.Errorf("%d tags, at most %d", len(p.tags), maxTags)
	}
	for _, tag := range p.tags {
		if err := checkName("tag", tag); err != nil {
			return err
		}
	}
	if len(p.fields) > maxFields {
		return fmt.Errorf("%d output fields, at most %d", len(p.fields), maxFields)
	}
	for name, value := range p.fields {
		if err := checkName("name of an output field", name); err != nil {
			return err
		}
		if depth(value) > maxDepth {
			return fmt.Errorf("output field %q is nested deeper than %d", clip(name), maxDepth)
		}
	}
	for _, name := range []string{fieldNamespace, fieldPod} {
		switch p.fields[name].(type) {
		case nil, string:
		default:
			return fmt.Errorf("output field %q is not text", name)
		}
	}
	return nil
}

// checkName refuses a name that could forge a line of output or fill a page.
func checkName(what, value string) error {
	if len(value) > maxName {
		return fmt.Errorf("%s has %d bytes, at most %d", what, len(value), maxName)
	}
	if strings.ContainsFunc(value, unicode.IsControl) {
		return fmt.Errorf("%s has control characters", what)
	}
	return nil
}

// depth returns how many objects and arrays a value is inside of one another,
// at most one more than the bound.
func depth(value any) int {
	deepest := 0
	switch v := value.(type) {
	case map[string]any:
		for _, item := range v {
			deepest = max(deepest, depth(item)+1)
		}
	case []any:
		for _, item := range v {
			deepest = max(deepest, depth(item)+1)
		}
	}
	return deepest
}

// identity returns the id of an alert: the same for one that comes again, by a
// sender that has got no answer, or by two ways. Falcosidekick's uuid is another
// each time that Falco sends the alert, so it is no part of it.
func identity(a *alert.Alert) (string, error) {
	said, err := json.Marshal([]any{a.Time, a.Hostname, a.Priority, a.Output, a.OutputFields, a.Tags})
	if err != nil {
		return "", fmt.Errorf("encode alert: %w", err)
	}
	return alert.NewID("falco\x00"+a.Source, string(said), a.Rule), nil
}

// printable escapes control characters, so that nothing in an output can forge a
// line or steer a terminal.
func printable(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsControl(r) {
			fmt.Fprintf(&b, `\x%02x`, r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// clip keeps an error at one readable line.
func clip(s string) string {
	const limit = 60
	if r := []rune(s); len(r) > limit {
		return string(r[:limit]) + "…"
	}
	return s
}
