package admission

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubeguardian/kubeguardian/finding"
)

// What a response may hold. Of all warnings of a request the API server passes
// on 4096 characters, and cuts those over 256 when they are more; what it drops
// nobody hears of. Other plugins warn too, hence the rest.
const (
	maxWarningBytes     = 256
	maxWarningsBytes    = 3 << 10
	maxMessageBytes     = 8 << 10
	maxAnnotationsBytes = 32 << 10
	maxCauses           = 20
)

// Keys of audit annotations that are no name of a policy. The API server puts
// the name of the webhook in front of all keys.
const (
	unjudgedKey   = "unjudged"
	breakGlassKey = "break-glass"
	omittedKey    = "omitted"
)

// fieldDetail is the audit annotation of a policy that names the path of the
// field that is wrong.
const fieldDetail = "field"

// respond returns the response to a decision. lack says why there was no
// verdict; nil means that there was one.
func respond(d finding.Decision, lack *unjudgedError) *admissionv1.AdmissionResponse {
	response := &admissionv1.AdmissionResponse{
		Allowed:          d.Allowed,
		Warnings:         warnings(messages(d.Violations, "warn")),
		AuditAnnotations: auditAnnotations(d.Violations),
	}
	if lack != nil {
		response.AuditAnnotations = annotate(response.AuditAnnotations, unjudgedKey, string(lack.cause))
	}
	if d.Allowed {
		return response
	}
	response.Result = &metav1.Status{
		Status:  metav1.StatusFailure,
		Code:    http.StatusForbidden,
		Reason:  metav1.StatusReasonForbidden,
		Message: denial(messages(d.Violations, "deny")),
		Details: details(d),
	}
	if lack != nil && !slices.ContainsFunc(d.Violations, func(v finding.Violation) bool { return denies(v) && v.Policy != ConfigurationName }) {
		response.Result.Code, response.Result.Reason = http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable
	}
	return response
}

// messages returns the violations with this enforcement as "[policy] message",
// equal ones of several bindings once. The field is named where it is known.
func messages(violations []finding.Violation, enforcement string) []string {
	var out []string
	for _, v := range violations {
		if v.Enforcement != enforcement {
			continue
		}
		text := fmt.Sprintf("[%s] ", v.Policy)
		if field := v.Details[fieldDetail]; field != "" && !strings.Contains(v.Message, field) {
			text += field + ": "
		}
		text += strings.Join(strings.Fields(v.Message), " ")
		if !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	return out
}

// denial joins messages, one on a line, and says how many it leaves out.
func denial(messages []string) string {
	shown := fitting(messages, maxMessageBytes)
	text := strings.Join(messages[:shown], "\n")
	if left := len(messages) - shown; left > 0 {
		return text + fmt.Sprintf("\nand %d more of %d reasons", left, len(messages))
	}
	return cut(text, maxMessageBytes)
}

// warnings cuts messages to what the API server passes on; the last one says how
// many are left out.
func warnings(messages []string) []string {
	for i, text := range messages {
		messages[i] = cut(text, maxWarningBytes)
	}
	shown := fitting(messages, maxWarningsBytes)
	if left := len(messages) - shown; left > 0 {
		return append(messages[:shown:shown], fmt.Sprintf("[%s] and %d more of %d warnings", ConfigurationName, left, len(messages)))
	}
	return messages
}

// fitting returns how many of the messages have n bytes together, line ends
// included. The first always fits, if cut.
func fitting(messages []string, n int) int {
	for i, text := range messages {
		if n -= len(text) + 1; n < 0 {
			return max(i, min(1, len(messages)))
		}
	}
	return len(messages)
}

// noted reports whether a violation is only written down; Gatekeeper calls that
// a dry run.
func noted(v finding.Violation) bool { return v.Enforcement == "audit" || v.Enforcement == "dryrun" }

// auditAnnotations returns the violations that are only audited, by policy.
func auditAnnotations(violations []finding.Violation) map[string]string {
	var out map[string]string
	size, omitted := 0, 0
	for _, v := range violations {
		if !noted(v) || strings.Contains(out[v.Policy], v.Message) {
			continue
		}
		text := v.Message
		if before := out[v.Policy]; before != "" {
			text = before + "; " + text
		}
		text = cut(text, maxMessageBytes)
		if size += len(text) - len(out[v.Policy]); size > maxAnnotationsBytes {
			omitted++
			continue
		}
		out = annotate(out, v.Policy, text)
	}
	if omitted > 0 {
		out = annotate(out, omittedKey, fmt.Sprintf("%d more violations", omitted))
	}
	return out
}

func annotate(annotations map[string]string, key, value string) map[string]string {
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[key] = value
	return annotations
}

// details names the object and, for programs, the fields that are wrong.
func details(d finding.Decision) *metav1.StatusDetails {
	out := &metav1.StatusDetails{Name: d.Subject.Name, Kind: d.Subject.Kind}
	out.Group, _, _ = strings.Cut(d.Subject.APIVersion, "/")
	if !strings.Contains(d.Subject.APIVersion, "/") { // the core group has no name
		out.Group = ""
	}
	for _, v := range d.Violations {
		if denies(v) && len(out.Causes) < maxCauses {
			out.Causes = append(out.Causes, metav1.StatusCause{
				Type: metav1.CauseType(v.Policy), Message: cut(v.Message, maxWarningBytes), Field: v.Details[fieldDetail],
			})
		}
	}
	return out
}

// cut shortens text to at most n bytes of whole characters.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	const ellipsis = "..."
	end := n - len(ellipsis)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + ellipsis
}
