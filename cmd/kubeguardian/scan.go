package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/report"
	"github.com/kubeguardian/kubeguardian/tool"
)

const scanUsage = `Usage: kubeguardian scan [FLAGS] PATH…
       kubeguardian scan [FLAGS] --cluster
       kubeguardian scan --node [--output FILE]

Judges Kubernetes manifests or a running cluster by all controls, and prints the
security score, what to fix next, and what failed. PATH is a file, a folder with
*.yaml, *.yml and *.json at any depth, or - for standard input. A Helm chart (a
folder with Chart.yaml, or a .tgz) is rendered and a kustomization is built
first, without helm, kubectl or the network; of a kustomization and its overlays
only the overlays are judged, unless PATH names it.

What cannot be read or rendered is not verified, for all that it may hold: the
report has the rest, the reason is on stderr, and the exit code is 2.

  --cluster            scan the cluster of the kubeconfig; secrets are not read
  --kubeconfig FILE    credentials for --cluster (default: $KUBECONFIG, then
                       ~/.kube/config, then those of the pod this runs in)
  --evidence PATH      what was seen elsewhere: a file or a folder of them, or a
                       source folder (one with .git, .github, .gitlab-ci.yml,
                       .tekton or a Jenkinsfile), whose pipelines, code owners and
                       secrets are looked at; may be given several times
  --node               write what the node that this runs on shows, as JSON: a
                       scan of the cluster takes it by --evidence. Run it as
                       root; what it could not read is named
  --values FILE        values for charts; may be given several times, later wins
  --set KEY=VALUE      one value for charts, as in helm; may be given several times
  --level LEVEL        list findings of one level only: infrastructure, cluster,
                       container, application or code; score and exit code stay
                       those of everything
  --fail-on SEVERITY   exit with 1 for failures of this severity or worse:
                       critical, high, medium, low or none (default high)
  --min-score N        exit with 1 for a score under N of 100
  --show fail|all      what the text lists (default fail); JSON always has all
  --format FORMAT      text (default), json, sarif, junit, html or openreports
  --output FILE        write the report to a file, which appears when complete
  --exceptions PATH    accepted risks: a file of SecurityException objects or a
                       folder of them; may be given several times; the objects of
                       a scanned cluster count by themselves
  --allow-annotations  grant what objects ask for in their annotation
                       kubeguardian.dev/exceptions
  --baseline FILE      an earlier report in JSON: only failures that are not in it
                       make the exit code 1
  --history FILE       an earlier report in JSON, for the trend in HTML; may be
                       given several times

Exit codes: 0 clean, 1 failures or a score as set by --fail-on and --min-score,
2 the scan could not be done, or not for all of the input.

Examples: score an application in CI, and fail on anything critical; score a
chart as it is installed in production:

  kubeguardian scan ./deploy --fail-on critical --format json --output score.json
  kubeguardian scan ./charts/shop --values production.yaml --set web.replicas=3
`

// scanOptions are the flags of scan.
type scanOptions struct {
	paths      []string
	evidence   []string
	values     []string // files with values for charts
	set        []string // values for charts
	cluster    bool
	kubeconfig string
	node       bool
	level      finding.Level    // "" for all
	failOn     finding.Severity // "" for none
	minScore   float64
	all        bool
	format     string
	output     string
	exceptions []string
	// annotations grants the exceptions that objects ask for.
	annotations bool
	baseline    string
	history     []string
}

func scan(ctx context.Context, args []string, std streams) error {
	opts, err := scanFlags(args, std.out)
	if err != nil {
		return err
	}
	if opts.node {
		return opts.scanNode(ctx, std)
	}
	catalogue, set, err := builtIn()
	if err != nil {
		return err
	}
	earlier, err := opts.earlier()
	if err != nil {
		return err
	}
	speakPlainly(std.err)
	debug.SetGCPercent(garbagePercent)
	inv, err := opts.inventory(ctx, std.in)
	if err != nil {
		return err
	}
	var seen *evidence.Set
	if len(opts.evidence) > 0 {
		if seen, err = evidence.Load(ctx, opts.evidence...); err != nil {
			return err
		}
	}
	problems := inv.Problems
	if objects := len(inv.Objects()); objects >= manyObjects {
		debug.SetGCPercent(garbagePercentOfMany)
		debug.SetMemoryLimit(max(memoryFloor, int64(objects)*memoryPerObject))
	}
	remark(std.err, inv, seen, catalogue)
	in := control.Input{Inventory: inv, Policies: set, Evidence: seen, Now: time.Now().UTC()}
	if in.Exceptions, err = opts.readExceptions(inv, std.err); err != nil {
		return err
	}
	findings, err := catalogue.Evaluate(ctx, in)
	if err != nil {
		return fmt.Errorf("evaluate controls: %w", err)
	}
	full := report.New(catalogue, findings)
	full.Time, full.Scanned, full.Exceptions = in.Now, opts.scanned(), catalogue.Outcomes(in, findings)
	full.Tools = control.Tools(in)
	if earlier.baseline != nil {
		full.Against(earlier.baseline)
	}
	view := full
	if opts.level != "" {
		view = full.Only(opts.level)
	}
	if err := opts.write(view, catalogue, earlier.history, std.out); err != nil {
		return err
	}
	if problems != nil {
		return problems // the scan is not whole, whatever the gate says
	}
	return opts.gate(full, std.err)
}

