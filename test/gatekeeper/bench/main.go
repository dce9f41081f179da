// Command bench compares the processor time of one review by Gatekeeper's
// client, as its webhook uses it, with that of the product, on the same
// policies and requests in one run. Run it in test/gatekeeper.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	oracle "github.com/kubeguardian/kubeguardian/test/gatekeeper"
)

func main() {
	judge := flag.String("judge", "", "the `program` test/judge of the product; built when not given")
	only := flag.String("only", "", "measure only the cases whose names contain this `text`")
	write := flag.String("write", "", "also write the input of the product for each case to this `folder`")
	flag.Parse()
	if err := run(*judge, *only, *write); err != nil {
		fmt.Fprintln(os.Stderr, "bench: error:", err)
		os.Exit(1)
	}
}

func run(judge, only, write string) error {
	if judge == "" {
		dir, err := os.MkdirTemp("", "judge")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		judge = filepath.Join(dir, "judge")
		build := exec.Command("go", "build", "-o", judge, "./test/judge")
		build.Dir, build.Stderr = "../..", os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("build test/judge: %w", err)
		}
	}
	sets, err := policySets()
	if err != nil {
		return err
	}
	fmt.Printf("%-34s %-11s %12s %12s %9s %11s\n", "policies", "object", "Gatekeeper", "ours", "ratio", "violations")
	for _, set := range sets {
		if !strings.Contains(set.name, only) {
			continue
		}
		if err := measure(judge, write, set); err != nil {
			return fmt.Errorf("%s: %w", set.name, err)
		}
	}
	return nil
}

func measure(judge, write string, set policySet) error {
	setup := oracle.Setup{Policies: set.policies, Point: "validation.gatekeeper.sh"}
	theirs, err := oracle.New(setup)
	if err != nil {
		return err
	}
	for _, name := range []string{"pod", "deployment", "configmap"} {
		request := requests()[name]
		gatekeeper, violations := theirTime(theirs, request)
		input := input(setup, request)
		if write != "" {
			file := strings.ReplaceAll(set.name+"-"+name, " ", "-") + ".jsonl"
			if err := os.WriteFile(filepath.Join(write, file), input, 0o600); err != nil {
				return err
			}
		}
		ours, err := ourTime(judge, input)
		if err != nil {
			return err
		}
		fmt.Printf("%-34s %-11s %12v %12v %8.1fx %11d\n", set.name, name, gatekeeper.Round(100), ours.Round(100), float64(gatekeeper)/float64(ours), violations)
	}
	return nil
}

// round is about how much processor time each round takes.
const round = 300 * time.Millisecond

// theirTime takes the best of three rounds: other processes only make it worse.
func theirTime(g *oracle.Gatekeeper, request []byte) (time.Duration, int) {
	violations := len(g.Answer(request).Violations)
	var best time.Duration
	for range 3 {
		start, n := processorTime(), 0
		for processorTime()-start < round {
			if _, err := g.Review(request); err != nil {
				panic(err) // the first one went well
			}
			n++
		}
		if took := (processorTime() - start) / time.Duration(n); best == 0 || took < best {
			best = took
		}
	}
	return best, violations
}

func processorTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// input is what test/judge reads.
func input(setup oracle.Setup, request []byte) []byte {
	var in bytes.Buffer
	if err := json.NewEncoder(&in).Encode(setup); err != nil {
		panic(err) // texts only
	}
	in.Write(append(request, '\n'))
	return in.Bytes()
}

func ourTime(judge string, in []byte) (time.Duration, error) {
	cmd := exec.Command(judge, "-measure", round.String())
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, err
	}
	var answer struct {
		Nanoseconds int64
		Error       string
	}
	line, err := bufio.NewReader(bytes.NewReader(out)).ReadBytes('\n')
	if err != nil {
		return 0, err
	}
	if err := json.Unmarshal(line, &answer); err != nil {
		return 0, err
	}
	if answer.Error != "" {
		return 0, fmt.Errorf("judge: %s", answer.Error)
	}
	return time.Duration(answer.Nanoseconds), nil
}
