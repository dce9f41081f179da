// Command judge is the product's side of the comparison with Gatekeeper's own
// client in test/gatekeeper, a module that cannot be linked with the product.
//
// It reads JSON, one value on a line: first what requests are judged by, then
// admission requests. For each request it writes one line with the violations,
// or, with -measure, the processor time that judging takes. With -mutate each
// line has mutators and requests, and each answer what becomes of the objects.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/pprof"
	"slices"
	"syscall"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/externaldata"
	"github.com/kubeguardian/kubeguardian/policy/gatekeeper"
	"github.com/kubeguardian/kubeguardian/policy/mutator"
	"github.com/kubeguardian/kubeguardian/policy/referential"
)

func main() {
	round := flag.Duration("measure", 0, "judge each request for three rounds of this processor `time` and write that of one")
	vary := flag.String("vary", "", "with -measure: put another number for this `text` of the request each time")
	profile := flag.String("cpuprofile", "", "write a profile to this `file`")
	mutates := flag.Bool("mutate", false, "apply mutators")
	flag.Parse()
	work := func() error { return run(os.Stdin, os.Stdout, rounds{*round, []byte(*vary)}) }
	if *mutates {
		work = func() error { return mutate(os.Stdin, os.Stdout) }
	}
	if err := profiled(*profile, work); err != nil {
		fmt.Fprintln(os.Stderr, "judge: error:", err)
		os.Exit(1)
	}
}

func profiled(file string, f func() error) error {
	if file == "" {
		return f()
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := pprof.StartCPUProfile(out); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	return f()
}

// A setup is what requests are judged by, and what policies see.
type setup struct {
	Policies   string                      `json:"policies"` // YAML documents
	Namespaces []corev1.Namespace          `json:"namespaces"`
	Inventory  []unstructured.Unstructured `json:"inventory"`
	Point      gatekeeper.Point            `json:"point"`
	Mutators   string                      `json:"mutators"` // YAML documents, for what is expanded
	outer
}

// An outer says who is asked for external data.
type outer struct {
	Providers string `json:"providers"` // YAML documents
	CertFile  string `json:"certFile"`
	KeyFile   string `json:"keyFile"`
}

func (o *outer) client() (*externaldata.Client, error) {
	set, err := externaldata.Load(policy.File{Name: "providers.yaml", Data: []byte(o.Providers)})
	if err != nil {
		return nil, err
	}
	return externaldata.NewClient(set, externaldata.Options{CertFile: o.CertFile, KeyFile: o.KeyFile, TTL: time.Hour})
}

// An answer is written for each request.
type answer struct {
	Violations  []finding.Violation `json:"violations,omitempty"`
	Error       string              `json:"error,omitempty"`
	Nanoseconds int64               `json:"nanoseconds,omitempty"`
	Memory      int                 `json:"memory,omitempty"` // KiB at most so far
}

type judge struct {
	set        *gatekeeper.Set
	namespaces map[string]*corev1.Namespace
}

// Rounds are how requests are measured; none: they are not.
type rounds struct {
	time time.Duration
	vary []byte // stands for a number; empty: requests stay the same
}

func run(in io.Reader, out io.Writer, r rounds) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 64<<20)
	if !lines.Scan() {
		return fmt.Errorf("read the first line: %w", io.ErrUnexpectedEOF)
	}
	var s setup
	if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
		return fmt.Errorf("read the first line: %w", err)
	}
	j, err := newJudge(s)
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(out)
	for lines.Scan() {
		if err := encoder.Encode(j.answer(lines.Bytes(), r)); err != nil {
			return err
		}
	}
	return lines.Err()
}

