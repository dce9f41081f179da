package externaldata_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/externaldata"
	"github.com/kubeguardian/kubeguardian/policy/externaldata/providertest"
)

func TestLoad(t *testing.T) {
	bundle := providertest.NewAuthority(t).Bundle()
	document := func(version, name, rest string) string {
		return "apiVersion: externaldata.gatekeeper.sh/" + version + "\nkind: Provider\nmetadata:\n  name: " + name + "\nspec:\n  caBundle: " + bundle + "\n" + rest
	}
	good := document("v1beta1", "b", "  url: https://b.example/x\n  timeout: 3\n") + "status: {byPod: []}\n---\n" + document("v1alpha1", "a", "  url: https://a.example:8443\n")
	set, err := externaldata.Load(policy.File{Name: "p.yaml", Data: []byte(good)})
	if err != nil || strings.Join(set.Names(), " ") != "a b" {
		t.Fatalf("providers %v, %v", set, err)
	}
	text := base64.StdEncoding.EncodeToString
	for name, test := range map[string]struct{ text, want string }{
		"plain HTTP":        {document("v1beta1", "a", "  url: http://a.example\n"), "p.yaml:7: spec.url: \"http://a.example\": only https is allowed"},
		"no URL":            {document("v1beta1", "a", ""), "p.yaml:5: spec.url: \"\": only https is allowed"},
		"a user":            {document("v1beta1", "a", "  url: https://me:pw@a.example\n"), "p.yaml:7: spec.url: want https://host:port/path without user"},
		"a broken URL":      {document("v1beta1", "a", "  url: 'https://a b'\n"), "p.yaml:7: spec.url: \"https://a b\": want https"},
		"a negative time":   {document("v1beta1", "a", "  url: https://a.example\n  timeout: -1\n"), "p.yaml:8: spec.timeout: want seconds, have -1"},
		"a time with unit":  {document("v1beta1", "a", "  url: https://a.example\n  timeout: 3s\n"), "p.yaml:8: spec.timeout: want int"},
		"an unknown field":  {document("v1beta1", "a", "  url: https://a.example\n  insecure: true\n"), `p.yaml:8: unknown field "spec.insecure"`},
		"another version":   {document("v1", "a", "  url: https://a.example\n"), `p.yaml:1: apiVersion: version "v1" of Provider is not supported`},
		"another kind":      {"apiVersion: v1\nkind: Pod\n", `p.yaml:2: kind "Pod" of "v1" is not supported: want Provider`},
		"no name":           {document("v1beta1", "''", "  url: https://a.example\n"), "p.yaml:4: metadata.name: a value is required"},
		"twice":             {document("v1beta1", "a", "  url: https://a.example\n") + "---\n" + document("v1beta1", "a", "  url: https://a.example\n"), `p.yaml:12: provider "a" is already defined at p.yaml:4`},
		"no authority":      {strings.Replace(document("v1beta1", "a", "  url: https://a.example\n"), bundle, "''", 1), "p.yaml:6: spec.caBundle: a value is required"},
		"no base64":         {strings.Replace(document("v1beta1", "a", "  url: https://a.example\n"), bundle, "'!'", 1), "p.yaml:6: spec.caBundle: want PEM in base64"},
		"no PEM":            {strings.Replace(document("v1beta1", "a", "  url: https://a.example\n"), bundle, text([]byte("hello")), 1), "p.yaml:6: spec.caBundle: want PEM in base64: there is no certificate"},
		"a key":             {strings.Replace(document("v1beta1", "a", "  url: https://a.example\n"), bundle, text([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")), 1), `p.yaml:6: spec.caBundle: want certificates only, have "PRIVATE KEY"`},
		"a bad certificate": {strings.Replace(document("v1beta1", "a", "  url: https://a.example\n"), bundle, text([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")), 1), "p.yaml:6: spec.caBundle: certificate 1: "},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := externaldata.Load(policy.File{Name: "p.yaml", Data: []byte(test.text)})
			if err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("error %v, want %s", err, test.want)
			}
		})
	}
}
