// SPDX-License-Identifier: Apache-2.0

// Batch is a worker without HTTP: it takes jobs, one per line, and compresses so
// many mebibytes for each on all CPUs. It would take on as many as there are
// goroutines; the limiter has them wait when the memory is short, and a job that
// was refused is tried again. No job is lost.
//
//	yes 4 | head -100 | go run ./examples/batch
//
// Told to end it takes on no more jobs, ends those it has begun, and says which it
// has taken on and not done.
package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/shed"
)

const mostMiB = 1024

// result is what became of a job.
type result struct {
	line       int
	in, out    int
	tries      int
	impossible error
}

// compress does a job of n MiB.
func compress(n int) (in, out int) {
	text := strings.Repeat("a batch of many jobs; ", n<<20/22)
	var c counter
	z := gzip.NewWriter(&c)
	_, _ = io.WriteString(z, text)
	_ = z.Close()
	return len(text), int(c)
}

type counter int

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// do does the job of a line, when there is room for it.
func do(ctx context.Context, limiter *shed.Limiter, line int, job string) (r result) {
	r.line = line
	n, err := strconv.Atoi(strings.TrimSpace(job))
	if err != nil || n < 0 || n > mostMiB {
		r.impossible = fmt.Errorf("line %d: %q: want 0 to %d mebibytes", line, job, mostMiB)
		return r
	}
	for {
		r.tries++
		// Nobody waits for the answer: let it wait for room, and others go first.
		leave, err := limiter.Enter(ctx, shed.Work{Route: "compress", Priority: shed.Low, Wait: time.Second})
		var refusal *shed.Refusal
		switch {
		case errors.As(err, &refusal):
			select {
			case <-time.After(refusal.RetryAfter):
				continue
			case <-ctx.Done():
				err = ctx.Err()
			}
		case err == nil:
			r.in, r.out = compress(n)
			leave()
			return r
		}
		r.impossible = err
		return r
	}
}

// run does the jobs of all lines, until ctx ends, and tells of each as it is done.
func run(ctx context.Context, limiter *shed.Limiter, in io.Reader, out io.Writer) error {
	type job struct {
		line int
		text string
	}
	jobs, results, read := make(chan job), make(chan result), make(chan error, 1)
	go func() { // left behind when ctx ends and no line comes
		lines := bufio.NewScanner(in)
		for n := 1; lines.Scan(); n++ {
			select {
			case jobs <- job{n, lines.Text()}:
			case <-ctx.Done():
				return
			}
		}
		read <- lines.Err()
		close(jobs)
	}()
	var workers sync.WaitGroup
	for range 4 * runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for {
				select {
				case j, ok := <-jobs:
					if !ok {
						return
					}
					results <- do(ctx, limiter, j.line, j.text)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	go func() {
		workers.Wait()
		close(results)
	}()
	var failed error
	for r := range results {
		if r.impossible != nil {
			failed = errors.Join(failed, r.impossible)
			continue
		}
		fmt.Fprintf(out, "line %d: %d bytes from %d, after %d tries\n", r.line, r.out, r.in, r.tries)
	}
	select {
	case err := <-read:
		return errors.Join(failed, err)
	default: // there may be more lines
		return errors.Join(failed, ctx.Err())
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	limiter := shed.New(shed.Config{})
	guard := memguard.Start(memguard.Config{Shed: limiter})
	err := run(ctx, limiter, os.Stdin, os.Stdout)
	_ = guard.Close()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
