// Command cel compares the processor time that policies in CEL take of us with
// that of the API server's own evaluation, which does nothing but evaluate: the
// same 30 policies and the same objects, in one run.
package main

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubeguardian/kubeguardian/policy"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "cel: error:", err)
		os.Exit(1)
	}
}

// pool is how many objects are fresh, before they come again: more than a memory
// of outcomes can tell apart.
const pool = 3000

func run() error {
	text := policies()
	api, err := newBare(text)
	if err != nil {
		return err
	}
	fmt.Printf("%d policies in CEL that match; fresh: names and image tags differ; memory: of outcomes, by the fields that decided\n\n", len(api))
	fmt.Printf("%-11s %-7s %12s %14s %7s %14s %7s %11s\n", "object", "", "Kubernetes", "without memory", "ratio", "with memory", "ratio", "violations")
	for _, s := range samples() {
		fresh := make([]policy.Request, pool)
		for i := range fresh {
			fresh[i] = request(&s, i)
		}
		for _, mode := range []struct {
			name     string
			requests []policy.Request
		}{{"fresh", fresh}, {"again", fresh[:1]}} {
			if err := compare(text, api, s.name, mode.name, mode.requests); err != nil {
				return err
			}
		}
	}
	return nil
}

var shop = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{corev1.LabelMetadataName: "shop"}}}

func request(s *sample, serial int) policy.Request {
	o := s.make(serial)
	return policy.Request{
		Operation: admissionv1.Create, Kind: s.kind, Resource: s.kind.GroupVersion().WithResource(s.resource), Namespace: "shop", Name: o.GetName(), Object: o,
		User:       authenticationv1.UserInfo{Username: "jane", Groups: []string{"dev"}},
		Namespaces: policy.NamespacesFunc(func(context.Context, string) (*corev1.Namespace, error) { return shop, nil }),
	}
}

func compare(text string, api bare, object, mode string, requests []policy.Request) error {
	set, err := policy.Load(policy.File{Name: "policies.yaml", Data: []byte(text)})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	violations := 0
	evaluate := func(req policy.Request) error {
		found, err := set.Evaluate(ctx, req)
		violations = len(found)
		return err
	}
	denials := 0
	bare, err := took(requests, func(req policy.Request) error {
		denials = api.evaluate(ctx, &req, shop)
		return nil
	})
	if err != nil {
		return err
	}
	without, err := took(requests, func(req policy.Request) error {
		// What was asked for in another version is evaluated without memory.
		req.RequestKind = req.Kind
		req.RequestKind.Version = "v1beta1"
		return evaluate(req)
	})
	if err != nil {
		return err
	}
	with, err := took(requests, evaluate)
	if err != nil {
		return err
	}
	if denials != violations {
		return fmt.Errorf("%s: Kubernetes denies %d times, we %d times", object, denials, violations)
	}
	ratio := func(of time.Duration) float64 { return float64(of) / float64(bare) }
	fmt.Printf("%-11s %-7s %12v %14v %6.2fx %14v %6.2fx %11d\n", object, mode, bare.Round(100), without.Round(100), ratio(without), with.Round(100), ratio(with), violations)
	return nil
}

// took returns the processor time of one evaluation, the best of three rounds.
func took(requests []policy.Request, evaluate func(policy.Request) error) (best time.Duration, err error) {
	const round = 300 * time.Millisecond
	next := 0
	for range 3 {
		start, n := processorTime(), 0
		for processorTime()-start < round {
			if err := evaluate(requests[next%len(requests)]); err != nil {
				return 0, err
			}
			next++
			n++
		}
		if took := (processorTime() - start) / time.Duration(n); best == 0 || took < best {
			best = took
		}
	}
	return best, nil
}

// processorTime is that of all threads, so that collecting garbage counts.
func processorTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
