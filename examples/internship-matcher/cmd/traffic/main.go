// Command traffic uses the application as people do, or attacks it, and prints
// what came of it.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/traffic"
)

const usage = `usage: traffic [flags] journeys|attacks

journeys  people find each other: register, offer, search, apply, decide
attacks   injections, credential stuffing, scraping

It exits with 1 when a journey fails or an injection goes through. All figures
are positive.

`

type options struct {
	url      string
	count    int
	rate     float64
	parallel int
	timeout  time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.url, "url", "http://localhost:8080", "`address` of the gateway")
	flag.IntVar(&o.count, "n", 1000, "how many journeys")
	flag.Float64Var(&o.rate, "rate", 20, "journeys begun per second")
	flag.IntVar(&o.parallel, "parallel", 16, "journeys at once, at most")
	flag.DurationVar(&o.timeout, "timeout", time.Minute, "what a journey may take")
	flag.Usage = func() { fmt.Fprint(flag.CommandLine.Output(), usage); flag.PrintDefaults() }
	flag.Parse()
	run := map[string]func(context.Context, options) (clean bool, err error){"journeys": journeys, "attacks": attacks}[flag.Arg(0)]
	if run == nil || flag.NArg() != 1 || !o.positive() {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	clean, err := run(ctx, o)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "traffic:", err)
		os.Exit(2)
	case !clean:
		os.Exit(1)
	}
}

func (o options) positive() bool {
	return o.count > 0 && o.rate > 0 && o.parallel > 0 && o.timeout > 0
}

func (o options) client() traffic.Client {
	return traffic.Client{URL: o.url, HTTP: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: o.parallel}, Timeout: o.timeout}}
}

// journeys runs journeys at a rate and prints how they went.
func journeys(ctx context.Context, o options) (clean bool, err error) {
	var (
		client  = o.client()
		limiter = rate.NewLimiter(rate.Limit(o.rate), 1)
		slots   = make(chan struct{}, o.parallel)
		wg      sync.WaitGroup
		failed  atomic.Int64
		mu      sync.Mutex
		took    []time.Duration
	)
	start := time.Now()
	for n := range o.count {
		if limiter.Wait(ctx) != nil {
			break // interrupted: say what was until then
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.timeout)
			defer cancel()
			begin := time.Now()
			if _, err := traffic.Journey(ctx, client, n); err != nil {
				failed.Add(1)
				fmt.Fprintf(os.Stderr, "journey %d: %v\n", n, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(begin))
		})
	}
	wg.Wait()
	fmt.Printf("%d journeys completed, %d failed, %.1f per second\n", len(took), failed.Load(), float64(len(took))/time.Since(start).Seconds())
	if len(took) > 0 {
		slices.Sort(took)
		at := func(q float64) time.Duration { return took[int(q*float64(len(took)-1))].Round(time.Millisecond) }
		fmt.Printf("each took: median %s, p95 %s, p99 %s\n", at(.5), at(.95), at(.99))
	}
	return failed.Load() == 0 && len(took) > 0, nil
}

// attacks attacks in each way and prints what was blocked.
func attacks(ctx context.Context, o options) (clean bool, err error) {
	client := o.client()
	injections, err := traffic.Injections(ctx, client)
	if err != nil {
		return false, err
	}
	stuffing, err := traffic.Stuffing(ctx, client, 50)
	if err != nil {
		return false, err
	}
	scraping, err := traffic.Scraping(ctx, client, 500)
	if err != nil {
		return false, err
	}
	kinds, all, blocked := []string{}, map[string]int{}, map[string]int{}
	clean = true
	for _, a := range slices.Concat(injections, stuffing, scraping) {
		if all[a.Kind] == 0 {
			kinds = append(kinds, a.Kind)
		}
		all[a.Kind]++
		if a.Blocked() {
			blocked[a.Kind]++
		}
	}
	for _, a := range injections {
		if !a.Blocked() {
			clean = false
			fmt.Printf("went through: %s, %s\n", a.Kind, a.Request)
		}
	}
	for _, kind := range kinds {
		fmt.Printf("%-22s %3d of %3d refused\n", kind, blocked[kind], all[kind])
	}
	return clean, nil
}
