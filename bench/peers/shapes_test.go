// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/memguard/memguard-go/memguard/leak"
	"github.com/memguard/memguard-go/memguard/leak/testdata/corpus/programs"
)

// library is the programs of the corpus that need a library of others, which the
// main module does not have.
var library = []programs.Program{
	{Name: "grpc-stream", Leaks: true, Shape: "grpc-stream", Creator: "google.golang.org/grpc.newClientStreamWithParams", New: func() func(int) {
		client := healthpb.NewHealthClient(dial(serve(health.NewServer())))
		return func(int) {
			for range perRound {
				s, err := client.Watch(context.Background(), &healthpb.HealthCheckRequest{})
				check(err)
				_, err = s.Recv() // of many, and nobody cancels
				check(err)
			}
		}
	}},
	{Name: "grpc-stream-wait", Leaks: true, Shape: "grpc-stream-wait", New: func() func(int) {
		client := healthpb.NewHealthClient(dial(serve(health.NewServer())))
		return func(int) {
			for range perRound {
				s, err := client.Watch(context.Background(), &healthpb.HealthCheckRequest{})
				check(err)
				go func() { // creates grpc-stream-wait
					for {
						if _, err := s.Recv(); err != nil {
							return
						}
					}
				}()
			}
		}
	}},
	{Name: "grpc-connection", Leaks: true, Shape: "grpc-connection", Creator: "google.golang.org/grpc/internal/grpcsync.NewCallbackSerializer", New: func() func(int) {
		addr := serve(health.NewServer())
		return func(int) {
			for range perRound {
				_, err := healthpb.NewHealthClient(dial(addr)).Check(context.Background(), &healthpb.HealthCheckRequest{})
				check(err)
			}
		}
	}},
	{Name: "grpc-handler", Leaks: true, Shape: "grpc-handler", New: func() func(int) {
		s := &stuck{arrived: make(chan bool), upstream: make(chan int)}
		client := healthpb.NewHealthClient(dial(serve(s)))
		return func(int) {
			for range perRound {
				ctx, cancel := context.WithCancel(context.Background())
				gone := make(chan error)
				go func() { _, err := client.Check(ctx, &healthpb.HealthCheckRequest{}); gone <- err }()
				<-s.arrived
				cancel()
				<-gone
			}
		}
	}},
	{Name: "errgroup", Leaks: true, Shape: "errgroup", New: func() func(int) {
		return func(int) {
			for range perRound {
				g, _ := errgroup.WithContext(context.Background())
				results := make(chan int)
				g.Go(func() error {
					results <- 1 // creates errgroup
					return nil
				})
				g.Go(func() error { return context.Canceled })
			}
		}
	}},
	{Name: "errgroup-wait", Leaks: true, Shape: "errgroup-wait", New: func() func(int) {
		stop := make(chan int)
		return func(int) {
			for range perRound {
				var g errgroup.Group
				g.Go(func() error { <-stop; return nil })
				go func() { _ = g.Wait() }() // creates errgroup-wait
			}
		}
	}},
	{Name: "errgroup-limit", Leaks: true, Shape: "errgroup-limit", New: func() func(int) {
		stop := make(chan int)
		return func(int) {
			for range perRound {
				var g errgroup.Group
				g.SetLimit(1)
				g.Go(func() error { <-stop; return nil })
				go func() { // creates errgroup-limit
					g.Go(func() error { return nil })
				}()
			}
		}
	}},
	{Name: "grpc-streams-ended", New: func() func(int) {
		client := healthpb.NewHealthClient(dial(serve(health.NewServer())))
		return func(int) {
			for range perRound {
				ctx, cancel := context.WithCancel(context.Background())
				s, err := client.Watch(ctx, &healthpb.HealthCheckRequest{})
				check(err)
				_, err = s.Recv()
				check(err)
				cancel()
			}
		}
	}},
	{Name: "grpc-connections-closed", New: func() func(int) {
		addr := serve(health.NewServer())
		return func(int) {
			for range perRound {
				conn := dial(addr)
				_, err := healthpb.NewHealthClient(conn).Check(context.Background(), &healthpb.HealthCheckRequest{})
				check(err)
				check(conn.Close())
			}
		}
	}},
	{Name: "grpc-more-clients", Grows: true, New: func() func(int) {
		addr := serve(health.NewServer())
		var clients []net.Conn
		return func(int) {
			for range perRound {
				c, err := net.Dial("tcp", addr)
				check(err)
				// The preface and empty settings (RFC 9113, 3.4 and 6.5).
				_, err = io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
				check(err)
				_, err = io.ReadFull(c, make([]byte, 9)) // the server's settings: it is ready
				check(err)
				clients = append(clients, c)
			}
		}
	}},
	{Name: "errgroup-bounded", New: func() func(int) {
		return func(int) {
			var g errgroup.Group
			g.SetLimit(4)
			for range 40 {
				g.Go(func() error { time.Sleep(time.Millisecond); return nil })
			}
			check(g.Wait())
		}
	}},
}

