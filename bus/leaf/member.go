package leaf

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Bounds of files.
const (
	maxFile    = 1 << 20
	maxMembers = 1000
)

// NewKey makes an Ed25519 key for a cluster: the text of the file that its server
// keeps secret, in PEM, and the line by which the hub knows it.
func NewKey(cluster string) (file []byte, line string, err error) {
	if err := CheckCluster(cluster); err != nil {
		return nil, "", err
	}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, "", fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, "", fmt.Errorf("make a key: %w", err)
	}
	line = cluster + " " + encodeKey(public)
	file = fmt.Appendf(nil, "The hub knows this key, which is secret, by this line in its file of clusters:\n%s\n", line)
	return append(file, pem.EncodeToMemory(&pem.Block{Type: keyType, Bytes: der})...), line, nil
}

const keyType = "PRIVATE KEY"

func encodeKey(public ed25519.PublicKey) string { return base64.RawURLEncoding.EncodeToString(public) }

// readKey returns the key in the file of a cluster. No error shows it.
func readKey(file string) (ed25519.PrivateKey, error) {
	data, err := readFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the key for the hub: %w", err)
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != keyType || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("read the key for the hub: %s has none: make one by kubeguardian setup cluster-key", file)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	private, ok := key.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("read the key for the hub: the key in %s is not of Ed25519: make one by kubeguardian setup cluster-key", file)
	}
	return private, nil
}

// signed is what a cluster signs of a nonce of the hub: a signature is good for
// nothing else.
func signed(nonce []byte) []byte { return append([]byte("kubeguardian hub "), nonce...) }

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
		if key, err := base64.RawURLEncoding.DecodeString(words[1]); err != nil || len(key) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("%s:%d: want the public key of a cluster, as kubeguardian setup cluster-key prints it", file, n)
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
	key, err := base64.RawURLEncoding.DecodeString(public)
	if err != nil || len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, signed(nonce), signature) {
		return "", errors.New("it does not have the key that it shows")
	}
	return cluster, nil
}
