// Command bench compares the processor time of one review by Gatekeeper's
// client, as its webhook uses it, with that of the product, on the same
// policies and requests in one run, and then that of policies in CEL with what
// Kubernetes itself takes. Run it in test/gatekeeper.
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
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if judge == "" {
		if judge, err = build(dir, "./test/judge"); err != nil {
			return err
		}
	}
	sets, err := policySets()
	if err != nil {
		return err
	}
	fmt.Println("Processor time of one review. Fresh: names and image tags are others each time; again: the very same request.")
	fmt.Printf("\n%-34s %-11s %11s %11s %8s %11s %11s %8s %10s %9s\n", "policies", "object", "Gatekeeper", "ours", "ratio", "Gatekeeper", "ours", "ratio", "", "")
	fmt.Printf("%-34s %-11s %11s %11s %8s %11s %11s %8s %10s %9s\n", "", "", "fresh", "fresh", "fresh", "again", "again", "again", "violations", "memory")
	for _, set := range sets {
		if !strings.Contains(set.name, only) {
			continue
		}
		if err := measure(judge, write, set); err != nil {
			return fmt.Errorf("%s: %w", set.name, err)
		}
	}
	if only != "" {
		return nil
	}
	bare, err := build(dir, "./test/bench/cel")
	if err != nil {
		return err
	}
	fmt.Println()
	cmd := exec.Command(bare)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// build builds a program of the product, whose module is another one.
func build(dir, path string) (program string, err error) {
	program = filepath.Join(dir, filepath.Base(path))
	cmd := exec.Command("go", "build", "-o", program, path)
	cmd.Dir, cmd.Stderr = "../..", os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build %s: %w", path, err)
	}
	return program, nil
}

func measure(judge, write string, set policySet) error {
	setup := oracle.Setup{Policies: set.policies, Point: "validation.gatekeeper.sh"}
	theirs, err := oracle.New(setup)
	if err != nil {
		return err
	}
	for _, name := range []string{"pod", "deployment", "configmap"} {
		request := requests()[name]
		input := input(setup, request)
		if write != "" {
			file := strings.ReplaceAll(set.name+"-"+name, " ", "-") + ".jsonl"
			if err := os.WriteFile(filepath.Join(write, file), input, 0o600); err != nil {
				return err
			}
		}
		fmt.Printf("%-34s %-11s", set.name, name)
		var memory int64
		for _, vary := range []string{serial, ""} {
			gatekeeper := theirTime(theirs, request, []byte(vary))
			ours, peak, err := ourTime(judge, input, vary)
			if err != nil {
				return err
			}
			memory = max(memory, peak)
			fmt.Printf(" %11v %11v %7.1fx", gatekeeper.Round(100), ours.Round(100), float64(gatekeeper)/float64(ours))
		}
		fmt.Printf(" %10d %5d MiB\n", len(theirs.Answer(request).Violations), memory>>10)
	}
	return nil
}

// round is about how much processor time each round takes.
const round = 300 * time.Millisecond

// theirTime takes the best of three rounds: other processes only make it worse.
// With vary, another number stands for it each time.
func theirTime(g *oracle.Gatekeeper, request, vary []byte) time.Duration {
	var best time.Duration
	number := 0
	for range 3 {
		start, n := processorTime(), 0
		for processorTime()-start < round {
			fresh := request
			if len(vary) > 0 {
				number++
				fresh = bytes.ReplaceAll(request, vary, fmt.Appendf(nil, "%0*d", len(vary), number))
			}
			if _, err := g.Review(fresh); err != nil {
				panic(err) // the policies of the benchmark judge its requests
			}
			n++
		}
		if took := (processorTime() - start) / time.Duration(n); best == 0 || took < best {
			best = took
		}
	}
	return best
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

// ourTime returns also how many KiB the process takes at most.
func ourTime(judge string, in []byte, vary string) (took time.Duration, peak int64, err error) {
	cmd := exec.Command(judge, "-measure", round.String(), "-vary", vary)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, 0, err
	}
	var answer struct {
		Nanoseconds int64
		Memory      int64
		Error       string
	}
	line, err := bufio.NewReader(bytes.NewReader(out)).ReadBytes('\n')
	if err != nil {
		return 0, 0, err
	}
	if err := json.Unmarshal(line, &answer); err != nil {
		return 0, 0, err
	}
	if answer.Error != "" {
		return 0, 0, fmt.Errorf("judge: %s", answer.Error)
	}
	return time.Duration(answer.Nanoseconds), answer.Memory, nil
}
