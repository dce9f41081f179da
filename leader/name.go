package leader

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Name returns the name, kept in a file, that tells this server from its replicas. It
// does not change as long as its data directory does not.
func Name(file string) (string, error) {
	data, err := os.ReadFile(file)
	name := strings.TrimSpace(string(data))
	if err == nil && len(validation.IsDNS1123Label(name)) == 0 {
		return name, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the name of the replica: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("name the replica: %w", err)
	}
	host, _, _ = strings.Cut(strings.ToLower(host), ".")
	if len(validation.IsDNS1123Label(host)) > 0 || len(host) > 40 {
		host = "server"
	}
	name = host + "-" + strings.ToLower(rand.Text()[:6])
	if err := os.WriteFile(file, []byte(name+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("name the replica: %w", err)
	}
	return name, nil
}
