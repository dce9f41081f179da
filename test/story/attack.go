package story

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/kubeguardian/kubeguardian/alert"
)

// A Want is the file want.yaml of an attack: what must follow from it.
type Want struct {
	Description string     `yaml:"description"`
	User        string     `yaml:"user"`   // the attacker: admin or developer of the lab
	Denied      string     `yaml:"denied"` // the policy that refuses the request
	Alert       *WantAlert `yaml:"alert"`
	Object      *WantObj   `yaml:"object"`
}

// A WantAlert is an alert that must appear.
type WantAlert struct {
	Rule   string            `yaml:"rule"`
	Fields map[string]string `yaml:"fields"` // output fields and their values
}

// A WantObj is an object that must be in etcd after the attack, or must not.
type WantObj struct {
	Kind      string `yaml:"kind"`
	Namespace string `yaml:"namespace"`
	Name      string `yaml:"name"`
	Exists    bool   `yaml:"exists"`
}

// An Outcome is what an attack led to.
type Outcome struct {
	Name   string
	Want   Want
	Answer string        // what the API server told the attacker
	Alert  *alert.Alert  // nil when none was wanted
	Delay  time.Duration // from the request to the stored alert
}

// identifying are the output fields that every alert of an audit event fills.
var identifying = []string{"ka.user.name", "ka.verb", "ka.target.resource", "ka.sourceips", "ka.auditid"}

// Attacks lists the attacks of the lab by name. On a cluster that is not the
// story's own it leaves out what cannot be undone.
func (s *Story) Attacks() ([]string, error) {
	files, err := filepath.Glob(filepath.Join(s.Root, "lab/attacks/*/attack"))
	if err != nil || len(files) == 0 {
		return nil, errors.Join(err, errors.New("no attacks in lab/attacks"))
	}
	var names []string
	for _, file := range files {
		if name := filepath.Base(filepath.Dir(file)); !s.External() || name != "delete-events" {
			names = append(names, name)
		}
	}
	return names, nil
}

// Attack plays one attack and checks everything its want.yaml asks for, but no
// alert when the server is blind.
func (s *Story) Attack(ctx context.Context, name string) (Outcome, error) {
	dir := filepath.Join(s.Root, "lab/attacks", name)
	out := Outcome{Name: name}
	data, err := os.ReadFile(filepath.Join(dir, "want.yaml"))
	if err != nil {
		return out, fmt.Errorf("read what attack %s must lead to: %w", name, err)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&out.Want); err != nil {
		return out, fmt.Errorf("%s: %w", filepath.Join(dir, "want.yaml"), err)
	}
	kubeconfig := filepath.Join(filepath.Dir(s.Kubeconfig), out.Want.User+".kubeconfig")
	if s.External() { // whose only known user is the administrator
		kubeconfig = s.Kubeconfig
		if out.Want.Alert != nil {
			delete(out.Want.Alert.Fields, "ka.user.name")
		}
	}
	if out.Want.Object != nil {
		s.touched = append(s.touched, *out.Want.Object)
	}
	start := time.Now()
	if out.Answer, err = s.runAttack(ctx, filepath.Join(dir, "attack"), kubeconfig); err != nil {
		return out, err
	}
	if policy := out.Want.Denied; policy != "" && !strings.Contains(out.Answer, policy) {
		return out, fmt.Errorf("attack %s: policy %s did not deny it; the API server said: %s", name, policy, out.Answer)
	}
	if err := s.checkObject(ctx, out.Want.Object); err != nil {
		return out, fmt.Errorf("attack %s: %w", name, err)
	}
	if out.Want.Alert != nil && !s.Blind {
		if out.Alert, err = s.awaitAlert(ctx, *out.Want.Alert, start); err != nil {
			return out, fmt.Errorf("attack %s: %w", name, err)
		}
		out.Delay = time.Since(out.Alert.Time)
	}
	return out, nil
}

func (s *Story) runAttack(ctx context.Context, script, kubeconfig string) (string, error) {
	kubectl, err := s.kubectl(ctx)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, script)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "PATH="+filepath.Dir(kubectl)+":"+os.Getenv("PATH"))
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	answer := string(bytes.TrimSpace(out))
	if err != nil {
		return answer, fmt.Errorf("run %s: %w\n%s", script, err, answer)
	}
	return answer, nil
}

func (s *Story) checkObject(ctx context.Context, want *WantObj) error {
	if want == nil {
		return nil
	}
	args := []string{"get", want.Kind, want.Name, "--ignore-not-found", "--output", "name"}
	if want.Namespace != "" {
		args = append(args, "--namespace", want.Namespace)
	}
	got, err := s.Kubectl(ctx, args...)
	if err != nil {
		return err
	}
	if exists := got != ""; exists != want.Exists {
		return fmt.Errorf("%s %s/%s: exists = %t, want %t", want.Kind, want.Namespace, want.Name, exists, want.Exists)
	}
	return nil
}

// awaitAlert waits for an alert of the wanted rule, raised since start, whose
// fields are as wanted.
func (s *Story) awaitAlert(ctx context.Context, want WantAlert, start time.Time) (*alert.Alert, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	query := url.Values{"rule": {want.Rule}, "since": {start.UTC().Format(time.RFC3339Nano)}}.Encode()
	var seen []alert.Alert
	for {
		alerts, err := s.Alerts(ctx, query)
		if err == nil {
			seen = alerts
			if i := slices.IndexFunc(alerts, want.matches); i >= 0 {
				return &alerts[i], nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("no alert %q with fields %v came; of this rule came %d: %+v", want.Rule, want.Fields, len(seen), seen), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (w WantAlert) matches(a alert.Alert) bool {
	for _, field := range identifying {
		if fmt.Sprint(a.OutputFields[field]) == "" || a.OutputFields[field] == nil {
			return false
		}
	}
	for field, value := range w.Fields {
		if fmt.Sprint(a.OutputFields[field]) != value {
			return false
		}
	}
	return true
}
