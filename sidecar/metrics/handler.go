// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/time/rate"
)

const (
	scrapesAtOnce = 4                // a pair of Prometheus, and who looks by hand
	scrapeTimeout = 10 * time.Second // Prometheus' own default
)

// Handler returns what answers at /metrics: these collectors, and the sidecar's
// own go_* and process_*. It fails where two collectors have a name in common.
//
// A few scrapes are answered at once and others refused with 503. An answer is
// complete before the first byte of it is sent, so that who reads slowly holds
// none of these places, and one that takes longer than 10 s is given up. What a
// collector cannot tell is left out, counted in
// promhttp_metric_handler_errors_total, and logged once a minute at most.
func Handler(logger *slog.Logger, cs ...prometheus.Collector) (http.Handler, error) {
	reg := prometheus.NewRegistry()
	cs = append(cs, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, c := range cs {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		Registry:            reg,
		ErrorHandling:       promhttp.ContinueOnError,
		ErrorLog:            &seldom{logger, rate.Sometimes{Interval: time.Minute}},
		MaxRequestsInFlight: scrapesAtOnce,
		Timeout:             scrapeTimeout,
	}), nil
}

// seldom logs once a minute: a scrape whose client hangs up has an error for each
// of its metrics.
type seldom struct {
	logger *slog.Logger
	rate.Sometimes
}

// Println implements [promhttp.Logger].
func (s *seldom) Println(v ...any) {
	s.Do(func() { s.logger.Warn("metrics: " + strings.TrimSpace(fmt.Sprintln(v...))) })
}
