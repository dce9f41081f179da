package sensor

import (
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/cilium/ebpf"
)

// A ring is a BPF ring buffer, read where it lies, in the pages that the kernel
// writes. The one sample in a turn that goes on at the begin is copied: to map
// the pages twice in a row, as is usual, counts each of them twice as memory of
// this process. It is read by one goroutine.
type ring struct {
	m        *ebpf.Map
	consumer []byte // a page that we write: how far it was read
	producer []byte // a page, how far it was written, and the data
	mask     uint64
	position uint64
	joined   []byte // the sample that goes on at the begin
}

const (
	ringBusy    = 1 << 31
	ringDiscard = 1 << 30
	ringHead    = 8 // bytes before each sample
)

func newRing(size uint32) (*ring, error) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: size})
	if err != nil {
		return nil, fmt.Errorf("create ring buffer of %d bytes: %w", size, err)
	}
	page := os.Getpagesize()
	consumer, err := syscall.Mmap(m.FD(), 0, page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		m.Close()
		return nil, fmt.Errorf("map ring buffer: %w", err)
	}
	producer, err := syscall.Mmap(m.FD(), int64(page), page+int(size), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		_ = syscall.Munmap(consumer)
		m.Close()
		return nil, fmt.Errorf("map ring buffer of %d bytes: %w", size, err)
	}
	return &ring{m: m, consumer: consumer, producer: producer, mask: uint64(size) - 1}, nil
}

func word(b []byte) *uint64 { return (*uint64)(unsafe.Pointer(&b[0])) }

// peek returns the oldest sample that was not read, nil if there is none. It is
// valid until next.
func (r *ring) peek() []byte {
	for r.position < atomic.LoadUint64(word(r.producer)) {
		data := r.producer[os.Getpagesize():]
		at := r.position & r.mask
		size := atomic.LoadUint32((*uint32)(unsafe.Pointer(&data[at])))
		if size&ringBusy != 0 {
			return nil
		}
		if size&ringDiscard == 0 {
			return r.sample(data, at+ringHead, uint64(size))
		}
		r.next(uint64(size &^ ringDiscard))
	}
	return nil
}

// sample returns size bytes of the data in one piece.
func (r *ring) sample(data []byte, at, size uint64) []byte {
	at &= r.mask
	end := min(at+size, uint64(len(data)))
	if end == at+size {
		return data[at:end]
	}
	r.joined = append(append(r.joined[:0], data[at:end]...), data[:at+size-end]...)
	return r.joined
}

// next gives the oldest sample's room, of size bytes, back to the kernel.
func (r *ring) next(size uint64) {
	r.position += (size + ringHead + 7) &^ 7
	atomic.StoreUint64(word(r.consumer), r.position)
}

func (r *ring) close() {
	_ = syscall.Munmap(r.consumer)
	_ = syscall.Munmap(r.producer)
	r.m.Close()
}
