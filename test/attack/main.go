//go:build linux

// Attack performs, harmlessly, what the built-in rules for system calls look for,
// and of each a benign twin that no rule may mind. It is how the rules are tried
// against a real kernel and a real agent.
//
// It works in namespaces of its own, with a root folder that it makes in a
// temporary one: /etc/shadow is not the node's, a disk is an empty file, and
// addresses lie on the loopback of a network that leads nowhere. What cannot be
// done without harm is left out; techniques.yaml says so.
//
//	attack list
//	attack run RULE…           as root; in a control group that is named like a container's
//	attack run --benign RULE…  the twins
//	attack serve               runs what it reads, one "attack RULE" or "benign RULE" on a line
//	attack serve --here        in the control group that it is in itself: that of a real container
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

const usage = `Usage: attack list
       attack run [--benign] RULE…
       attack serve [--here]
`

func main() {
	if err := run(os.Args, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(os.Args[0]), err)
		os.Exit(1)
	}
}

// run is the command line. Under any other name than its own the program is one
// of those that a technique is made of.
func run(args []string, out io.Writer) error {
	if os.Getenv(actsVariable) != "" {
		return perform(os.Getenv(actsVariable))
	}
	switch {
	case len(args) == 2 && args[1] == "list":
		return list(out)
	case len(args) == 2 && args[1] == "serve":
		return serve(os.Stdin, out, false)
	case len(args) == 3 && args[1] == "serve" && args[2] == "--here":
		return serve(os.Stdin, out, true)
	case len(args) == 2 && args[1] == stageCommand:
		return stageMain(os.Stdin, out)
	case len(args) > 2 && args[1] == "run" && args[2] == "--benign":
		return runAll(args[3:], true, false)
	case len(args) > 2 && args[1] == "run":
		return runAll(args[2:], false, false)
	case filepath.Base(args[0]) != "attack":
		return nil // a program that does nothing but be started
	}
	fmt.Fprint(os.Stderr, usage)
	return errors.New("want list, run or serve")
}

func list(out io.Writer) error {
	all, err := techniques()
	if err != nil {
		return err
	}
	for _, t := range all {
		note := ""
		if t.Without != "" {
			note = " (not triggered: " + t.Without + ")"
		}
		if _, err := fmt.Fprintf(out, "%s%s\n", t.Rule, note); err != nil {
			return err
		}
	}
	return nil
}

// serve performs one technique for each line, and answers each with a line. So one
// process can be the parent of all, that was there before who watches them.
func serve(in io.Reader, out io.Writer, here bool) error {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		kind, name, _ := strings.Cut(lines.Text(), " ")
		answer := "ok"
		if err := runAll([]string{name}, kind == "benign", here); err != nil {
			answer = strings.ReplaceAll(err.Error(), "\n", " ")
		}
		if _, err := fmt.Fprintln(out, answer); err != nil {
			return err
		}
	}
	return lines.Err()
}

func runAll(rules []string, benign, here bool) error {
	for _, name := range rules {
		t, err := find(name)
		if err != nil {
			return err
		}
		if err := t.run(benign, here); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func find(rule string) (technique, error) {
	all, err := techniques()
	if err != nil {
		return technique{}, err
	}
	for _, t := range all {
		if t.Rule == rule && t.Without == "" {
			return t, nil
		}
	}
	return technique{}, fmt.Errorf("no technique for rule %q", rule)
}
