// Command intruder waits. Told to "drop" it puts a program beside itself, as who
// breaks into a container does, and starts it, which then runs for a while (its
// name may follow); told to "call" it connects to an address; told to "run" it does
// nothing, and to "storm" it starts itself to do that again and again.
package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		time.Sleep(time.Hour)
		return
	}
	if err := do(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func do(what string, args []string) error {
	if what != "run" && len(args) == 0 {
		return errors.New("want an argument")
	}
	switch what {
	case "run":
		fmt.Println("ran")
		return nil
	case "linger":
		d, err := time.ParseDuration(args[0])
		time.Sleep(d)
		fmt.Println("lingered")
		return err
	case "drop":
		return drop("/"+append(args, "implant")[1], args[0])
	case "storm":
		return storm(args[0])
	case "call":
		conn, err := net.DialTimeout("tcp", args[0], 10*time.Second)
		if err != nil {
			return err
		}
		fmt.Println("connected")
		return conn.Close()
	}
	return fmt.Errorf("no such order: %s", what)
}

// drop starts a program that is not in the image.
func drop(implant, duration string) error {
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := os.WriteFile(implant, program, 0o755); err != nil {
		return err
	}
	cmd := exec.Command(implant, "linger", duration)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// storm starts one process after the other.
func storm(duration string) error {
	d, err := time.ParseDuration(duration)
	fmt.Println("storming")
	n := 0
	for end := time.Now().Add(d); err == nil && time.Now().Before(end); n++ {
		err = exec.Command("/proc/self/exe", "run").Run()
	}
	fmt.Printf("started %d\n", n)
	return err
}
