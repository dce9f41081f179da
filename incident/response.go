package incident

import (
	"strings"

	"github.com/kubeguardian/kubeguardian/alert"
)

// A Response is what was done on a node because of an alert.
type Response struct {
	Action  string `json:"action"`           // such as kill
	Outcome string `json:"outcome"`          // such as killed, would-kill, refused
	By      string `json:"by,omitempty"`     // kernel or agent
	Reason  string `json:"reason,omitempty"` // why not
}

// DryRun reports whether it was only said what would be done.
func (r *Response) DryRun() bool { return strings.HasPrefix(r.Outcome, "would-") }

// responseActions are what agents do beside alerts. They note it in the output
// fields enforce.ACTION, .by and .reason.
var responseActions = [...]string{"kill", "block-egress", "deny"}

// responses returns what an alert says was done.
func responses(a *alert.Alert) (out []Response) {
	for _, action := range responseActions {
		field := "enforce." + action
		text := func(name string) string {
			s, _ := a.OutputFields[name].(string)
			return s
		}
		if outcome := text(field); outcome != "" {
			out = append(out, Response{action, outcome, text(field + ".by"), text(field + ".reason")})
		}
	}
	return out
}
