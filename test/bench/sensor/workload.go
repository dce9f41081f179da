package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// A workload is what a program of the node does while it is measured.
type workload struct {
	name   string
	target float64 // how much more CPU time it may need beside the agent; 0 for any
	run    func(dir string) error
}

var workloads = []workload{
	{"exec", 0.05, execs},
	{"open", 0.20, opens},
	{"loopback", 0.02, loopback},
	{"call", 0, calls},
	{"idle", 0.02, idle},
}

// execs starts a small program 500 times, one after the other.
func execs(string) error {
	for range 500 {
		pid, err := syscall.ForkExec("/bin/true", []string{"true"}, nil)
		if err != nil {
			return err
		}
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil {
			return err
		}
		if status.ExitStatus() != 0 {
			return fmt.Errorf("exit status %d", status.ExitStatus())
		}
	}
	return nil
}

// opens opens and closes 100 files, 3,000 times each.
func opens(dir string) error {
	const files = 100
	names := make([]string, files)
	for i := range names {
		names[i] = name(dir, i)
		if err := os.WriteFile(names[i], nil, 0o600); err != nil {
			return err
		}
	}
	for range 3000 {
		for _, name := range names {
			fd, err := syscall.Open(name, syscall.O_RDONLY, 0)
			if err != nil {
				return err
			}
			if err := syscall.Close(fd); err != nil {
				return err
			}
		}
	}
	return nil
}

// calls makes the cheapest call there is, three million times.
func calls(string) error {
	for range 3_000_000 {
		syscall.Getppid()
	}
	return nil
}

// loopback sends 30,000 requests of 64 bytes to itself, and as many answers.
func loopback(string) error {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer server.Close()
	go func() {
		if c, err := server.Accept(); err == nil {
			_, _ = io.Copy(c, c)
			c.Close()
		}
	}()
	c, err := net.Dial("tcp", server.Addr().String())
	if err != nil {
		return err
	}
	defer c.Close()
	message := make([]byte, 64)
	for range 30_000 {
		if _, err := c.Write(message); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, message); err != nil {
			return err
		}
	}
	return nil
}

// idle answers 20 requests each second, for three seconds, and computes a little
// for each.
func idle(dir string) error {
	for i := range 60 {
		time.Sleep(50 * time.Millisecond)
		if err := os.WriteFile(name(dir, i%5), make([]byte, 4096), 0o600); err != nil {
			return err
		}
		sum := 0
		for n := range 2_000_000 {
			sum += n * i
		}
		if sum < 0 {
			return fmt.Errorf("sum %d", sum)
		}
	}
	return nil
}
