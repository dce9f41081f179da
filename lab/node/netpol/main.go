// Command netpol enforces the NetworkPolicies of the lab's one node: it turns
// them into one nftables table, which it replaces as a whole at each change of
// a policy, a pod or a namespace.
//
// It knows IPv4 only, and applies to a pod a moment after that has its address.
// Connections that stand stay. What the node itself sends to its pods, as the
// kubelet's probes, is never refused. Rules of other kinds of network policy are
// not its matter.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "kubeconfig `file` of a user who may list pods, namespaces and network policies")
	flag.Parse()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *kubeconfig, log); err != nil {
		log.Error("stop", "error", err)
		os.Exit(1)
	}
}

// run enforces until ctx ends.
func run(ctx context.Context, kubeconfig string, log *slog.Logger) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return fmt.Errorf("read kubeconfig: %w", err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	pods, namespaces := factory.Core().V1().Pods(), factory.Core().V1().Namespaces()
	policies := factory.Networking().V1().NetworkPolicies()
	changed := make(chan struct{}, 1)
	notify := func() {
		select {
		case changed <- struct{}{}:
		default: // it will be looked at anyway
		}
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { notify() },
		UpdateFunc: func(any, any) { notify() },
		DeleteFunc: func(any) { notify() },
	}
	for _, informer := range []cache.SharedIndexInformer{pods.Informer(), namespaces.Informer(), policies.Informer()} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return fmt.Errorf("watch: %w", err)
		}
	}
	factory.Start(ctx.Done())
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return fmt.Errorf("list %s: %w", kind, ctx.Err())
		}
	}
	see := func() (c cluster, err error) {
		if c.pods, err = pods.Lister().List(labels.Everything()); err != nil {
			return c, err
		}
		if c.namespaces, err = namespaces.Lister().List(labels.Everything()); err != nil {
			return c, err
		}
		c.policies, err = policies.Lister().List(labels.Everything())
		return c, err
	}
	return enforce(ctx, changed, see, log)
}

// enforce replaces the table when it is told that something changed.
func enforce(ctx context.Context, changed chan struct{}, see func() (cluster, error), log *slog.Logger) error {
	const settle, again = 20 * time.Millisecond, time.Second
	current := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		time.Sleep(settle) // changes come in swarms
		c, err := see()
		var table string
		if err == nil {
			table, err = c.render()
		}
		if err == nil && table != current {
			if err = apply(ctx, table); err == nil {
				current = table
				log.Info("applied", "policies", len(c.policies), "lines", strings.Count(table, "\n"))
			}
		}
		if err != nil {
			log.Error("the rules before stay", "error", err)
			time.AfterFunc(again, func() {
				select {
				case changed <- struct{}{}:
				default:
				}
			})
		}
	}
}

// apply gives the kernel a whole table in one transaction.
func apply(ctx context.Context, table string) error {
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(table)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, out)
	}
	return nil
}
