// SPDX-License-Identifier: Apache-2.0

package leak

import "strings"

// Shape is a kind of leak that is known by its stack.
type Shape struct {
	Name string `json:"name"`
	// States are the states that the shape has, by class: "chan receive" is also
	// "chan receive (nil chan)". Empty is any.
	States []State `json:"-"`
	// Frames are found in the stack in this order, innermost first, with others
	// between them. A frame that ends in * is a prefix, one that begins with * a
	// suffix. "user" is any function of the program's own: not of the standard
	// library, golang.org/x or grpc.
	Frames []string `json:"-"`
	// Creator is the function of the go statement, as in Frames; empty is any.
	Creator string `json:"-"`
	// Leak says that growth of this stack is a leak although its state alone
	// could be that of a goroutine at work.
	Leak bool `json:"-"`
	// Load says that growth of this stack is no leak by itself, although it waits
	// for another goroutine: there is one for each peer.
	Load   bool   `json:"-"`
	Why    string `json:"why"`    // what happens there
	Remedy string `json:"remedy"` // what to change
}

// Shapes returns the table of known shapes. The first that matches counts.
func Shapes() []Shape { return append([]Shape(nil), shapes...) }

func (t *Tracker) shape(c *Cluster) *Shape {
	for i := range t.Shapes {
		if t.Shapes[i].Match(c) {
			return &t.Shapes[i]
		}
	}
	return shapeOf(c)
}

func shapeOf(c *Cluster) *Shape {
	for i := range shapes {
		if shapes[i].Match(c) {
			return &shapes[i]
		}
	}
	return nil
}

// Match says whether a cluster has the shape.
func (s *Shape) Match(c *Cluster) bool {
	if len(s.States) > 0 {
		ok := false
		for _, st := range s.States {
			ok = ok || st.class() == c.State.class()
		}
		if !ok {
			return false
		}
	}
	if s.Creator != "" && (len(c.Created) == 0 || !frameIs(s.Creator, c.Created[0].Func)) {
		return false
	}
	want := s.Frames
	for _, f := range c.Stack {
		if len(want) > 0 && frameIs(want[0], f.Func) {
			want = want[1:]
		}
	}
	return len(want) == 0
}

func frameIs(pattern, fn string) bool {
	if pattern == "user" {
		return !library(fn)
	}
	if p, is := strings.CutSuffix(pattern, "*"); is {
		return strings.HasPrefix(fn, p)
	}
	if p, is := strings.CutPrefix(pattern, "*"); is {
		return strings.HasSuffix(fn, p)
	}
	return fn == pattern
}

