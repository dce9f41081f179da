// Command webhook measures the admission webhook as the API server sees it, over
// TLS 1.3 and HTTP/2, with all built-in policies and those in the files that it is
// given: the times of reviews that come at a rate, what one costs, and what happens
// with many at once, large and deep ones. Client and server share the processors.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"

	"github.com/kubeguardian/kubeguardian/admission"
	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/engine"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/policy"
)

func main() {
	rate := flag.Int("rate", 500, "reviews a second")
	lasting := flag.Duration("for", 10*time.Second, "how long they come")
	flag.Parse()
	if err := run(*rate, *lasting, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "webhook: error:", err)
		os.Exit(1)
	}
}

// A bench is a webhook that runs, and its client.
type bench struct {
	handler  http.Handler
	url      string
	client   *http.Client
	unjudged atomic.Int64
}

func run(rate int, lasting time.Duration, policies []string) error {
	b, err := newBench(policies)
	if err != nil {
		return err
	}
	small := [][]byte{review("Pod", "pods", pod), review("Deployment", "deployments", deployment), review("ConfigMap", "configmaps", configMap(100<<10))}
	fmt.Printf("%d processors\n\n%-28s %12s %10s\n", runtime.GOMAXPROCS(0), "one review, in process", "CPU", "allocs")
	for i, name := range []string{"pod", "deployment", "config map of 100 KiB"} {
		spent, allocs := b.cost(small[i])
		fmt.Printf("%-28s %9d µs %10d\n", name, spent.Microseconds(), allocs)
	}
	fmt.Printf("\n%-28s %8s %8s %8s %8s %8s\n", "over the network", "reviews", "p50", "p99", "most", "failed")
	b.atRate(small, rate, time.Second) // connections and caches
	b.atRate(small, rate, lasting).print(fmt.Sprintf("%d a second", rate))
	b.atOnce(small[:2], 1000).print("1000 at once")
	for name, body := range map[string][]byte{
		"10 MB, 20 at once":       review("ConfigMap", "configmaps", configMap(10_000_000)),
		"5000 levels, 20 at once": review("ConfigMap", "configmaps", deep(5000)),
	} {
		b.atOnce([][]byte{body}, 20).print(name)
	}
	fmt.Printf("\nheap at its largest %d MiB; %d without a verdict\n", peak()>>20, b.unjudged.Load())
	return nil
}

func newBench(policies []string) (*bench, error) {
	files, err := content.Read[policy.File](content.Policies())
	if err != nil {
		return nil, err
	}
	for _, name := range policies {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		files = append(files, policy.File{Name: name, Data: data})
	}
	set, err := engine.Load(files...)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "kubeguardian-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	authority, err := admission.OpenAuthority(context.Background(), admission.FileKeys(dir))
	if err != nil {
		return nil, err
	}
	b := &bench{}
	b.handler = admission.NewHandler(admission.Options{
		Policies: func() admission.Policies { return set },
		Namespaces: policy.NamespacesFunc(func(_ context.Context, name string) (*corev1.Namespace, error) {
			return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelMetadataName: name}}}, nil
		}),
		Record:   func(finding.Decision) {},
		Unjudged: func(admission.Cause) { b.unjudged.Add(1) },
		Log:      slog.New(slog.DiscardHandler),
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	srv := &http.Server{Handler: b.handler, TLSConfig: authority.ServerTLS("127.0.0.1"), HTTP2: admission.HTTP2(), ErrorLog: log.New(io.Discard, "", 0)}
	go srv.ServeTLS(ln, "", "")
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority.CABundle())
	b.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}
	b.url = "https://" + ln.Addr().String() + admission.ValidatePath + "?timeout=10s"
	return b, nil
}

