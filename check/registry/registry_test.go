package registry_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/check/registry"
	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

func TestRepository(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("a", 64)
	for reference, want := range map[string]string{
		"nginx":                             "docker.io/library/nginx",
		"nginx:1.29":                        "docker.io/library/nginx",
		"nginx" + digest:                    "docker.io/library/nginx",
		"library/nginx":                     "docker.io/library/nginx",
		"somebody/app:1":                    "docker.io/somebody/app",
		"index.docker.io/nginx":             "docker.io/library/nginx",
		"localhost/app":                     "localhost/app",
		"localhost:5000/app:1":              "localhost:5000/app",
		"registry:5000/app":                 "registry:5000/app",
		"GHCR.io/example/app:1.2" + digest:  "ghcr.io/example/app",
		"Host/app":                          "host/app",
		"ghcr.io/example/app":               "ghcr.io/example/app",
		"ghcr.io:443/example/app/cache:a.b": "ghcr.io:443/example/app/cache",
	} {
		if got := registry.Repository(reference); got != want {
			t.Errorf("%s: %s, want %s", reference, got, want)
		}
	}
}

func FuzzRepository(f *testing.F) {
	f.Add("ghcr.io/example/app:1.2@sha256:aa")
	f.Add(":@/")
	f.Fuzz(func(t *testing.T, reference string) {
		host, path, ok := strings.Cut(registry.Repository(reference), "/")
		if !ok || strings.Contains(path, "@") || host == "index.docker.io" {
			t.Errorf("%q points to %s / %s", reference, host, path)
		}
	})
}

func TestAllowed(t *testing.T) {
	tests := []struct {
		allow, image string
		want         finding.Status
	}{
		{"", "nginx", finding.Unknown},
		{"docker.io", "nginx", finding.Pass},
		{"docker.io/library/nginx", "nginx:1", finding.Pass},
		{"docker.io/library/ngin", "nginx:1", finding.Fail},
		{"ghcr.io/example,quay.io", "quay.io/a/b", finding.Pass},
		{"*.example.org", "eu.example.org/a", finding.Pass},
		{"*.example.org", "a.eu.example.org/a", finding.Pass},
		{"*.example.org", "example.org/a", finding.Fail},
		{"*.example.org", "badexample.org/a", finding.Fail},
		{"*.example.org/team", "eu.example.org/team/a", finding.Pass},
		{"*.example.org/team", "eu.example.org/teams/a", finding.Fail},
		{"example.org", "example.org.evil.net/a", finding.Fail},
	}
	for _, tt := range tests {
		text := fmt.Sprintf("{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {containers: [{name: web, image: %q}]}}", tt.image)
		inv, err := inventory.FromFiles(context.Background(), []string{"-"}, strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		set := &evidence.Set{}
		if tt.allow != "" {
			for prefix := range strings.SplitSeq(tt.allow, ",") {
				set.Registries = append(set.Registries, evidence.Registries{Allow: []string{prefix}})
			}
		}
		got := registry.Allowed(inv, set)
		if len(got) != 1 || got[0].Status != tt.want {
			t.Errorf("%s by %s: %+v, want %s", tt.image, tt.allow, got, tt.want)
		}
		if tt.want == finding.Fail && (got[0].Subject.Container != "web" || !strings.Contains(got[0].Message, tt.image) || !strings.Contains(got[0].Evidence, tt.allow)) {
			t.Errorf("%s: %+v", tt.image, got[0])
		}
	}
}
