package deadline_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/policy/deadline"
)

// double is work that doubles numbers; those that are listed in wait until
// released is closed.
func double(n int, taken *[]int, released <-chan struct{}, wait ...int) deadline.Work[int] {
	return deadline.Work[int]{
		Items: n,
		Do: func(i int) (int, error) {
			if slices.Contains(wait, i) {
				<-released
			}
			return 2 * i, nil
		},
		Take: func(i, value int) { *taken = append(*taken, i, value) },
	}
}

func TestRun(t *testing.T) {
	timed, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for name, ctx := range map[string]context.Context{"without an end": context.Background(), "with an end": timed} {
		t.Run(name, func(t *testing.T) {
			pool := deadline.NewPool()
			for range 3 {
				var got []int
				if n, err := deadline.Run(ctx, pool, double(3, &got, nil)); n != 3 || err != nil || !slices.Equal(got, []int{0, 0, 1, 2, 2, 4}) {
					t.Errorf("Run = %d, %v and takes %v", n, err, got)
				}
			}
			broken := errors.New("broken")
			w := deadline.Work[int]{Items: 3, Do: func(i int) (int, error) { return i, map[int]error{1: broken}[i] }, Take: func(int, int) {}}
			if n, err := deadline.Run(ctx, pool, w); n != 1 || !errors.Is(err, broken) {
				t.Errorf("Run = %d, %v, want 1, broken", n, err)
			}
			w.Do = func(int) (int, error) { panic("here") }
			func() {
				defer func() {
					if cause := recover(); !strings.Contains(fmt.Sprint(cause), "here") {
						t.Errorf("panic is %v", cause)
					}
				}()
				deadline.Run(ctx, pool, w)
				t.Error("the panic is lost")
			}()
			if pool.Runaways() != 0 {
				t.Errorf("%d runaways", pool.Runaways())
			}
		})
	}
}

// TestRunaways wants work that does not end to be left and counted, as long as it
// lasts, and no more of it than may be.
func TestRunaways(t *testing.T) {
	pool, released := deadline.NewPool(), make(chan struct{})
	release := sync.OnceFunc(func() { close(released) })
	defer release()
	for i := range deadline.MaxRunaways {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		var got []int
		ended := false
		w := double(3, &got, released, 1)
		w.End = func() { ended = true }
		n, err := deadline.Run(ctx, pool, w)
		cancel()
		if n != 1 || !errors.Is(err, context.DeadlineExceeded) || !ended || pool.Runaways() != i+1 {
			t.Fatalf("Run = %d, %v with %d runaways, ended %v", n, err, pool.Runaways(), ended)
		}
	}
	var got []int
	if n, err := deadline.Run(t.Context(), pool, double(1, &got, nil)); n != 0 || !errors.Is(err, deadline.ErrRunaways) || len(got) > 0 {
		t.Errorf("Run = %d, %v, want it to be refused", n, err)
	}
	release()
	for start := time.Now(); pool.Runaways() > 0 && time.Since(start) < time.Minute; {
		time.Sleep(time.Millisecond)
	}
	if n, err := deadline.Run(t.Context(), pool, double(2, &got, nil)); n != 2 || err != nil {
		t.Errorf("Run = %d, %v after all have ended", n, err)
	}
}

// TestLatePanic wants a panic of what was left to end nothing but itself.
func TestLatePanic(t *testing.T) {
	pool, released := deadline.NewPool(), make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := deadline.Run(ctx, pool, deadline.Work[int]{Items: 1, Do: func(int) (int, error) { <-released; panic("late") }, Take: func(int, int) {}})
	if !errors.Is(err, context.DeadlineExceeded) || pool.Runaways() != 1 {
		t.Fatalf("error %v, %d runaways", err, pool.Runaways())
	}
	close(released)
	for start := time.Now(); pool.Runaways() > 0 && time.Since(start) < time.Minute; {
		time.Sleep(time.Millisecond)
	}
	if pool.Runaways() != 0 {
		t.Error("what has panicked is still counted")
	}
}
