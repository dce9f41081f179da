// Command bench measures a scan: CPU time and memory for more and more objects,
// how both grow, and what judging one changed object costs.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/report"
)

func main() {
	objects := flag.Int("objects", 0, "measure a scan of this many objects in this very process")
	profile := flag.String("cpuprofile", "", "with -objects or -audit: write a profile to this `file`")
	auditing := flag.Int("audit", 0, "measure an audit of this many objects in this very process")
	generate := flag.Int("generate", 0, "print manifests of this many objects instead")
	flag.Parse()
	var err error
	switch {
	case *generate > 0:
		err = manifests(os.Stdout, 0, *generate)
	case *auditing > 0:
		err = profiled(*profile, func() error { return auditAll(*auditing) })
	case *objects > 0:
		err = profiled(*profile, func() error { return one(*objects) })
	default:
		err = all()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: error:", err)
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

// A result is what one process measured; times are of all processors.
type result struct {
	Objects, Bytes, Findings int
	Start                    time.Duration // loading controls and policies
	Read, Judge, Report      time.Duration
	Recheck                  time.Duration // of one object
	Memory                   int           // KiB, at most
}

func (r result) total() time.Duration { return r.Start + r.Read + r.Judge + r.Report }

// all measures each size in a process of its own, because the memory of a
// process is that of its largest moment.
func all() error {
	fmt.Printf("%8s %8s %8s %8s %8s %8s %8s %8s %9s %10s\n", "objects", "start", "read", "judge", "report", "total", "growth", "memory", "re-check", "findings")
	var last result
	for _, n := range []int{100, 1000, 2000, 5000, 10_000} {
		var r result
		if err := measure(&r, "-objects", strconv.Itoa(n)); err != nil {
			return err
		}
		growth := "-"
		if last.Objects > 0 { // 1.00 is linear
			growth = fmt.Sprintf("%.2f", float64(r.total()-r.Start)/float64(last.total()-last.Start)*float64(last.Objects)/float64(n))
		}
		ms := func(d time.Duration) string { return strconv.Itoa(int(d.Milliseconds())) + " ms" }
		fmt.Printf("%8d %8s %8s %8s %8s %8s %8s %5d MB %6d µs %10d\n", n, ms(r.Start), ms(r.Read), ms(r.Judge), ms(r.Report), ms(r.total()), growth,
			r.Memory>>10, r.Recheck.Microseconds(), r.Findings)
		last = r
	}
	fmt.Printf("\n%.0f objects a second of CPU; a growth of 1.00 is linear\n", float64(last.Objects)/last.total().Seconds())
	var a audited
	if err := measure(&a, "-audit", "20000"); err != nil {
		return err
	}
	fmt.Printf("\naudit of %d objects by %d policies: %d ms of CPU, %d MB at most, of which %d MB with the objects alone, %d violations; of 100 changed objects: %d ms\n",
		a.Objects, a.Policies, a.Full.Milliseconds(), a.Memory>>10, a.Inventory>>10, a.Violations, a.Changed.Milliseconds())
	return nil
}

// measure runs this program again and reads what it measured.
func measure(into any, arguments ...string) error {
	out, err := exec.Command(os.Args[0], arguments...).Output()
	if err == nil {
		err = json.Unmarshal(out, into)
	}
	if err != nil {
		return fmt.Errorf("measure %s: %w", strings.Join(arguments, " "), err)
	}
	return nil
}

// one does what "kubeguardian scan" does, with the same limits on memory.
func one(objects int) error {
	debug.SetGCPercent(50)
	ctx := context.Background()
	r := result{Objects: objects}
	var text bytes.Buffer
	if err := manifests(&text, 0, objects); err != nil {
		return err
	}
	r.Bytes = text.Len()
	began := cpu()
	lap := func() time.Duration {
		d := cpu() - began
		began += d
		return d
	}
	catalogue, err := control.LoadCatalogue(content.Controls())
	if err != nil {
		return err
	}
	files, err := content.Read[policy.File](content.Policies())
	if err != nil {
		return err
	}
	set, err := policy.Load(files...)
	if err != nil {
		return err
	}
	r.Start = lap()
	inv, err := inventory.Read(ctx, inventory.FileInput{Paths: []string{"-"}, Stdin: &text})
	if err != nil {
		return err
	}
	r.Read = lap()
	if objects >= 5000 {
		debug.SetGCPercent(100)
		debug.SetMemoryLimit(max(400<<20, int64(objects)*40<<10))
	}
	findings, err := catalogue.Evaluate(ctx, control.Input{Inventory: inv, Policies: set})
	if err != nil {
		return err
	}
	r.Judge, r.Findings = lap(), len(findings)
	if err := (report.JSON{}).Write(io.Discard, report.New(catalogue, findings)); err != nil {
		return err
	}
	r.Report = lap()
	if r.Memory, err = peak(); err != nil {
		return err
	}
	judge, err := catalogue.Judge(control.Input{Inventory: inv, Policies: set})
	if err != nil {
		return err
	}
	lap()
	const rechecks = 500
	for i := range rechecks {
		if _, err := judge.Object(ctx, inv.Objects()[i%objects]); err != nil {
			return err
		}
	}
	r.Recheck = lap() / rechecks
	return json.NewEncoder(os.Stdout).Encode(r)
}

// cpu returns the processor time of the process, that of the system included.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peak returns the most memory that the process has had, in KiB.
func peak() (int, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	value, _, _ := strings.Cut(rest, "kB")
	return strconv.Atoi(strings.TrimSpace(value))
}

// manifests writes Deployments with the numbers from first to before end, each with a container or two, some of them
// careless.
func manifests(w io.Writer, first, end int) error {
	for i := first; i < end; i++ {
		privileged, tag := "false", fmt.Sprintf("1.%d.%d", i%7, i)
		if i%10 == 0 {
			privileged, tag = "true", "latest"
		}
		if _, err := fmt.Fprintf(w, deployment, i, i%50, i, i, i, i%100, i, tag, privileged); err != nil {
			return err
		}
	}
	return nil
}

const deployment = `---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web-%d
  namespace: team-%d
  labels: {app: web-%d, team: checkout}
spec:
  replicas: 3
  selector:
    matchLabels: {app: web-%d}
  template:
    metadata:
      labels: {app: web-%d, team: checkout}
    spec:
      serviceAccountName: web-%d
      automountServiceAccountToken: false
      securityContext:
        runAsNonRoot: true
        seccompProfile: {type: RuntimeDefault}
      containers:
      - name: web-%d
        image: registry.example.com/shop/web:%s
        imagePullPolicy: IfNotPresent
        ports:
        - {name: http, containerPort: 8080}
        env:
        - name: DATABASE_HOST
          value: database.shop.svc
        resources:
          requests: {cpu: 100m, memory: 128Mi}
          limits: {memory: 128Mi}
        securityContext:
          privileged: %s
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities: {drop: [ALL]}
        livenessProbe:
          httpGet: {path: /healthz, port: http}
        volumeMounts:
        - {name: tmp, mountPath: /tmp}
      volumes:
      - name: tmp
        emptyDir: {sizeLimit: 16Mi}
`
