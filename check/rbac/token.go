package rbac

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/finding"
)

const (
	tokenType       = "kubernetes.io/service-account-token"
	tokenAccountKey = "kubernetes.io/service-account.name"
)

// TokenSecrets says for each Secret whether it asks for a token that never
// expires. Secrets of a live cluster are not read.
func (a *Access) TokenSecrets() []finding.Verdict {
	var out []finding.Verdict
	for _, o := range a.inv.Kind("", "Secret") {
		f := finding.Verdict{Status: finding.Pass, Subject: o.Subject()}
		if kind, _, _ := unstructured.NestedString(o.Object, "type"); kind == tokenType {
			f.Status = finding.Fail
			f.Message = "holds a token of a service account that never expires"
			f.Evidence = "type " + tokenType + ", account " + o.GetAnnotations()[tokenAccountKey]
		}
		out = append(out, f)
	}
	return out
}

// tokens returns the accounts for which a Secret holds a token.
func (a *Access) tokens() []account {
	var out []account
	for _, o := range a.inv.Kind("", "Secret") {
		if kind, _, _ := unstructured.NestedString(o.Object, "type"); kind == tokenType {
			out = append(out, account{a.inv.NamespaceOf(o), o.GetAnnotations()[tokenAccountKey]})
		}
	}
	return out
}
