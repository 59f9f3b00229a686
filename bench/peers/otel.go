// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/collector/processor/memorylimiterprocessor"
	noopmetric "go.opentelemetry.io/otel/metric/noop"
	nooptrace "go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/zap"

	"github.com/memguard/memguard-go/bench/lab"
)

// memoryLimiter is the processor of OpenTelemetry's collector. The limiter itself
// is internal to it, so a request asks as data would that comes down a pipeline:
// with an empty batch of logs, which the processor passes on or refuses.
var memoryLimiter = lab.Contender{
	Name:    "otel-limiter",
	Version: version("go.opentelemetry.io/collector/processor/memorylimiterprocessor"),
	Setup: "the collector's memory_limiter: check_interval 1s, limit 80 % and spike limit 15 % of the cgroup's limit, given in MiB, and GOMEMLIMIT at 80 % of its hard limit " +
		"(https://github.com/open-telemetry/opentelemetry-collector/tree/processor/memorylimiterprocessor/v0.164.0/processor/memorylimiterprocessor#best-practices)",
	Env: func(limit uint64) []string {
		return []string{fmt.Sprintf("GOMEMLIMIT=%d", limit/100*64)}
	},
	Start: func(limit uint64) (lab.Hooks, error) {
		const mib = 1 << 20
		logger, err := zap.NewProduction()
		if err != nil {
			return lab.Hooks{}, err
		}
		factory := memorylimiterprocessor.NewFactory()
		cfg := factory.CreateDefaultConfig().(*memorylimiterprocessor.Config)
		cfg.CheckInterval = time.Second
		cfg.MemoryLimitMiB = uint32(limit / 100 * 80 / mib)
		cfg.MemorySpikeLimitMiB = uint32(limit / 100 * 15 / mib)
		next, err := consumer.NewLogs(func(context.Context, plog.Logs) error { return nil })
		if err != nil {
			return lab.Hooks{}, err
		}
		limiter, err := factory.CreateLogs(context.Background(), processor.Settings{
			ID: component.NewID(factory.Type()),
			TelemetrySettings: component.TelemetrySettings{
				Logger:         logger,
				TracerProvider: nooptrace.NewTracerProvider(),
				MeterProvider:  noopmetric.NewMeterProvider(),
				Resource:       pcommon.NewResource(),
			},
		}, cfg, next)
		if err != nil {
			return lab.Hooks{}, err
		}
		if err := limiter.Start(context.Background(), nil); err != nil {
			return lab.Hooks{}, err
		}
		empty := plog.NewLogs()
		hooks := gate(func() (func(), bool) {
			return func() {}, limiter.ConsumeLogs(context.Background(), empty) == nil
		})
		hooks.Close = func() error { return limiter.Shutdown(context.Background()) }
		return hooks, nil
	},
}
