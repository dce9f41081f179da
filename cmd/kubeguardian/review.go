package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/engine"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/externaldata"
	"github.com/kubeguardian/kubeguardian/policy/setting"
	"github.com/kubeguardian/kubeguardian/report"
	"github.com/kubeguardian/kubeguardian/review"
)

const reviewUsage = `Usage: kubeguardian review [FLAGS] OBJECT…
       kubeguardian review --cluster [FLAGS]

Judges objects by admission policies as an API server would judge the requests
for them, and prints one line for each violation. OBJECT is a file, a folder with
*.yaml, *.yml and *.json at any depth, a Helm chart, a kustomization, or - for
standard input. An AdmissionReview among the objects is judged as it is. With
--cluster what is in a cluster is judged, as if it were created now.

A policy that asks for what is not given, such as the namespace of an object, is
refused by name, and the exit code is 2: nobody knows what the API server would
say.

  --policies PATH      policies and their bindings: a file, a folder or an OCI
                       artifact, oci://HOST/REPOSITORY@sha256:DIGEST; may be given
                       several times (default: the built-in policies). Other
                       objects among them are taken as --context
  --settings FILE      how far policies are enforced, whom they spare and what their
                       parameters are: kind PolicySettings (docs/policies.md)
  --context PATH       what policies may ask for: namespaces, parameters and other
                       objects of the cluster, as files or folders; may be given
                       several times. The objects that are judged count as well;
                       data.inventory of templates holds both, and is not known
                       without --context
  --enforcement-point NAME
                       where Gatekeeper's constraints with scoped actions act:
                       gator.gatekeeper.sh (default), validation.gatekeeper.sh or
                       audit.gatekeeper.sh (default with --cluster)
  --cluster            judge what is in the cluster: the kinds that 'kubeguardian
                       setup rbac' lists, in all namespaces that the policies match
  --kubeconfig FILE    credentials for --cluster (default: $KUBECONFIG, the usual
                       file, or the account of the pod)
  --ask-providers      let templates and mutators ask the Providers of external
                       data among the policies; without it no connection is made,
                       and a policy that would ask is refused by name, unless
                       the answers are given as ProviderResponses
  --provider-cert FILE the certificate (PEM) that providers know us by, and
  --provider-key FILE  its key
  --operation NAME     CREATE (default), UPDATE or DELETE
  --old PATH           the objects as they were before an UPDATE
  --user NAME          who asks, for policies that look at request.userInfo
  --group NAME         a group of the user; may be given several times
  --values FILE        values for charts; may be given several times, later wins
  --set KEY=VALUE      one value for charts, as in helm; may be given several times
` + registryUsage + `  --format FORMAT      json (default): an object on each line, or text
  --output FILE        write to a file, which appears when complete

Exit codes: 0 nothing is denied, 1 something is, 2 not all could be judged.

Example: would the API server take these manifests?

  kubeguardian review --policies ./policies --context namespaces.yaml ./deploy
`

// reviewOptions are the flags of review.
type reviewOptions struct {
	objects   inventory.FileInput
	cluster   bool
	kubeconf  string
	policies  []string
	settings  string
	registry  registryFlags
	context   []string
	point     string
	operation admissionv1.Operation
	old       string
	user      authenticationv1.UserInfo
	text      bool
	output    string
	ask       bool
	providers externaldata.Options
}

func reviewFlags(args []string, out io.Writer) (*reviewOptions, error) {
	o := &reviewOptions{
		operation: admissionv1.Create, objects: inventory.FileInput{Reviews: true}, providers: externaldata.Options{TTL: externaldata.DefaultTTL},
	}
	flags := newFlags("review")
	flags.Func("policies", "", appendTo(&o.policies))
	flags.StringVar(&o.settings, "settings", "", "")
	o.registry.add(flags)
	flags.Func("context", "", appendTo(&o.context))
	flags.BoolVar(&o.cluster, "cluster", false, "")
	flags.StringVar(&o.kubeconf, "kubeconfig", "", "")
	flags.StringVar(&o.point, "enforcement-point", "", "")
	flags.BoolVar(&o.ask, "ask-providers", false, "")
	flags.StringVar(&o.providers.CertFile, "provider-cert", "", "")
	flags.StringVar(&o.providers.KeyFile, "provider-key", "", "")
	flags.Func("operation", "", o.setOperation)
	flags.StringVar(&o.old, "old", "", "")
	flags.StringVar(&o.user.Username, "user", "", "")
	flags.Func("group", "", appendTo(&o.user.Groups))
	flags.Func("values", "", appendTo(&o.objects.Values))
	flags.Func("set", "", appendTo(&o.objects.Set))
	flags.Func("format", "", choice(&o.text, "json", "text"))
	flags.StringVar(&o.output, "output", "", "")
	var err error
	if o.objects.Paths, err = parse(flags, args, reviewUsage, out); err != nil {
		return nil, err
	}
	o.setPoint()
	if err := o.check(); err != nil {
		return nil, wrongUsage("review", fmt.Errorf("review: %w", err))
	}
	return o, nil
}

