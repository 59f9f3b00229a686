// SPDX-License-Identifier: Apache-2.0

package adapters

import (
	"context"
	"errors"
	"strconv"

	"github.com/memguard/memguard-go/memguard/shed"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Unary admits unary calls by the memory that they hold. A call's route is its
// full method; work may name another and give a priority, for a health check say,
// and may be nil.
//
// What is refused ends with ResourceExhausted. When to try again is in it twice:
// as google.rpc.RetryInfo for people's code, and as grpc-retry-pushback-ms in the
// trailer, which a client with a retry policy follows by itself (gRFC A6).
//
// The server has read the request by the time that an interceptor is asked:
// grpc.MaxConcurrentStreams and grpc.MaxRecvMsgSize bound what that takes.
func Unary(l *shed.Limiter, work func(method string) shed.Work) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		leave, err := enter(ctx, l, work, info.FullMethod, func(md metadata.MD) { _ = grpc.SetTrailer(ctx, md) })
		if err != nil {
			return nil, err
		}
		defer leave()
		return handler(ctx, req)
	}
}

// Stream is Unary for streams. One that is admitted counts until it ends.
func Stream(l *shed.Limiter, work func(method string) shed.Work) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		leave, err := enter(stream.Context(), l, work, info.FullMethod, stream.SetTrailer)
		if err != nil {
			return err
		}
		defer leave()
		return handler(srv, stream)
	}
}

// enter asks the limiter, and says no in gRPC's words.
func enter(ctx context.Context, l *shed.Limiter, work func(string) shed.Work, method string, trailer func(metadata.MD)) (leave func(), err error) {
	var w shed.Work
	if work != nil {
		w = work(method)
	}
	if w.Route == "" {
		w.Route = method
	}
	leave, err = l.Enter(ctx, w)
	var refusal *shed.Refusal
	switch {
	case err == nil:
		return leave, nil
	case !errors.As(err, &refusal):
		return nil, status.FromContextError(err).Err()
	}
	trailer(metadata.Pairs("grpc-retry-pushback-ms", strconv.FormatInt(refusal.RetryAfter.Milliseconds(), 10)))
	s := status.New(codes.ResourceExhausted, refusal.Error())
	if detailed, err := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(refusal.RetryAfter)}); err == nil {
		s = detailed
	}
	return nil, s.Err()
}
