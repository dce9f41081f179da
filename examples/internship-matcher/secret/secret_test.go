package secret_test

import (
	"testing"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/secret"
)

// TestMake makes everything anew each time: nothing of it is known to others.
func TestMake(t *testing.T) {
	first, err := secret.Make("shop")
	if err != nil {
		t.Fatal(err)
	}
	second, err := secret.Make("shop")
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range first {
		for key, text := range data {
			if text == "" {
				t.Errorf("%s of Secret %s is empty", key, name)
			}
			if key != "repository" && text == second[name][key] {
				t.Errorf("%s of Secret %s is the same twice", key, name)
			}
		}
	}
}
