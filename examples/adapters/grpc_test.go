// SPDX-License-Identifier: Apache-2.0

package adapters

import (
	"context"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/memguard/memguard-go/memguard/shed"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const mib = 1 << 20

var (
	room = shed.Memory{Limit: 640 * mib, Usage: 50 * mib, Must: 40 * mib}
	full = shed.Memory{Limit: 640 * mib, Usage: 640 * mib, Must: 600 * mib}
)

// serve runs a real gRPC server behind a limiter.
func serve(t *testing.T, l *shed.Limiter, work func(string) shed.Work, options ...grpc.DialOption) healthpb.HealthClient {
	t.Helper()
	s := grpc.NewServer(grpc.ChainUnaryInterceptor(Unary(l, work)), grpc.ChainStreamInterceptor(Stream(l, work)))
	h := health.NewServer()
	healthpb.RegisterHealthServer(s, h)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = s.Serve(ln) }()
	t.Cleanup(s.Stop)
	c, err := grpc.NewClient(ln.Addr().String(), append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return healthpb.NewHealthClient(c)
}

// fill takes the one probe that a full limiter lets in, so that the next is refused.
func fill(t *testing.T, l *shed.Limiter) {
	t.Helper()
	l.Update(full)
	require.Eventually(t, func() bool {
		_, err := l.Enter(t.Context(), shed.Work{Wait: -1})
		return err != nil
	}, 10*time.Second, time.Microsecond)
}

// refused checks that a call was refused in the words that clients understand.
func refused(t *testing.T, err error, trailer metadata.MD) {
	t.Helper()
	s := status.Convert(err)
	require.Equal(t, codes.ResourceExhausted, s.Code(), "%v", err)
	assert.Contains(t, s.Message(), "/grpc.health.v1.Health/", "it names the route")
	require.Len(t, s.Details(), 1)
	info, ok := s.Details()[0].(*errdetails.RetryInfo)
	require.True(t, ok, "%T", s.Details()[0])
	assert.Positive(t, info.RetryDelay.AsDuration())
	require.Len(t, trailer.Get("grpc-retry-pushback-ms"), 1)
	ms, err := strconv.ParseInt(trailer.Get("grpc-retry-pushback-ms")[0], 10, 64)
	require.NoError(t, err)
	assert.Equal(t, info.RetryDelay.AsDuration().Milliseconds(), ms)
}

func TestUnary(t *testing.T) {
	t.Parallel()
	l := shed.New(shed.Config{Wait: -1})
	client := serve(t, l, nil)
	l.Update(room)
	_, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{})
	require.NoError(t, err)
	routes := l.Snapshot().Routes
	require.Len(t, routes, 1)
	assert.Equal(t, "/grpc.health.v1.Health/Check", routes[0].Route)
	assert.Zero(t, routes[0].InFlight, "it has left")
	assert.EqualValues(t, 1, routes[0].Admitted)

	fill(t, l)
	var trailer metadata.MD
	_, err = client.Check(t.Context(), &healthpb.HealthCheckRequest{}, grpc.Trailer(&trailer))
	refused(t, err, trailer)

	l.Update(room)
	_, err = client.Check(t.Context(), &healthpb.HealthCheckRequest{})
	require.NoError(t, err)
}

func TestStream(t *testing.T) {
	t.Parallel()
	l := shed.New(shed.Config{Wait: -1})
	client := serve(t, l, func(string) shed.Work { return shed.Work{Priority: shed.Low} })
	l.Update(room)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := client.Watch(ctx, &healthpb.HealthCheckRequest{})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.NoError(t, err)
	inFlight := func() int { return l.Snapshot().Routes[0].InFlight }
	assert.Equal(t, "/grpc.health.v1.Health/Watch", l.Snapshot().Routes[0].Route)
	assert.Equal(t, 1, inFlight(), "for as long as it is open")
	cancel()
	require.Eventually(t, func() bool { return inFlight() == 0 }, 10*time.Second, time.Millisecond)

	fill(t, l)
	stream, err = client.Watch(t.Context(), &healthpb.HealthCheckRequest{})
	require.NoError(t, err) // a stream's end comes with its first message
	_, err = stream.Recv()
	refused(t, err, stream.Trailer())
}

// A client with a retry policy waits as long as it was told to, and gets through.
func TestRetryPolicyFollows(t *testing.T) {
	t.Parallel()
	l := shed.New(shed.Config{Wait: -1})
	client := serve(t, l, nil, grpc.WithDefaultServiceConfig(`{"methodConfig": [{"name": [{}], "retryPolicy": {
		"maxAttempts": 5, "initialBackoff": "0.001s", "maxBackoff": "0.001s", "backoffMultiplier": 1,
		"retryableStatusCodes": ["RESOURCE_EXHAUSTED"]}}]}`))
	fill(t, l)
	time.AfterFunc(100*time.Millisecond, func() { l.Update(room) })
	_, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{})
	require.NoError(t, err)
	var route shed.RouteSnapshot
	for _, r := range l.Snapshot().Routes {
		if r.Route == "/grpc.health.v1.Health/Check" {
			route = r
		}
	}
	assert.EqualValues(t, 1, route.Refused, "the backoff of the policy is 1 ms: five attempts would be over before there is room")
	assert.EqualValues(t, 1, route.Admitted)
}

// A call that ends while it waits for room is no refusal.
func TestCallEndsWhileItWaits(t *testing.T) {
	t.Parallel()
	l := shed.New(shed.Config{})
	fill(t, l)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := enter(ctx, l, func(string) shed.Work { return shed.Work{Wait: time.Minute} }, "/m", nil)
	assert.Equal(t, codes.Canceled, status.Code(err), "%v", err)
}
