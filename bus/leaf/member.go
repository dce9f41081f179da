package leaf

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/nats-io/nkeys"
)

// Bounds of files.
const (
	maxFile    = 1 << 20
	maxMembers = 1000
)

// NewKey makes a key for a cluster: the text of the file that its server keeps
// secret, and the line by which the hub knows it.
func NewKey(cluster string) (file []byte, line string, err error) {
	if err := CheckCluster(cluster); err != nil {
		return nil, "", err
	}
	pair, err := nkeys.CreateUser()
	if err != nil {
		return nil, "", fmt.Errorf("make a key: %w", err)
	}
	seed, err := pair.Seed()
	if err != nil {
		return nil, "", fmt.Errorf("make a key: %w", err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		return nil, "", fmt.Errorf("make a key: %w", err)
	}
	line = cluster + " " + public
	return fmt.Appendf(nil, "# The key of cluster %s: keep it secret. The hub knows it by the line\n# %s\n%s\n", cluster, line, seed), line, nil
}

// readKey returns the seed in the key file of a cluster. No error shows it.
func readKey(file string) (string, error) {
	data, err := readFile(file)
	if err != nil {
		return "", fmt.Errorf("read the key for the hub: %w", err)
	}
	var seed string
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if seed != "" {
			return "", fmt.Errorf("read the key for the hub: %s has more than one", file)
		}
		seed = line
	}
	prefix, _, err := nkeys.DecodeSeed([]byte(seed))
	if err != nil || prefix != nkeys.PrefixByteUser {
		return "", fmt.Errorf("read the key for the hub: %s has none: make one by kubeguardian setup cluster-key", file)
	}
	return seed, nil
}

// CheckKey returns what is wrong with the key file of a cluster.
func CheckKey(file string) error {
	_, err := readKey(file)
	return err
}

// Members are the clusters that may report: their names, by public key. A
// cluster may have two keys, while one takes the place of the other.
type Members map[string]string

// ReadMembers reads a file with a line for each cluster: its name, a blank and its
// public key. Empty lines, and those that begin with #, say nothing.
func ReadMembers(file string) (Members, error) {
	data, err := readFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the clusters of the hub: %w", err)
	}
	return parseMembers(file, data)
}

func parseMembers(file string, data []byte) (Members, error) {
	members := Members{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, maxFile)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		words := strings.Fields(line)
		if len(words) != 2 {
			return nil, fmt.Errorf("%s:%d: want the name of a cluster and its public key", file, n)
		}
		if err := CheckCluster(words[0]); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, n, err)
		}
		if !nkeys.IsValidPublicUserKey(words[1]) {
			return nil, fmt.Errorf("%s:%d: want the public key of a cluster, which begins with U (kubeguardian setup cluster-key prints it)", file, n)
		}
		if _, twice := members[words[1]]; twice {
			return nil, fmt.Errorf("%s:%d: the key is there twice: each cluster has its own", file, n)
		}
		if members[words[1]] = words[0]; len(members) > maxMembers {
			return nil, fmt.Errorf("%s:%d: more than %d clusters", file, n, maxMembers)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return members, nil
}

func readFile(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		return nil, fmt.Errorf("%s has more than %d bytes", file, maxFile)
	}
	return data, err
}

// of returns the cluster whose key has signed a nonce.
func (m Members) of(public string, nonce, signature []byte) (string, error) {
	cluster, known := m[public]
	if !known {
		return "", errors.New("its key is not in the file of clusters")
	}
	key, err := nkeys.FromPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("its key: %w", err)
	}
	if err := key.Verify(nonce, signature); err != nil {
		return "", errors.New("it does not have the key that it shows")
	}
	return cluster, nil
}
