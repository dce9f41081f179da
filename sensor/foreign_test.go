package sensor

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

// TestForeignCalls runs a program that makes a call in the way of 32-bit
// programs, and holds that it is counted.
func TestForeignCalls(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		return // others have no program here
	}
	l := start(t, Config{Types: []string{"chdir"}}, mine)
	// chdir(0) by int 0x80, where it is another number, then exit(0) by syscall.
	code := []byte{0xb8, 12, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80, 0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05}
	name := filepath.Join(t.TempDir(), "foreign")
	if err := os.WriteFile(name, program(code), 0o755); err != nil {
		t.Fatal(err)
	}
	before, err := l.Counters()
	if err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := exec.Command(name).Run(); errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled() {
		t.Log("this kernel runs no 32-bit calls, so there are none to count")
		return
	} else if err != nil {
		t.Fatal(err)
	}
	after, err := l.Counters()
	if err != nil || after.ForeignCalls <= before.ForeignCalls {
		t.Errorf("%d foreign calls after %d (%v)", after.ForeignCalls, before.ForeignCalls, err)
	}
}

// program returns the smallest ELF file that runs code.
func program(code []byte) []byte {
	const base, heads = 0x400000, 64 + 56
	le := binary.LittleEndian
	b := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	b = le.AppendUint16(b, 2)  // executable
	b = le.AppendUint16(b, 62) // amd64
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, base+heads) // entry
	b = le.AppendUint64(b, 64)         // program headers
	b = le.AppendUint64(b, 0)
	b = le.AppendUint32(b, 0)
	for _, n := range []uint16{64, 56, 1, 64, 0, 0} {
		b = le.AppendUint16(b, n)
	}
	b = le.AppendUint32(b, 1) // loaded
	b = le.AppendUint32(b, 5) // read and run
	size := uint64(heads + len(code))
	for _, n := range []uint64{0, base, base, size, size, 0x1000} {
		b = le.AppendUint64(b, n)
	}
	return append(b, code...)
}