func (o *reviewOptions) setOperation(s string) error {
	o.operation = admissionv1.Operation(strings.ToUpper(s))
	if !slices.Contains([]admissionv1.Operation{admissionv1.Create, admissionv1.Update, admissionv1.Delete}, o.operation) {
		return errors.New("want CREATE, UPDATE or DELETE; a CONNECT is judged as an AdmissionReview")
	}
	return nil
}

// setPoint fills in the enforcement point.
func (o *reviewOptions) setPoint() {
	if o.point == "" && o.cluster {
		o.point = "audit.gatekeeper.sh"
	}
	o.point = cmp.Or(o.point, "gator.gatekeeper.sh")
}

func (o *reviewOptions) check() error {
	switch {
	case o.cluster && len(o.objects.Paths)+len(o.objects.Values)+len(o.objects.Set) > 0:
		return errors.New("--cluster judges what is there: name no files, and no values for charts")
	case o.cluster && o.operation != admissionv1.Create:
		return errors.New("--cluster judges objects as if they were created: --operation has no meaning")
	case o.kubeconf != "" && !o.cluster:
		return errors.New("--kubeconfig needs --cluster")
	case o.cluster:
		return o.checkContext()
	case len(o.objects.Paths) == 0:
		return errors.New("nothing to judge: name files or folders, - for standard input, or --cluster")
	}
	return o.checkContext()
}

func (o *reviewOptions) checkContext() error {
	switch {
	case slices.Contains(slices.Concat(o.objects.Paths, o.policies, o.context), ""):
		return errors.New("a path is empty: is a variable not set?")
	case slices.Contains(slices.Concat(o.policies, o.context, []string{o.old}), "-"):
		return errors.New("only objects are read from standard input")
	case !slices.Contains(engine.Points(), o.point):
		return fmt.Errorf("unknown enforcement point %q: want one of %s", o.point, strings.Join(engine.Points(), ", "))
	case o.operation == admissionv1.Update && o.old == "":
		return errors.New("--operation UPDATE needs --old: the objects as they were before")
	case o.operation != admissionv1.Update && o.old != "":
		return errors.New("--old needs --operation UPDATE")
	}
	return nil
}

// reviewObjects is the command review.
func reviewObjects(ctx context.Context, args []string, std streams) error {
	opts, err := reviewFlags(args, std.out)
	if err != nil {
		return err
	}
	speakPlainly(std.err)
	set, beside, err := opts.readPolicies(ctx)
	if err == nil {
		set, err = set.At(opts.point)
	}
	if err != nil {
		return err
	}
	if set, err = opts.asking(ctx, set); err != nil {
		return err
	}
	if opts.cluster {
		return opts.judgeCluster(ctx, set, beside, std)
	}
	opts.objects.Stdin = untilDone(ctx, std.in)
	objects, err := inventory.Read(ctx, opts.objects)
	if err != nil {
		return err
	}
	reviewer, err := opts.reviewer(ctx, set, objects, beside)
	if err != nil {
		return err
	}
	if opts.old != "" {
		if reviewer.Old, err = inventory.FromFiles(ctx, []string{opts.old}, nil); err != nil {
			return err
		}
	}
	remarkSkipped(std.err, objects)
	return opts.judge(ctx, reviewer, objects, std)
}

// asking returns the set whose policies ask providers, if they may, until ctx
// ends.
func (o *reviewOptions) asking(ctx context.Context, set *engine.Set) (*engine.Set, error) {
	switch p := o.providers; {
	case (p.CertFile == "") != (p.KeyFile == ""):
		return nil, errors.New("review: --provider-cert and --provider-key belong together")
	case p.CertFile != "" && !o.ask:
		return nil, errors.New("review: --provider-cert needs --ask-providers")
	case !o.ask:
		return set, nil
	}
	client, err := externaldata.NewClient(set.Providers(), o.providers)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { client.Close() })
	return set.WithExternalData(client), nil
}

// reviewer makes a reviewer that knows what the flags give.
func (o *reviewOptions) reviewer(ctx context.Context, set *engine.Set, objects *inventory.Inventory, beside []inventory.Text) (*review.Reviewer, error) {
	known, err := o.known(ctx, objects, beside)
	if err != nil {
		return nil, err
	}
	if len(o.context)+len(beside) > 0 {
		if set, err = set.WithInventory(review.Contents(known.Objects())); err != nil {
			return nil, err
		}
	}
	r, err := review.New(set, known)
	if err == nil {
		r.Operation, r.User = o.operation, o.user
	}
	return r, err
}

