package k8saudit

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// An envelope is the form in which a cloud hands on what its API servers log.
type envelope uint8

const (
	noEnvelope   envelope = iota
	azureRecords          // {"records": […]} of an Event Hub
	azureRecord           // a diagnostic record: {"properties": {"log": "…"}}
	awsLogEvents          // {"logEvents": […]} of a CloudWatch subscription
	awsEvents             // {"events": […]} of filter-log-events
	awsMessage            // a log event: {"message": "…"}
	googleEntry           // a LogEntry: {"protoPayload": {…}}
	googlePush            // a Pub/Sub delivery: {"message": {"data": "…"}}
)

// readForeign notes a member that an audit event does not have, and that an
// envelope is known by.
func (r *record) readForeign(name string, v span) {
	is := noEnvelope
	switch name {
	case "records":
		is = azureRecords
	case "properties":
		is = azureRecord
	case "logEvents":
		is = awsLogEvents
	case "events":
		is = awsEvents
	case "message":
		if is = awsMessage; v.form == container {
			is = googlePush
		}
	case "protoPayload":
		is = googleEntry
	}
	if is != noEnvelope {
		r.wrapper, r.wrapped = is, v
	}
}

// maxNested bounds how many envelopes are around an event: a delivery, the
// records in it, an array of events in one.
const maxNested = 4

var errNested = fmt.Errorf("more than %d envelopes around an event", maxNested)

// unwrap parses what is in an envelope. The record is that of the object which
// turned out to be one.
func (p *parser) unwrap(r *record) error {
	if p.nested == maxNested {
		return errNested
	}
	p.nested++
	defer func() { p.nested-- }()
	raw, whole, wrapper := r.doc[r.wrapped.start:r.wrapped.end], r.doc[r.at.start:r.at.end], r.wrapper
	switch wrapper {
	case azureRecords, awsLogEvents, awsEvents:
		if wrapper == awsLogEvents && !auditStream(whole) {
			return errForeign
		}
		if r.wrapped.form != container || raw[0] != '[' {
			return errNoEvent
		}
		in := &reader{b: raw}
		p.items(in)
		return in.end()
	case azureRecord:
		return p.azure(whole)
	case awsMessage:
		return p.logLine(appendUnquoted(nil, raw))
	case googlePush:
		return p.pubsub(raw)
	}
	made, err := reconstruct(whole)
	if err != nil {
		return fmt.Errorf("LogEntry: %w", err)
	}
	return p.document(made)
}

// auditStream reports whether a delivery of CloudWatch is of the audit log; the
// log group has those of other components too.
func auditStream(delivery []byte) bool {
	var d struct{ LogStream string }
	return json.Unmarshal(delivery, &d) != nil || d.LogStream == "" || strings.HasPrefix(d.LogStream, "kube-apiserver-audit")
}

// azure parses a diagnostic record. Those of other categories hold lines of
// text.
func (p *parser) azure(record []byte) error {
	var r struct {
		Category   string
		Properties struct{ Log json.RawMessage }
	}
	if err := json.Unmarshal(record, &r); err != nil {
		return fmt.Errorf("diagnostic record: %w", err)
	}
	if r.Category != "" && !strings.HasPrefix(r.Category, "kube-audit") {
		return errForeign
	}
	log := []byte(r.Properties.Log)
	if bytes.HasPrefix(log, []byte(`"`)) {
		log = appendUnquoted(nil, log[1:len(log)-1])
	}
	if len(log) == 0 {
		return errors.New("diagnostic record without properties.log")
	}
	return p.logLine(log)
}

var (
	auditIDPattern = regexp.MustCompile(`"auditID":"([^"\\]{1,100})"`)
	cutMark        = []byte("[Truncated...]")
)

// logLine parses the audit event in a line of a log, which CloudWatch cuts at a
// length that events with bodies exceed.
func (p *parser) logLine(line []byte) error {
	line = bytes.TrimSpace(line)
	if bytes.HasSuffix(line, cutMark) {
		id := "of unknown id"
		if m := auditIDPattern.FindSubmatch(line); m != nil {
			id = string(m[1])
		}
		return &fault{causeCut, fmt.Sprintf("event %.100s was cut by the log service and cannot be read", id)}
	}
	if len(line) == 0 || line[0] != '{' {
		return errForeign
	}
	return p.document(line)
}

// line parses a line of a file, which may come from an export of CloudWatch.
func (p *parser) line(line []byte) error {
	line = exported(line)
	if bytes.HasSuffix(line, cutMark) {
		return p.logLine(line)
	}
	return p.document(line)
}

// exported removes the time that CloudWatch puts before each line of a log that
// it exports to a file.
func exported(line []byte) []byte {
	at, rest, ok := bytes.Cut(line, []byte(" "))
	if ok && len(at) >= 20 && len(at) <= 35 && at[0] == '2' && at[4] == '-' && at[10] == 'T' && at[len(at)-1] == 'Z' {
		return rest
	}
	return line
}

// pubsub parses a delivery of Pub/Sub, whose data is a LogEntry.
func (p *parser) pubsub(message []byte) error {
	var m struct{ Data string }
	if err := json.Unmarshal(message, &m); err != nil || m.Data == "" {
		return errors.New("Pub/Sub message without data")
	}
	data, err := base64.StdEncoding.DecodeString(m.Data)
	if err != nil {
		return fmt.Errorf("data of Pub/Sub message: %w", err)
	}
	return p.document(data)
}
