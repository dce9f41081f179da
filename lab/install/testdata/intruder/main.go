// Command intruder waits; told to "drop", it puts a program beside itself, as
// who breaks into a container does, and starts it.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		time.Sleep(time.Hour)
		return
	}
	if os.Args[1] != "drop" {
		fmt.Println("dropped")
		return
	}
	program, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile("/implant", program, 0o755)
	}
	if err == nil {
		cmd := exec.Command("/implant", "run")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		err = cmd.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
