// SPDX-License-Identifier: Apache-2.0

package auto

import (
	"context"
	"log/slog"
)

// lazy is slog's default handler at the time of logging: main may set it after
// the guard has begun.
type lazy struct{}

func (lazy) Enabled(ctx context.Context, level slog.Level) bool {
	return slog.Default().Handler().Enabled(ctx, level)
}

func (lazy) Handle(ctx context.Context, r slog.Record) error {
	return slog.Default().Handler().Handle(ctx, r)
}

// What is added to a logger stays with the default of then.
func (lazy) WithAttrs(attrs []slog.Attr) slog.Handler {
	return slog.Default().Handler().WithAttrs(attrs)
}
func (lazy) WithGroup(name string) slog.Handler { return slog.Default().Handler().WithGroup(name) }