// What a scan lets the garbage collector do: memory before speed where it is
// little, and where it is much as far as the objects need it.
const (
	garbagePercent       = 50
	manyObjects          = 5000
	garbagePercentOfMany = 100 // up to a limit that grows with the objects
	memoryFloor          = 400 << 20
	memoryPerObject      = 40 << 10
)

func scanFlags(args []string, out io.Writer) (*scanOptions, error) {
	o := &scanOptions{failOn: finding.High}
	flags := newFlags("scan")
	flags.BoolVar(&o.cluster, "cluster", false, "")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "")
	flags.BoolVar(&o.node, "node", false, "")
	flags.StringVar(&o.output, "output", "", "")
	flags.Func("evidence", "", appendTo(&o.evidence))
	flags.Func("set", "", appendTo(&o.set))
	flags.Func("values", "", appendTo(&o.values))
	flags.Float64Var(&o.minScore, "min-score", 0, "")
	flags.Func("level", "", func(s string) (err error) {
		o.level, err = finding.ParseLevel(s)
		return err
	})
	flags.Func("fail-on", "", func(s string) (err error) {
		if o.failOn = ""; s != "none" {
			if o.failOn, err = finding.ParseSeverity(s); err != nil {
				err = fmt.Errorf("%w, or none", err)
			}
		}
		return err
	})
	flags.Func("show", "", choice(&o.all, "fail", "all"))
	flags.Func("format", "", o.setFormat)
	flags.Func("exceptions", "", appendTo(&o.exceptions))
	flags.BoolVar(&o.annotations, "allow-annotations", false, "")
	flags.StringVar(&o.baseline, "baseline", "", "")
	flags.Func("history", "", appendTo(&o.history))
	var err error
	if o.paths, err = parse(flags, args, scanUsage, out); err != nil {
		return nil, err
	}
	err = o.check()
	if o.node {
		err = o.checkNode(flags)
	}
	if err != nil {
		return nil, wrongUsage("scan", fmt.Errorf("scan: %w", err))
	}
	return o, nil
}

// appendTo makes a flag that may be given several times.
func appendTo(list *[]string) func(string) error {
	return func(s string) error {
		*list = append(*list, s)
		return nil
	}
}

// choice makes a flag that is either of two words.
func choice(second *bool, no, yes string) func(string) error {
	return func(s string) error {
		if *second = s == yes; s == no || s == yes {
			return nil
		}
		return fmt.Errorf("want %s or %s", no, yes)
	}
}

func (o *scanOptions) check() error {
	switch {
	case slices.Contains(o.paths, ""), slices.Contains(o.evidence, ""), slices.Contains(o.values, ""):
		return errors.New("a path is empty: is a variable not set?")
	case len(o.paths) == 0 && !o.cluster:
		return errors.New("nothing to scan: name files or folders, - for standard input, or --cluster")
	case len(o.paths) > 0 && o.cluster:
		return errors.New("files and a cluster cannot share a score: scan one after the other")
	case o.cluster && len(o.values)+len(o.set) > 0:
		return errors.New("--values and --set are for charts, not for a cluster")
	case o.kubeconfig != "" && !o.cluster:
		return errors.New("--kubeconfig needs --cluster")
	case !(o.minScore >= 0 && o.minScore <= 100): // NaN as well
		return errors.New("--min-score must be from 0 to 100")
	}
	return nil
}

// scanned names the input.
func (o *scanOptions) scanned() []string {
	if o.cluster {
		return []string{"cluster"}
	}
	return o.paths
}

// checkNode allows nothing beside --node that it would leave out of account.
func (o *scanOptions) checkNode(flags *flag.FlagSet) error {
	if len(o.paths) > 0 {
		return errors.New("--node takes no path: it looks at the node that it runs on")
	}
	var err error
	flags.Visit(func(f *flag.Flag) {
		if f.Name != "node" && f.Name != "output" {
			err = fmt.Errorf("--%s has no meaning with --node, which judges nothing: give its output by --evidence", f.Name)
		}
	})
	return err
}

// builtIn loads the controls and the policies that define them.
func builtIn() (*control.Catalogue, *policy.Set, error) {
	catalogue, err := control.LoadCatalogue(content.Controls())
	if err != nil {
		return nil, nil, fmt.Errorf("load built-in controls: %w", err)
	}
	files, err := content.Read[policy.File](content.Policies())
	if err != nil {
		return nil, nil, fmt.Errorf("read built-in policies: %w", err)
	}
	set, err := policy.Load(files...)
	if err != nil {
		return nil, nil, fmt.Errorf("load built-in policies: %w", err)
	}
	return catalogue, set, nil
}

