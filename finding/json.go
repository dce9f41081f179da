package finding

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
)

// UnmarshalJSON reads what MarshalJSON wrote. Whatever is missing, no pointer
// of the finding is nil.
func (f *Finding) UnmarshalJSON(text []byte) error {
	type plain Finding // without this method
	*f = Finding{Definition: &Definition{}, Detail: &Detail{}}
	if err := json.Unmarshal(text, (*plain)(f)); err != nil {
		return err
	}
	if f.Subject == nil {
		f.Subject = &Subject{}
	}
	return nil
}

// MarshalJSON writes the finding as one flat object.
func (f Finding) MarshalJSON() ([]byte, error) { return new(Encoder).Append(nil, &f) }

// An Encoder writes many findings as JSON, without reflection. It remembers what
// the last finding shares with the next. The zero value is ready for use.
type Encoder struct {
	of         *Definition
	head, maps []byte // of the definition: what begins a finding, and its frameworks
	detail     *Detail
	observed   []byte
}

// Append appends what encoding/json makes of a finding, with the characters of
// HTML as they are. The error is for a time or a gain that JSON does not have.
func (e *Encoder) Append(out []byte, f *Finding) ([]byte, error) {
	if err := e.prepare(f); err != nil {
		return out, err
	}
	out = append(out, e.head...)
	out = appendText(append(out, `,"status":`...), string(f.Status))
	out = appendField(out, `,"reason":`, f.Reason)
	out = appendSubject(append(out, `,"subject":`...), f.Subject)
	out = appendField(out, `,"message":`, f.Message)
	out = appendField(out, `,"evidence":`, f.Evidence)
	out = appendField(out, `,"evidenceKind":`, f.EvidenceKind)
	out = appendField(out, `,"fix":`, f.Fix)
	out = append(out, e.maps...)
	out = appendField(out, `,"exposure":`, string(f.Exposure))
	if f.Gain != 0 {
		var err error
		if out, err = appendNumber(append(out, `,"gain":`...), f.Gain); err != nil {
			return out, err
		}
	}
	return append(out, e.observed...), nil
}

// prepare makes the text of what findings share, unless the last had the same.
func (e *Encoder) prepare(f *Finding) error {
	if d := f.Definition; d != e.of {
		head := appendText([]byte(`{"control":`), d.Control)
		head = appendText(append(head, `,"title":`...), d.Title)
		head = appendText(append(head, `,"level":`...), string(d.Level))
		e.head = appendText(append(head, `,"severity":`...), string(d.Severity))
		e.maps = nil
		if len(d.Frameworks) > 0 {
			e.maps = append([]byte(`,"frameworks":`), encoded(d.Frameworks)...)
		}
		e.of = d
	}
	if f.Detail != e.detail {
		at, err := f.ObservedAt.MarshalJSON()
		if err != nil {
			return err
		}
		e.observed = append(append(e.observed[:0], `,"observedAt":`...), at...)
		if f.Hides != 0 {
			e.observed = strconv.AppendInt(append(e.observed, `,"hides":`...), int64(f.Hides), 10)
		}
		if len(f.Grantees) > 0 {
			e.observed = append(append(e.observed, `,"grantees":`...), encoded(f.Grantees)...)
		}
		e.observed = append(e.observed, '}')
		e.detail = f.Detail
	}
	return nil
}

func appendSubject(out []byte, s *Subject) []byte {
	start := len(out)
	out = appendField(out, `,"apiVersion":`, s.APIVersion)
	out = appendText(append(out, `,"kind":`...), s.Kind)
	out = appendField(out, `,"namespace":`, s.Namespace)
	out = appendField(out, `,"name":`, s.Name)
	out = appendField(out, `,"container":`, s.Container)
	out = appendField(out, `,"source":`, s.Source)
	out = appendField(out, `,"renderedFrom":`, s.RenderedFrom)
	out[start] = '{'
	return append(out, '}')
}

// appendField leaves out a field that is empty.
func appendField(out []byte, name, value string) []byte {
	if value == "" {
		return out
	}
	return appendText(append(out, name...), value)
}

// appendText appends a string: as it is if it is plain, as most are.
func appendText(out []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return append(out, encoded(s)...)
		}
	}
	return append(append(append(out, '"'), s...), '"')
}

// appendNumber writes the shortest decimal, without an exponent where that is
// short too.
func appendNumber(out []byte, n float64) ([]byte, error) {
	if size := math.Abs(n); size >= 1e-6 && size < 1e21 {
		return strconv.AppendFloat(out, n, 'f', -1, 64), nil
	}
	text, err := json.Marshal(n)
	return append(out, text...), err
}

// encoded returns the JSON of a text, of frameworks or of grantees, which always
// have one.
func encoded(v any) []byte {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}