// readPolicies loads the policies that are given, or the built-in ones, and
// returns the texts of other objects that stand beside them.
func (o *reviewOptions) readPolicies(ctx context.Context) (*engine.Set, []inventory.Text, error) {
	artifacts, err := o.registry.artifacts()
	if err != nil {
		return nil, nil, err
	}
	files, err := artifacts.Read(ctx, content.Policies(), o.policies...)
	if err != nil {
		return nil, nil, fmt.Errorf("read policies: %w", err)
	}
	policies, others, err := engine.Split(files...)
	if err != nil {
		return nil, nil, err
	}
	if len(policies) == 0 {
		return nil, nil, fmt.Errorf("%s: no policies", strings.Join(o.policies, ", "))
	}
	loader, err := o.registry.loader()
	if err != nil {
		return nil, nil, err
	}
	set, err := withSettings(o.settings, policies, func(files []policy.File) (*engine.Set, error) { return loader.Load(files...) })
	texts := make([]inventory.Text, len(others))
	for i, f := range others {
		texts[i] = inventory.Text(f)
	}
	return set, texts, err
}

// withSettings calls use with policies as a file of settings changes them, or
// without one as they are.
func withSettings[T any](file string, policies []policy.File, use func([]policy.File) (T, error)) (T, error) {
	if file == "" {
		return use(policies)
	}
	settings, err := setting.Load(file)
	if err != nil {
		return *new(T), err
	}
	return setting.With(settings, policies, use)
}

// known joins all that policies may ask for.
func (o *reviewOptions) known(ctx context.Context, objects *inventory.Inventory, beside []inventory.Text) (*inventory.Inventory, error) {
	all := slices.Clone(objects.Objects())
	if len(o.context)+len(beside) > 0 {
		given, err := inventory.Read(ctx, inventory.FileInput{Paths: o.context, Texts: beside})
		if err = cmp.Or(err, problems(given)); err != nil {
			return nil, err
		}
		all = append(all, given.Objects()...)
	}
	return inventory.New(inventory.Files, all, nil)
}

// problems returns what was wrong with the files of an inventory, or nil.
func problems(inv *inventory.Inventory) error {
	if inv == nil {
		return nil
	}
	return inv.Problems
}

func remarkSkipped(w io.Writer, inv *inventory.Inventory) {
	for _, s := range inv.Skipped[:min(remarks, len(inv.Skipped))] {
		fmt.Fprintf(w, "kubeguardian: note: skipped %s: %s\n", report.Plain(s.Source), report.Plain(s.Reason))
	}
	if more := len(inv.Skipped) - remarks; more > 0 {
		fmt.Fprintf(w, "kubeguardian: note: and %d more\n", more)
	}
}

// judgeCluster reviews what is in a cluster and prints the violations.
func (o *reviewOptions) judgeCluster(ctx context.Context, set *engine.Set, beside []inventory.Text, std streams) error {
	config, err := restConfig(o.kubeconf, "name another one by --kubeconfig, or review files instead: kubeguardian review ./manifests")
	if err != nil {
		return err
	}
	debug.SetGCPercent(garbagePercent)
	cluster, err := inventory.FromCluster(ctx, config)
	if err != nil {
		return err
	}
	known, err := o.known(ctx, cluster, beside)
	if err != nil {
		return err
	}
	if set.ReadsInventory() {
		if set, err = set.WithInventory(review.Contents(known.Objects())); err != nil {
			return err
		}
	}
	all, err := review.Cluster(ctx, set, cluster, known, o.user)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return o.finish(all, err, std)
}

// judge reviews all objects and prints the violations.
func (o *reviewOptions) judge(ctx context.Context, reviewer *review.Reviewer, objects *inventory.Inventory, std streams) error {
	var all []review.Violation
	errs := []error{objects.Problems}
	for _, object := range objects.Objects() {
		found, err := reviewer.Object(ctx, object)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		all, errs = append(all, found...), append(errs, err)
	}
	return o.finish(all, errors.Join(errs...), std)
}

// finish prints the violations. What could not be judged is the error.
func (o *reviewOptions) finish(all []review.Violation, unjudged error, std streams) error {
	write := func(w io.Writer) error { return writeViolations(w, all, o.text) }
	var err error
	if o.output == "" {
		err = write(std.out)
	} else {
		err = writeFile(o.output, write)
	}
	if err != nil {
		return fmt.Errorf("write violations: %w", err)
	}
	if unjudged != nil {
		return unjudged
	}
	if slices.ContainsFunc(all, func(v review.Violation) bool { return v.Denies() }) {
		return exitCode(1)
	}
	return nil
}

func writeViolations(w io.Writer, all []review.Violation, text bool) error {
	lines := json.NewEncoder(w)
	lines.SetEscapeHTML(false)
	for _, v := range all {
		var err error
		if text {
			_, err = fmt.Fprintf(w, "%s %s %s: [%s] %s\n", cmp.Or(v.Subject.Source, "cluster"), v.Enforcement, v.Subject, v.Policy, report.Plain(v.Message))
		} else {
			err = lines.Encode(v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