func newJudge(s setup) (*judge, error) {
	set, err := gatekeeper.Load(policy.File{Name: "policies.yaml", Data: []byte(s.Policies)})
	if err != nil {
		return nil, err
	}
	inventory, err := referential.New(func(yield func(*unstructured.Unstructured) bool) {
		for i := range s.Inventory {
			if !yield(&s.Inventory[i]) {
				return
			}
		}
	})
	if err != nil {
		return nil, err
	}
	mutators, err := mutator.Load(policy.File{Name: "mutators.yaml", Data: []byte(s.Mutators)})
	if err != nil {
		return nil, err
	}
	client, err := s.client()
	if err != nil {
		return nil, err
	}
	set = set.WithInventory(inventory).WithExternalData(client).WithMutator(mutators.WithExternalData(client))
	j := &judge{set: set, namespaces: map[string]*corev1.Namespace{}}
	if s.Point != "" {
		j.set = j.set.At(s.Point)
	}
	for i := range s.Namespaces {
		j.namespaces[s.Namespaces[i].Name] = &s.Namespaces[i]
	}
	return j, nil
}

func (j *judge) answer(line []byte, r rounds) answer {
	if r.time > 0 {
		return j.measure(line, r)
	}
	violations, err := j.review(line)
	if err != nil {
		return answer{Error: err.Error()}
	}
	return answer{Violations: violations}
}

// measure takes the best of three rounds: other processes only make it worse.
func (j *judge) measure(line []byte, r rounds) answer {
	line = slices.Clone(line)
	var best int64
	serial := 0
	for range 3 {
		start, n := processorTime(), int64(0)
		for processorTime()-start < r.time {
			request := line
			if len(r.vary) > 0 {
				serial++
				request = bytes.ReplaceAll(line, r.vary, fmt.Appendf(nil, "%0*d", len(r.vary), serial))
			}
			if _, err := j.review(request); err != nil {
				return answer{Error: err.Error()}
			}
			n++
		}
		if took := (processorTime() - start).Nanoseconds() / n; best == 0 || took < best {
			best = took
		}
	}
	return answer{Nanoseconds: best, Memory: memory()}
}

// memory returns how many KiB the process had at most, of this program alone:
// what getrusage says begins with the program that started it.
func memory() (kib int) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	if _, rest, ok := bytes.Cut(status, []byte("VmHWM:")); ok {
		fmt.Sscan(string(rest), &kib) // 0 when it is no number
	}
	return kib
}

// processorTime is that of all threads, so that collecting garbage counts.
func processorTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// review judges one request from its JSON, as a webhook does.
func (j *judge) review(line []byte) ([]finding.Violation, error) {
	req, err := j.request(line)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	found, err := j.set.Evaluate(ctx, req)
	if len(found) > 0 && slices.Contains([]string{"Assign", "AssignMetadata", "AssignImage", "ModifySet"}, found[0].Policy) {
		return nil, fmt.Errorf("refused by a mutator: %s", found[0].Message) // as Gatekeeper says it
	}
	return found, err
}

// request reads a request.
func (j *judge) request(line []byte) (policy.Request, error) {
	var in admissionv1.AdmissionRequest
	if err := json.Unmarshal(line, &in); err != nil {
		return policy.Request{}, fmt.Errorf("read request: %w", err)
	}
	req := policy.Request{
		UID:         in.UID,
		Operation:   in.Operation,
		Kind:        schema.GroupVersionKind(in.Kind),
		Resource:    schema.GroupVersionResource(in.Resource),
		Subresource: in.SubResource, Namespace: in.Namespace, Name: in.Name,
		User: in.UserInfo, DryRun: in.DryRun != nil && *in.DryRun, RequestSubresource: in.RequestSubResource,
		Namespaces: policy.NamespacesFunc(func(_ context.Context, name string) (*corev1.Namespace, error) {
			return j.namespaces[name], nil
		}),
	}
	if in.RequestKind != nil {
		req.RequestKind = schema.GroupVersionKind(*in.RequestKind)
	}
	if in.RequestResource != nil {
		req.RequestResource = schema.GroupVersionResource(*in.RequestResource)
	}
	for _, part := range []struct {
		raw  runtime.RawExtension
		into **unstructured.Unstructured
	}{{in.Object, &req.Object}, {in.OldObject, &req.OldObject}, {in.Options, &req.Options}} {
		if len(part.raw.Raw) == 0 {
			continue
		}
		*part.into = &unstructured.Unstructured{}
		if err := (*part.into).UnmarshalJSON(part.raw.Raw); err != nil {
			return policy.Request{}, fmt.Errorf("read object: %w", err)
		}
	}
	return req, nil
}
