// Command matcher runs Internship Matcher on the node of a lab that is up: the
// secured manifests as they are, with images of this source and a PostgreSQL
// made of this machine's packages. Run it in the lab's folder, as root.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// application is the folder of the application's module.
const application = "../examples/internship-matcher"

// databases are the users that the manifests run each database as.
func databases() map[string]string {
	return map[string]string{"auth-db": "10202", "offer-db": "10203", "application-db": "10204"}
}

func main() {
	lab := flag.String("lab", "../bin/lab", "the lab's `program`")
	dir := flag.String("dir", "", "`directory` of the lab")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, cluster{*lab, *dir}, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "matcher: error:", err)
		os.Exit(1)
	}
}

// A cluster is a lab with a node.
type cluster struct{ lab, dir string }

// node runs a command on the node.
func (c cluster) node(ctx context.Context, stdin io.Reader, args ...string) error {
	full := []string{"node"}
	if c.dir != "" {
		full = append(full, "--dir", c.dir)
	}
	cmd := exec.CommandContext(ctx, c.lab, append(append(full, "--"), args...)...)
	cmd.Stdin = stdin
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func run(ctx context.Context, c cluster, progress io.Writer) error {
	dir, err := os.MkdirTemp("", "matcher-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	began := time.Now()
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"build images", func() error { return buildImages(ctx, dir) }},
		{"import images", func() error { return c.importImages(ctx, dir) }},
		{"make volumes", func() error { return c.volumes(ctx) }},
		{"apply manifests", func() error { return c.apply(ctx, filepath.Join(dir, "deploy")) }},
		{"wait for the services", func() error {
			return c.node(ctx, nil, "kubectl", "wait", "--namespace=internship-matcher", "--for=condition=Available", "--timeout=5m", "deployment", "--all")
		}},
	} {
		fmt.Fprintln(progress, "matcher:", step.name)
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	fmt.Fprintf(progress, "matcher: ready in %.0f s\n", time.Since(began).Seconds())
	return nil
}

// goRun runs a command of the application's module.
func goRun(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"run"}, args...)...)
	var stderr bytes.Buffer
	cmd.Dir, cmd.Stderr = application, &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go run %s: %w: %s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return out, nil
}

// buildImages writes the application's images and manifests, and the database's
// image beside them.
func buildImages(ctx context.Context, dir string) error {
	if _, err := goRun(ctx, "./cmd/images", "-o", dir, "-tag", "lab"); err != nil {
		return err
	}
	root := filepath.Join(dir, "postgres")
	if err := postgres(ctx, root); err != nil {
		return fmt.Errorf("PostgreSQL: %w", err)
	}
	return writeImage(filepath.Join(dir, "postgres.tar"), root, "localhost/postgres:lab")
}

func (c cluster) importImages(ctx context.Context, dir string) error {
	for _, name := range []string{"images.tar", "postgres.tar"} {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		defer f.Close()
		if err := c.node(ctx, f, "ctr", "images", "import", "-"); err != nil {
			return err
		}
	}
	return nil
}

// volumes makes what a storage provider would.
func (c cluster) volumes(ctx context.Context) error {
	var objects strings.Builder
	for name, user := range databases() {
		path := "/var/lib/lab-volumes/" + name
		if err := c.node(ctx, nil, "install", "-d", "-o", user, "-g", user, "-m", "0770", path); err != nil {
			return err
		}
		fmt.Fprintf(&objects, `---
apiVersion: v1
kind: PersistentVolume
metadata: {name: %[1]s}
spec:
  capacity: {storage: 5Gi}
  accessModes: [ReadWriteOnce]
  claimRef: {namespace: internship-matcher, name: data-%[1]s-0}
  hostPath: {path: %[2]s, type: Directory}
`, name, path)
	}
	return c.node(ctx, strings.NewReader(objects.String()), "kubectl", "apply", "-f", "-")
}

// apply sends the manifests, but for what the lab has no counterpart of: the
// backup's object store.
func (c cluster) apply(ctx context.Context, dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return err
	}
	for i, file := range files { // the namespace comes first
		if filepath.Base(file) == "backup.yaml" {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		data = regexp.MustCompile(`image: \S+/postgres:\S+`).ReplaceAll(data, []byte("image: localhost/postgres:lab"))
		if err := c.node(ctx, bytes.NewReader(data), "kubectl", "apply", "-f", "-"); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(file), err)
		}
		if i == 0 {
			secrets, err := goRun(ctx, "./cmd/secrets")
			if err != nil {
				return err
			}
			if err := c.node(ctx, bytes.NewReader(secrets), "kubectl", "apply", "-f", "-"); err != nil {
				return fmt.Errorf("secrets: %w", err)
			}
		}
	}
	return nil
}
