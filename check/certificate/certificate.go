// Package certificate says which certificates have expired or are about to:
// those in the Secrets of files, and what cert-manager reports of its own.
package certificate

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// Due is how long before its end a certificate must have been replaced, or a
// third of its life where that is shorter.
const Due = 14 * 24 * time.Hour

// Bounds of what is parsed.
const (
	maxBytes = 1 << 20
	maxChain = 10
)

// Expiry says for each certificate when it ends.
func Expiry(inv *inventory.Inventory, now time.Time) []finding.Verdict {
	var out []finding.Verdict
	for _, o := range inv.Kind("", "Secret") {
		f := finding.Verdict{Status: finding.NotApplicable, Reason: "no Secret for TLS"}
		if o.Object["type"] == "kubernetes.io/tls" {
			f = inSecret(o, now)
		}
		f.Subject = o.Subject()
		out = append(out, f)
	}
	for _, o := range inv.Kind("cert-manager.io", "Certificate") {
		f := reported(o, now)
		f.Subject = o.Subject()
		out = append(out, f)
	}
	return out
}

func inSecret(o *inventory.Object, now time.Time) finding.Verdict {
	chain, err := parse(o)
	if err != nil {
		return finding.Verdict{Status: finding.Unknown, Reason: err.Error()}
	}
	for _, c := range chain {
		if f := judge(c.NotBefore, c.NotAfter, now); f.Status == finding.Fail {
			return f
		}
	}
	return judge(chain[0].NotBefore, chain[0].NotAfter, now)
}

// parse returns the certificates of a Secret, at least one.
func parse(o *inventory.Object) ([]*x509.Certificate, error) {
	text, _, _ := unstructured.NestedString(o.Object, "stringData", "tls.crt")
	if text == "" {
		encoded, _, _ := unstructured.NestedString(o.Object, "data", "tls.crt")
		data, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return nil, errors.New("tls.crt is not base64")
		}
		text = string(data)
	}
	if len(text) > maxBytes {
		return nil, fmt.Errorf("tls.crt is larger than %d bytes", maxBytes)
	}
	var chain []*x509.Certificate
	for rest := []byte(text); len(chain) < maxChain; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errors.New("tls.crt holds a certificate that cannot be read")
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		return nil, errors.New("tls.crt holds no certificate")
	}
	return chain, nil
}

func judge(from, to, now time.Time) finding.Verdict {
	f := finding.Verdict{Status: finding.Pass, Evidence: "valid until " + to.UTC().Format(time.DateOnly)}
	margin := Due
	if !from.IsZero() && to.After(from) {
		margin = min(Due, to.Sub(from)/3)
	}
	switch left := to.Sub(now); {
	case left <= 0:
		f.Status, f.Message = finding.Fail, "the certificate has expired"
	case left < margin:
		f.Status, f.Message = finding.Fail, fmt.Sprintf("the certificate expires in %d days and was not replaced", int(left.Hours()/24))
	case from.After(now):
		f.Status, f.Message = finding.Fail, "the certificate is not valid yet"
	}
	return f
}

// reported judges what cert-manager says of a Certificate.
func reported(o *inventory.Object, now time.Time) finding.Verdict {
	to, from := moment(o, "notAfter"), moment(o, "notBefore")
	if to.IsZero() {
		return finding.Verdict{Status: finding.Unknown, Reason: "cert-manager has not reported when it ends; scan the cluster: kubeguardian scan --cluster"}
	}
	return judge(from, to, now)
}

func moment(o *inventory.Object, field string) time.Time {
	text, _, _ := unstructured.NestedString(o.Object, "status", field)
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}
	}
	return at
}