const perRound = 3

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// stuck is a server whose handler ignores its context.
type stuck struct {
	healthpb.UnimplementedHealthServer
	arrived  chan bool
	upstream chan int
}

func (s *stuck) Check(context.Context, *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	s.arrived <- true
	<-s.upstream // creates grpc-handler
	return nil, nil
}

func serve(s healthpb.HealthServer) (addr string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, s)
	go func() { _ = server.Serve(ln) }()
	return ln.Addr().String()
}

func dial(addr string) *grpc.ClientConn {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(err)
	return conn
}

// runLibrary returns what was said of a program.
func runLibrary(name string) (said librarySaid) {
	for _, p := range library {
		if p.Name != name {
			continue
		}
		// Rounds come in milliseconds here; all else is as the guard has it.
		s := leak.Sampler{ProveEvery: -1, Tracker: leak.Tracker{MinAge: 20 * time.Millisecond}}
		round := p.New()
		for n := range programs.Rounds {
			round(n)
			settle()
			_, err := s.Sample()
			check(err)
			said.Last = s.Verdicts()
			said.Ever = append(said.Ever, said.Last...)
		}
		runtime.KeepAlive(round)
		return said
	}
	panic("no such program")
}

// librarySaid is what the verdicts were: after the last round, and after any.
type librarySaid struct{ Last, Ever []leak.Verdict }

// TestLibraryShapes leaks with gRPC and errgroup themselves: each leak is named,
// with its shape and the line (where the library has the go statement, by its line
// in the library), no healthy program is accused, and each shape is seen.
func TestLibraryShapes(t *testing.T) {
	t.Parallel()
	said := make([]librarySaid, len(library))
	var group sync.WaitGroup
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i, p := range library {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			child(t, "library "+p.Name, &said[i])
		})
	}
	group.Wait()
	seen := map[string]bool{}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PROGRAM\tTOLD\tSHAPE\tORIGIN")
	for i, p := range library {
		last, ever := said[i].Last, said[i].Ever
		for _, v := range ever {
			if v.Shape != nil {
				seen[v.Shape.Name] = true
			}
			if !p.Leaks {
				assert.True(t, p.Grows && v.Level == leak.Growing, "%s is healthy: %s: %s", p.Name, v.Level, v.Summary())
			}
		}
		if len(last) == 0 {
			assert.False(t, p.Leaks, "%s leaks", p.Name)
			fmt.Fprintf(w, "%s\t-\t-\t-\n", p.Name)
			continue
		}
		v, shape := last[0], "-"
		if v.Shape != nil {
			shape = v.Shape.Name
		}
		if fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.Name, v.Level, shape, v.Origin()); !p.Leaks {
			continue
		}
		assert.Equal(t, leak.Leaking, v.Level, "%s: %s", p.Name, v.Summary())
		// A client that leaks makes its server, which is in the same process here,
		// grow as well: the leak is among the verdicts, with its line.
		at := slices.IndexFunc(last, func(v leak.Verdict) bool { return v.Shape != nil && v.Shape.Name == p.Shape })
		if !assert.GreaterOrEqual(t, at, 0, "%s: no verdict has the shape %s", p.Name, p.Shape) {
			continue
		}
		if v = last[at]; p.Creator != "" {
			assert.Equal(t, p.Creator, v.Origin().Func, p.Name)
			continue
		}
		assert.Equal(t, fmt.Sprintf("shapes_test.go:%d", lineOf(t, "shapes_test.go", "// creates "+p.Name+"\n")), v.Origin().Place(), "%s: %s", p.Name, v.Summary())
	}
	require.NoError(t, w.Flush())
	t.Logf("\n%s", &b)
	for _, s := range leak.Shapes() {
		if strings.HasPrefix(s.Name, "grpc-") || strings.HasPrefix(s.Name, "errgroup") {
			assert.True(t, seen[s.Name], "no program has the shape %s", s.Name)
		}
	}
}