// shapes is the table. Each has its program in testdata/corpus, or in
// bench/peers/shapes_test.go if it is of a library that this module does without.
var shapes = []Shape{
	{
		Name:   "http-body-unread",
		States: []State{"select"},
		Frames: []string{"net/http.(*persistConn).readLoop"},
		Leak:   true,
		Why:    "A response's body was neither read to its end nor closed: the connection's readLoop waits for that, and its writeLoop with it.",
		Remedy: "Close every response's body, also on errors: resp, err := client.Do(req); if err != nil {...}; defer resp.Body.Close().",
	},
	{
		Name:   "http-connection-write",
		States: []State{"select"},
		Frames: []string{"net/http.(*persistConn).writeLoop"},
		Leak:   true,
		Why:    "A client connection stays open: an unread body (its readLoop is in select), or a new Transport for every request, whose idle connections nobody uses again.",
		Remedy: "Close every response's body and share one http.Client; set IdleConnTimeout on a Transport of your own.",
	},
	{
		Name:   "http-transport-per-request",
		States: []State{"IO wait"},
		Frames: []string{"net/http.(*persistConn).Read", "net/http.(*persistConn).readLoop"},
		Leak:   true,
		Why:    "Idle client connections pile up: each request has a Transport of its own, whose pool nobody uses again.",
		Remedy: "Share one http.Client, or call CloseIdleConnections on a Transport when it is not needed any more.",
	},
	{
		Name:   "pipe-read",
		Frames: []string{"io.(*pipe).read"},
		Leak:   true,
		Why:    "A reader waits at an io.Pipe whose writer has gone without closing it. \"io: read/write on closed pipe\" is what the other end says when it is closed; this is what happens when it is not.",
		Remedy: "defer w.Close() (or CloseWithError) in the goroutine that writes, on every path.",
	},
	{
		Name:   "pipe-write",
		Frames: []string{"io.(*pipe).write"},
		Leak:   true,
		Why:    "A writer waits at an io.Pipe whose reader has stopped reading without closing it.",
		Remedy: "defer r.CloseWithError(err) where the reader may return early, so that the writer gets the error.",
	},
	{
		Name:   "http2-server-connection",
		Frames: []string{"net/http.(*http2serverConn)*"},
		Load:   true,
		Why:    "Connections of HTTP/2 clients: the server has some goroutines for each.",
		Remedy: "If the clients have gone without saying so, set the server's IdleTimeout and HTTP2.SendPingTimeout.",
	},
	{
		Name:   "grpc-handler",
		Frames: []string{"google.golang.org/grpc.(*Server).handleStream"},
		Why:    "Handlers of a gRPC server do not return: each waits for something that ignores its context, or for a client that keeps the stream open.",
		Remedy: "Pass the context on, and wait in a select with <-ctx.Done(); let keepalive.ServerParameters find clients that have gone.",
	},
	{
		Name:   "grpc-stream",
		Frames: []string{"google.golang.org/grpc.newClientStreamWithParams.func*"},
		Why:    "Streams of a gRPC client were not ended: neither read until an error nor cancelled.",
		Remedy: "Cancel the stream's context, or call Recv until it returns an error.",
	},
	{
		Name:   "grpc-stream-wait",
		Frames: []string{"google.golang.org/grpc.(*clientStream)*"},
		Why:    "Calls of a gRPC client wait for a server that neither sends nor ends the stream.",
		Remedy: "Give the call a context with a deadline, or cancel it when nobody wants the answer any more.",
	},
	{
		Name:   "grpc-connection",
		Frames: []string{"google.golang.org/grpc/internal/grpcsync.(*CallbackSerializer).run"},
		Leak:   true,
		Why:    "gRPC client connections pile up: a new ClientConn for each request, and nobody closes them.",
		Remedy: "Share one ClientConn for each server: it may be used by all goroutines. Or call its Close.",
	},
	{
		Name:   "grpc-connection-read",
		Frames: []string{"google.golang.org/grpc/internal/transport.(*http2Client).reader"},
		Leak:   true,
		Why:    "gRPC client connections pile up: a new ClientConn for each request, and nobody closes them.",
		Remedy: "Share one ClientConn for each server: it may be used by all goroutines. Or call its Close.",
	},
	{
		Name:   "grpc-connection-write",
		Frames: []string{"google.golang.org/grpc/internal/transport.NewHTTP2Client.func*"},
		Leak:   true,
		Why:    "gRPC client connections pile up: a new ClientConn for each request, and nobody closes them.",
		Remedy: "Share one ClientConn for each server: it may be used by all goroutines. Or call its Close.",
	},
	{
		Name:   "grpc-server-connection",
		Frames: []string{"google.golang.org/grpc/internal/transport.(*http2Server)*"},
		Load:   true,
		Why:    "Connections of gRPC clients: the server has some goroutines for each.",
		Remedy: "If the clients have gone without saying so, set keepalive.ServerParameters.",
	},
	{
		Name:   "grpc-server-connection-write",
		Frames: []string{"google.golang.org/grpc/internal/transport.NewServerTransport.func*"},
		Load:   true,
		Why:    "Connections of gRPC clients: the server has some goroutines for each.",
		Remedy: "If the clients have gone without saying so, set keepalive.ServerParameters.",
	},
	{
		Name:   "sql-rows",
		Frames: []string{"database/sql.(*Rows).awaitDone"},
		Leak:   true,
		Why:    "Rows of a query were not closed: they hold a connection of the pool and a goroutine that waits for the context.",
		Remedy: "defer rows.Close() right after the error check.",
	},
	{
		Name:   "sql-tx",
		Frames: []string{"database/sql.(*Tx).awaitDone"},
		Leak:   true,
		Why:    "A transaction was neither committed nor rolled back.",
		Remedy: "defer tx.Rollback() right after BeginTx: it does nothing after Commit.",
	},
	{
		Name:   "sql-pool-wait",
		Frames: []string{"database/sql.(*DB).conn"},
		Why:    "Queries wait for a connection of the pool, which somebody does not give back.",
		Remedy: "Look for Rows and Tx that are not closed; give the query a context with a deadline.",
	},
	{
		Name:   "context-foreign-parent",
		States: []State{"select"},
		Frames: []string{"context.(*cancelCtx).propagateCancel.func*"},
		Leak:   true,
		Why:    "A context was derived from a parent of a type that is not the context package's: that takes a goroutine, until the child or the parent is cancelled.",
		Remedy: "Call the cancel function that WithCancel, WithTimeout and WithDeadline return: defer cancel().",
	},
	{
		Name:   "errgroup-wait",
		Frames: []string{"golang.org/x/sync/errgroup.(*Group).Wait"},
		Why:    "An errgroup is waited for whose tasks do not all return.",
		Remedy: "Let every task end when the group's context does: see which of them stay.",
	},
	{
		Name:   "errgroup-limit",
		Frames: []string{"golang.org/x/sync/errgroup.(*Group).Go"},
		Why:    "A task waits to be started until another one of its errgroup returns: SetLimit tasks do not.",
		Remedy: "Let every task end when the group's context does. A task must not call Go of its own group.",
	},
	{
		Name:   "errgroup",
		Frames: []string{"golang.org/x/sync/errgroup.(*Group)*"},
		Why:    "Tasks of an errgroup do not return.",
		Remedy: "Let every task end when the group's context does.",
	},
	{
		Name:   "iterator",
		States: []State{"coroutine"},
		Frames: []string{"iter.Pull*"},
		Leak:   true,
		Why:    "An iterator was turned into next and stop, and was neither run to its end nor stopped: its goroutine waits in a yield.",
		Remedy: "defer stop() right after iter.Pull.",
	},
	{
		Name:   "handler-ignores-context",
		Frames: []string{"user", "net/http.serverHandler.ServeHTTP", "net/http.(*conn).serve"},
		Leak:   true,
		Why:    "A handler waits for something that ignores the request's context: the client has gone, the handler stays.",
		Remedy: "Pass r.Context() on, and wait in a select with <-r.Context().Done(), or set a deadline.",
	},
	{
		Name:    "after-func",
		Frames:  []string{"user"},
		Creator: "time.goFunc",
		Why:     "Functions of time.AfterFunc block: each firing is a goroutine of its own.",
		Remedy:  "Let the function return; use a context where it waits.",
	},
	{
		Name:   "wait-group",
		States: []State{"sync.WaitGroup.Wait"},
		Frames: []string{"sync.(*WaitGroup).Wait"},
		Why:    "A WaitGroup never comes down to zero: Done is missing on some path, or who should call it is stuck.",
		Remedy: "defer wg.Done() as the first statement, or wg.Go.",
	},
	{
		Name:   "condition",
		Frames: []string{"sync.(*Cond).Wait"},
		Why:    "A condition is waited for that nobody signals any more.",
		Remedy: "Broadcast when the state that is waited for is given up, for example on close.",
	},
	{
		Name:   "rwmutex",
		Frames: []string{"sync.(*RWMutex)*"},
		Why:    "A read-write mutex stays locked.",
		Remedy: "defer Unlock and RUnlock; a reader that locks again while a writer waits blocks for ever.",
	},
	{
		Name:   "mutex",
		Frames: []string{"*sync.(*Mutex).Lock"},
		Why:    "A mutex stays locked: an Unlock is missing on some path, or its holder is stuck.",
		Remedy: "defer mu.Unlock() right after Lock, and do not block while holding it.",
	},
	{
		Name:   "sleep-loop",
		States: []State{"sleep"},
		Frames: []string{"time.Sleep", "user"},
		Leak:   true,
		Why:    "A goroutine sleeps and wakes for ever: a loop that polls, without an end.",
		Remedy: "Wait in a select on a ticker and the context's Done.",
	},
	{
		Name:   "select-loop",
		States: []State{"select"},
		Frames: []string{"user"},
		Why:    "A select whose cases do not come any more: usually a ticker loop without a case that ends it.",
		Remedy: "Add a case on the context's Done, and cancel it when the owner goes.",
	},
	{
		Name:   "chan-receive",
		States: []State{"chan receive"},
		Frames: []string{"user"},
		Why:    "A receive from a channel that nobody sends on or closes any more.",
		Remedy: "Close the channel when the senders are done, on every path; or select with the context's Done.",
	},
	{
		Name:   "chan-send",
		States: []State{"chan send"},
		Frames: []string{"user"},
		Why:    "A send on a channel that nobody receives from any more: usually the receiver returned early, on a timeout or an error.",
		Remedy: "Give the channel room for the one result (make(chan T, 1)), or select with the context's Done.",
	},
}