// cost returns the processor time and the allocations of one review.
func (b *bench) cost(body []byte) (time.Duration, uint64) {
	const n = 500
	once := func() {
		req := httptest.NewRequest(http.MethodPost, admission.ValidatePath, bytes.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		b.handler.ServeHTTP(httptest.NewRecorder(), req)
	}
	once()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := cpu()
	for range n {
		once()
	}
	spent := cpu() - start
	runtime.ReadMemStats(&after)
	return spent / n, (after.Mallocs - before.Mallocs) / n
}

// times are those of reviews, from when they were due.
type times struct {
	mu     sync.Mutex
	took   []time.Duration
	failed int
}

func (r *times) add(d time.Duration, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.took = append(r.took, d)
	if err != nil {
		r.failed++
	}
}

func (r *times) print(name string) {
	slices.Sort(r.took)
	ms := func(share float64) string {
		return fmt.Sprintf("%.2f ms", float64(r.took[int(share*float64(len(r.took)-1))].Microseconds())/1000)
	}
	fmt.Printf("%-28s %8d %8s %8s %8s %8d\n", name, len(r.took), ms(0.5), ms(0.99), ms(1), r.failed)
}

// atRate sends reviews at their time, whether earlier ones were answered or not.
func (b *bench) atRate(bodies [][]byte, rate int, lasting time.Duration) *times {
	var r times
	var group sync.WaitGroup
	start := time.Now()
	for i := range int(lasting.Seconds() * float64(rate)) {
		due := start.Add(time.Duration(i) * time.Second / time.Duration(rate))
		time.Sleep(time.Until(due))
		group.Go(func() {
			err := b.post(bodies[i%len(bodies)])
			r.add(time.Since(due), err)
		})
	}
	group.Wait()
	return &r
}

// atOnce sends n reviews at the same moment.
func (b *bench) atOnce(bodies [][]byte, n int) *times {
	var r times
	var group sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		group.Go(func() {
			<-start
			began := time.Now()
			err := b.post(bodies[i%len(bodies)])
			r.add(time.Since(began), err)
		})
	}
	close(start)
	group.Wait()
	return &r
}

// post sends one review and wants a verdict.
func (b *bench) post(body []byte) error {
	resp, err := b.client.Post(b.url, "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || !bytes.Contains(text, []byte(`"uid":"1"`)) || bytes.Contains(text, []byte("not judged"))) {
		err = fmt.Errorf("status %d: %s", resp.StatusCode, text)
	}
	return err
}

// cpu returns the processor time of the process.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peak returns the memory that the heap took from the system at its largest: Go
// gives it back late.
func peak() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(sample)
	var sum uint64
	for _, s := range sample {
		sum += s.Value.Uint64()
	}
	return sum
}

// review is a review as the API server writes it.
func review(kind, resource, object string) []byte {
	group := ""
	if kind == "Deployment" {
		group = "apps"
	}
	body, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "1", Kind: metav1.GroupVersionKind{Group: group, Version: "v1", Kind: kind},
			Resource: metav1.GroupVersionResource{Group: group, Version: "v1", Resource: resource}, Namespace: "shop", Operation: admissionv1.Create,
			UserInfo: authenticationv1.UserInfo{Username: "ann", Groups: []string{"system:authenticated"}},
			Object:   kruntime.RawExtension{Raw: []byte(object)}, DryRun: new(bool),
		},
	})
	if err != nil {
		panic(err) // the objects are below
	}
	return body
}

const podSpec = `{"serviceAccountName":"web","automountServiceAccountToken":false,"hostUsers":false,"securityContext":{"runAsNonRoot":true,"seccompProfile":{"type":"RuntimeDefault"}},
	"containers":[{"name":"web","image":"registry.example.com/shop/web:1.2.3","ports":[{"containerPort":8080}],"env":[{"name":"DATABASE_HOST","value":"database.shop.svc"}],
	"resources":{"requests":{"cpu":"100m","memory":"128Mi"},"limits":{"memory":"128Mi"}},
	"securityContext":{"allowPrivilegeEscalation":false,"readOnlyRootFilesystem":true,"capabilities":{"drop":["ALL"]}},"volumeMounts":[{"name":"tmp","mountPath":"/tmp"}]}],
	"volumes":[{"name":"tmp","emptyDir":{"sizeLimit":"16Mi"}}]}`

const (
	pod        = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","namespace":"shop","labels":{"app":"web"}},"spec":` + podSpec + `}`
	deployment = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","namespace":"shop"},"spec":{"replicas":3,"selector":{"matchLabels":{"app":"web"}},
	"template":{"metadata":{"labels":{"app":"web"}},"spec":` + podSpec + `}}}`
)

func configMap(bytes int) string {
	return `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"web","namespace":"shop"},"data":{"text":"` + strings.Repeat("x", bytes) + `"}}`
}

func deep(levels int) string {
	return `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"web","namespace":"shop"},"data":` + strings.Repeat(`{"a":`, levels) + "1" + strings.Repeat("}", levels) + `}`
}
