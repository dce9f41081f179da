package sensor

import (
	"bytes"
	"encoding/binary"
	"slices"
	"syscall"
	"testing"
	"unsafe"
)

// TestRingJoinsSamples lays samples into a ring as the kernel does, over its end
// too, where no buffer of the kernel is: all come in one piece, once and in order.
func TestRingJoinsSamples(t *testing.T) {
	page := syscall.Getpagesize()
	const size = 256
	words := make([]uint64, (page+size)/8) // as aligned as pages are
	producer := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), page+size)
	r := &ring{consumer: make([]byte, 8), producer: producer, mask: size - 1}
	data, written, joined := producer[page:], uint64(0), 0
	for n := range 1000 {
		sample := bytes.Repeat([]byte{byte(n)}, 8*(n%9)+n%3)
		binary.NativeEndian.PutUint32(data[written&r.mask:], uint32(len(sample)))
		for i, b := range sample {
			data[(written+ringHead+uint64(i))&r.mask] = b
		}
		if head := written&r.mask + ringHead; head < size && head+uint64(len(sample)) > size {
			joined++
		}
		written += (uint64(len(sample)) + ringHead + 7) &^ 7
		binary.NativeEndian.PutUint64(producer, written)
		got := r.peek()
		if got == nil || !bytes.Equal(got, sample) {
			t.Fatalf("sample %d: %x, want %x", n, got, sample)
		}
		r.next(uint64(len(got)))
		if r.peek() != nil {
			t.Fatalf("sample %d comes twice", n)
		}
	}
	if read := binary.NativeEndian.Uint64(r.consumer); joined < 10 || read != written || slices.Max(r.joined) == 0 {
		t.Errorf("%d of the samples went over the end; read to %d of %d", joined, read, written)
	}
}
