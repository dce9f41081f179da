// Command wait is all that the image of the tests holds. It does nothing until
// it is told to end, or runs the program that its arguments name. Of arguments
// that are no path the first says what it does itself: "dial ADDRESS" connects by
// UDP, and ends with 3 if that is not permitted; "mkdir PATH" makes a folder, "chmod
// PATH" changes its rights, "memory" runs the program from memory, and "chroot PATH
// PROGRAM" runs a program with another root.
package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"unsafe"
)

func main() {
	if len(os.Args) > 1 && os.Args[1][0] != '/' {
		os.Exit(act(os.Args[1:]))
	}
	if len(os.Args) > 1 {
		cmd := exec.Command(os.Args[1], os.Args[2:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	done := make(chan os.Signal, 1)
	signal.Notify(done, os.Interrupt, syscall.SIGTERM)
	<-done
}

func act(args []string) int {
	var err error
	switch {
	case args[0] == "dial" && len(args) > 1:
		_, err = net.Dial("udp", args[1])
	case args[0] == "mkdir" && len(args) > 1:
		err = os.Mkdir(args[1], 0o755)
	case args[0] == "memory":
		err = fromMemory(args[1:])
	case args[0] == "chroot" && len(args) > 2:
		if err = syscall.Chroot(args[1]); err == nil {
			err = syscall.Exec(args[2], args[2:], os.Environ())
		}
	case args[0] == "chmod" && len(args) > 1:
		err = os.Chmod(args[1], 0o700)
	}
	switch {
	case errors.Is(err, syscall.EPERM):
		return 3
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// fromMemory replaces this program by a copy of it that no file holds.
func fromMemory(args []string) error {
	program, err := os.ReadFile("/wait")
	if err != nil {
		return err
	}
	name := []byte("copy\x00")
	number := map[string]uintptr{"amd64": 319, "arm64": 279}[runtime.GOARCH]
	fd, _, errno := syscall.Syscall(number, uintptr(unsafe.Pointer(&name[0])), 0, 0)
	if errno != 0 {
		return errno
	}
	if _, err := syscall.Write(int(fd), program); err != nil {
		return err
	}
	return syscall.Exec(fmt.Sprintf("/proc/self/fd/%d", fd), append([]string{"copy"}, args...), os.Environ())
}