func (o *scanOptions) inventory(ctx context.Context, stdin io.Reader) (*inventory.Inventory, error) {
	if !o.cluster {
		return inventory.Read(ctx, inventory.FileInput{Paths: o.paths, Stdin: untilDone(ctx, stdin), Values: o.values, Set: o.set})
	}
	config, err := restConfig(o.kubeconfig, "name another one by --kubeconfig, or scan files instead: kubeguardian scan ./manifests")
	if err != nil {
		return nil, err
	}
	return inventory.FromCluster(ctx, config)
}

// untilDone lets ctx end a read that waits for input.
func untilDone(ctx context.Context, from io.Reader) io.Reader {
	r, w := io.Pipe()
	started := false
	return readerFunc(func(p []byte) (int, error) {
		if !started {
			started = true
			context.AfterFunc(ctx, func() { w.CloseWithError(ctx.Err()) })
			go func() {
				_, err := io.Copy(w, from)
				w.CloseWithError(err)
			}()
		}
		return r.Read(p)
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// restConfig finds credentials as kubectl does; hint is for who has none.
func restConfig(file, hint string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = file
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, hinted{errors.New("no kubeconfig and not running in a cluster"), hint}
	}
	if err != nil {
		return nil, hinted{fmt.Errorf("load kubeconfig: %w", err), hint}
	}
	return config, nil
}

// speakPlainly sends what libraries log to stderr, without what a terminal
// would obey: charts have a part in the wording. What they write to os.Stderr
// themselves goes nowhere, such as that a kustomization has old fields, of which
// kustomize does not name the file: they work, and are no matter of security.
// Nothing of ours writes there but through stderr.
func speakPlainly(stderr io.Writer) {
	if nowhere, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0); err == nil {
		os.Stderr = nowhere
	}
	log.SetFlags(0)
	log.SetOutput(plainly(stderr))
}

// plainly writes lines as notes.
func plainly(stderr io.Writer) io.Writer {
	return writerFunc(func(p []byte) (int, error) {
		for line := range strings.Lines(string(p)) {
			fmt.Fprintf(stderr, "kubeguardian: note: %s\n", report.Plain(strings.TrimSuffix(line, "\n")))
		}
		return len(p), nil
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// remarks is the number of remarks printed one by one.
const remarks = 10

// remark says what the scan could not see or judge.
func remark(w io.Writer, inv *inventory.Inventory, seen *evidence.Set, catalogue *control.Catalogue) {
	var lines []string
	for _, s := range inv.Skipped {
		lines = append(lines, "skipped "+s.Source+": "+s.Reason)
	}
	for _, g := range inv.Gaps {
		if g.Kind.Kind != "Secret" { // by design, and the report says so
			lines = append(lines, g.Reason)
		}
	}
	lines = append(lines, unjudged(inv, catalogue)...)
	if seen != nil {
		for _, s := range seen.Skipped {
			lines = append(lines, fmt.Sprintf("not used of %s: %s (%d)", s.Source, s.Reason, s.Count))
		}
	}
	for _, line := range lines[:min(remarks, len(lines))] {
		fmt.Fprintf(w, "kubeguardian: note: %s\n", report.Plain(line))
	}
	if more := len(lines) - remarks; more > 0 {
		fmt.Fprintf(w, "kubeguardian: note: and %d more\n", more)
	}
}

// unjudged names the kinds that no control knows, in the order of their names:
// custom resources, and built-in kinds under a misspelt apiVersion.
func unjudged(inv *inventory.Inventory, catalogue *control.Catalogue) (lines []string) {
	subjects, known := map[string]bool{}, tool.BuiltIn()
	for _, ctl := range catalogue.Controls() {
		for _, s := range ctl.Subjects {
			subjects[s] = true
		}
	}
	first, count := map[schema.GroupVersionKind]string{}, map[schema.GroupVersionKind]int{}
	var kinds []schema.GroupVersionKind
	for _, o := range inv.Objects() {
		kind := o.GroupVersionKind()
		if scheme.Scheme.Recognizes(kind) || subjects[kind.GroupKind().String()] || known.Knows(kind.Group) {
			continue
		}
		if count[kind]++; count[kind] == 1 {
			kinds = append(kinds, kind)
			first[kind] = o.Source
		}
	}
	for _, kind := range kinds {
		lines = append(lines, fmt.Sprintf("not judged, no control knows this kind: %d %s of %s, the first at %s",
			count[kind], kind.Kind, kind.GroupVersion(), first[kind]))
	}
	return lines
}

// gate turns the report of everything into the exit code.
func (o *scanOptions) gate(r *report.Report, stderr io.Writer) error {
	if o.minScore > 0 {
		if r.Score.Total == nil {
			return errors.New("no score to compare with --min-score: no control applies to the input")
		}
		// As printed, so that the limit that a report shows is met by its score.
		if math.Round(*r.Score.Total*10)/10 < o.minScore {
			fmt.Fprintf(stderr, "kubeguardian: score %s is under --min-score %g\n", report.Points(*r.Score.Total, 100), o.minScore)
			return exitCode(1)
		}
	}
	if o.failOn != "" && r.Failures(o.failOn) > 0 {
		return exitCode(1)
	}
	return nil
}
