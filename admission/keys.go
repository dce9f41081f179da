package admission

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// maxKeysBytes bounds what is read: an authority has some 1,500 bytes.
const maxKeysBytes = 64 << 10

// errStale says that another process saved keys first.
var errStale = errors.New("others changed it meanwhile")

// Keys is where the certificates and keys of an [Authority] are kept: see
// [FileKeys] and [SecretKeys]. Several processes may use the same.
type Keys interface {
	// load returns what is kept, nil when there is nothing yet, and the version
	// that save wants.
	load(ctx context.Context) (data []byte, version string, err error)
	// save replaces what is kept in this version, or returns errStale.
	save(ctx context.Context, data []byte, version string) error
	// String says where, for errors.
	String() string
}

// FileKeys keeps keys in one file of a folder, which only its owner may read.
func FileKeys(dir string) Keys { return fileKeys(filepath.Join(dir, "ca.pem")) }

type fileKeys string

func (f fileKeys) String() string { return string(f) }

func (f fileKeys) load(context.Context) ([]byte, string, error) {
	file, err := os.Open(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, "", err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, "", fmt.Errorf("others may read the key: mode is %04o, want 0600", mode)
	}
	data := bytes.NewBuffer(make([]byte, 0, 4096)) // not nil when the file is empty
	if _, err := io.Copy(data, io.LimitReader(file, maxKeysBytes)); err != nil {
		return nil, "", err
	}
	sum := sha256.Sum256(data.Bytes())
	return data.Bytes(), hex.EncodeToString(sum[:]), nil
}

// save writes a file that appears complete or not at all. A lock of the folder
// keeps others out between the comparison and the write.
func (f fileKeys) save(ctx context.Context, data []byte, version string) (err error) {
	dir := filepath.Dir(string(f))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create folder: %w", err)
	}
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer folder.Close()
	if err := syscall.Flock(int(folder.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock folder: %w", err)
	}
	switch _, now, err := f.load(ctx); {
	case err != nil:
		return err
	case now != version:
		return errStale
	}
	temp, err := os.CreateTemp(dir, ".ca-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = temp.Write(data)
	if err = errors.Join(err, temp.Sync(), temp.Close()); err == nil {
		err = os.Rename(temp.Name(), string(f))
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return nil
}

// SecretKeys keeps keys in a Secret, for several replicas. The Secret must exist;
// with no keys in it, the first replica makes them.
func SecretKeys(client kubernetes.Interface, namespace, name string) Keys {
	return &secretKeys{client, namespace, name}
}

// secretField is the key in the data of the Secret.
const secretField = "ca.pem"

type secretKeys struct {
	client          kubernetes.Interface
	namespace, name string
}

func (s *secretKeys) String() string { return "Secret " + s.namespace + "/" + s.name }

func (s *secretKeys) get(ctx context.Context) (*corev1.Secret, error) {
	secret, err := s.client.CoreV1().Secrets(s.namespace).Get(ctx, s.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("%w: apply the output of `kubeguardian setup rbac`", err)
	}
	return secret, err
}

func (s *secretKeys) load(ctx context.Context) ([]byte, string, error) {
	secret, err := s.get(ctx)
	if err != nil {
		return nil, "", err
	}
	if data := secret.Data[secretField]; len(data) > 0 {
		return data[:min(len(data), maxKeysBytes)], secret.ResourceVersion, nil
	}
	return nil, secret.ResourceVersion, nil
}

func (s *secretKeys) save(ctx context.Context, data []byte, version string) error {
	secret, err := s.get(ctx)
	if err != nil {
		return err
	}
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	secret.Data[secretField] = data
	secret.ResourceVersion = version // of what was loaded: the API server compares it
	_, err = s.client.CoreV1().Secrets(s.namespace).Update(ctx, secret, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) {
		return errors.Join(err, errStale)
	}
	return err
}
