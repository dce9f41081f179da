// Command demo tells the story of KubeGuardian on a real API server: score,
// attacks, better score, page.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/test/story"
)

const usage = `demo plays KubeGuardian's story; run it with "make demo".

  DEMO_EXIT=1                      end after the story, non-zero if a step did not happen
  DEMO_EXTERNAL=1 KUBECONFIG=FILE  use that cluster instead of the lab, as its administrator
  DEMO_CONFIG=FILE                 with DEMO_EXTERNAL: the server's configuration; alerts need
                                   one whose "kubeguardian setup kubeconfig" the API server has
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout)
	interrupted := ctx.Err() != nil
	stop()
	if interrupted && (err == nil || errors.Is(err, context.Canceled)) {
		fmt.Println("\ndemo: interrupted; everything it started is gone")
		os.Exit(interruptedCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo: error:", err)
		os.Exit(1)
	}
}

// interruptedCode is 0 when Ctrl-C is how the demo is meant to end.
func interruptedCode() int {
	if os.Getenv("DEMO_EXIT") == "1" {
		return 130
	}
	return 0
}

func run(ctx context.Context, out io.Writer) (err error) {
	if len(os.Args) > 1 {
		fmt.Fprint(out, usage)
		return errors.New("the demo takes no arguments")
	}
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	opts := story.Options{Root: root, Progress: out}
	if os.Getenv("DEMO_EXTERNAL") == "1" {
		if opts.Kubeconfig = os.Getenv("KUBECONFIG"); opts.Kubeconfig == "" {
			return errors.New("DEMO_EXTERNAL=1 needs KUBECONFIG")
		}
		opts.Config = os.Getenv("DEMO_CONFIG")
	}
	d := demo{out: out, began: time.Now()}
	d.title("Start a real Kubernetes API server and KubeGuardian")
	if d.Story, err = story.Start(ctx, opts); err != nil {
		return err
	}
	defer func() {
		if failed := d.Stop(); failed != nil {
			err = fmt.Errorf("clean up: %w", failed)
		}
	}()

	if err := d.tell(ctx); err != nil {
		if ctx.Err() != nil {
			return ctx.Err() // a step that was interrupted is no failure
		}
		return err
	}
	fmt.Fprintf(out, "\nPage   %s\nToken  %s\n", d.Page, d.Token)
	if os.Getenv("DEMO_EXIT") == "1" {
		return nil
	}
	fmt.Fprintln(out, "\nCtrl-C ends the demo and removes everything it started.")
	fmt.Fprintf(out, "Try it:  export KUBECONFIG=%s\n", d.Kubeconfig)
	<-ctx.Done()
	fmt.Fprintln(out, "\nending …")
	return nil
}

// A demo is the story with a voice.
type demo struct {
	*story.Story
	out   io.Writer
	began time.Time
	steps int
}

func (d *demo) title(text string) {
	d.steps++
	fmt.Fprintf(d.out, "\n%d. %s (after %.0f s)\n\n", d.steps, text, time.Since(d.began).Seconds())
}

func (d *demo) say(format string, args ...any) {
	for line := range strings.Lines(fmt.Sprintf(format, args...)) {
		fmt.Fprintf(d.out, "   %s\n", strings.TrimRight(line, "\n"))
	}
}

func (d *demo) tell(ctx context.Context) error {
	d.title("Deploy Internship Matcher the way teams start")
	before, err := d.deploy(ctx, "insecure")
	if err != nil {
		return err
	}
	d.title("Attack it")
	alerts, err := d.attack(ctx)
	if err != nil {
		return err
	}
	if d.Blind {
		d.say("No alerts: this API server does not send its audit log here. Give it what\n\"kubeguardian setup kubeconfig\" prints, and the demo that configuration by DEMO_CONFIG.")
	}
	d.title("Deploy Internship Matcher done right")
	after, err := d.deploy(ctx, "secured")
	if err != nil {
		return err
	}
	if after <= before {
		return fmt.Errorf("the score did not rise: %.1f before, %.1f after", before, after)
	}
	d.title("What happened")
	if alerts < 5 {
		return fmt.Errorf("score %.1f -> %.1f of 100, but only %d attacks raised an alert", before, after, alerts)
	}
	d.say("score %.1f -> %.1f of 100, %d alerts, the denied objects never reached etcd", before, after, alerts)
	return nil
}

// deploy applies a variant of the application and returns the score of the
// cluster with it, after printing it.
func (d *demo) deploy(ctx context.Context, variant string) (float64, error) {
	said, err := d.Deploy(ctx, variant)
	if err != nil {
		return 0, err
	}
	d.say("kubectl apply -f examples/internship-matcher/deploy/%s: %d objects, %d warnings by policies\n\n",
		variant, strings.Count(said, " created")+strings.Count(said, " configured"), strings.Count(said, "Warning: ["))
	text, err := d.Scan(ctx, "text")
	if err != nil {
		return 0, err
	}
	summary, _, _ := strings.Cut(text, "\nFailed (")
	d.say("$ kubeguardian scan --cluster\n%s", summary)

	data, err := d.Scan(ctx, "json")
	if err != nil {
		return 0, err
	}
	var report struct{ Score control.Score }
	if err := json.Unmarshal([]byte(data), &report); err != nil {
		return 0, fmt.Errorf("read report: %w", err)
	}
	if report.Score.Total == nil {
		return 0, errors.New("scan of the cluster: no score")
	}
	return *report.Score.Total, nil
}

// attack plays all attacks of the lab and returns how many alerts they raised.
func (d *demo) attack(ctx context.Context) (alerts int, err error) {
	names, err := d.Attacks()
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		outcome, err := d.Attack(ctx, name)
		if err != nil {
			return alerts, err
		}
		d.say("%s: %s", name, outcome.Want.Description)
		if outcome.Want.Denied != "" {
			d.say("  DENIED  %s", denial(outcome.Answer))
		}
		if a := outcome.Alert; a != nil {
			alerts++
			d.say("  ALERT   %s", a.Output)
			d.say("          audit id %v, %.1f s after the request", a.OutputFields["ka.auditid"], outcome.Delay.Seconds())
		}
		d.say("\n")
		if err := d.Undo(ctx); err != nil {
			return alerts, err
		}
	}
	return alerts, nil
}

// denial returns why the API server refused, from what kubectl printed.
func denial(answer string) string {
	_, reason, found := strings.Cut(answer, "denied the request: ")
	if !found {
		reason = answer
	}
	return strings.Join(strings.Fields(reason), " ")
}
