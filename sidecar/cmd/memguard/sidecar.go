// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"

	"github.com/memguard/memguard-go/sidecar"
	"github.com/memguard/memguard-go/sidecar/config"
	"github.com/memguard/memguard-go/sidecar/target"
	"github.com/spf13/cobra"
)

// Environment variables that stand for flags of the sidecar, for where a file is
// too much: a container of a pod.
const (
	envConfig   = "MEMGUARD_CONFIG"
	envListen   = "MEMGUARD_LISTEN"
	envStateDir = "MEMGUARD_STATE_DIR"
	envExe      = "MEMGUARD_TARGET_EXE"
	envCommand  = "MEMGUARD_TARGET_COMMAND"
	envPort     = "MEMGUARD_TARGET_PORT"
)

func sidecarCommand() *cobra.Command {
	var (
		file, listen, stateDir, logFormat string
		rule                              target.Rule
		check, schema                     bool
		level                             slog.Level
	)
	c := &cobra.Command{
		Use:   "sidecar [--config FILE]",
		Short: "Watch services, record, take orders, and explain their death",
		Long: `Sidecar runs beside services that know nothing of it: in the same pod, on the same
host, or under systemd. It follows them through their restarts, keeps what led to
the end of one as an incident report, tells Prometheus and people what it sees, and
gives orders to those services that import memguard, for who may.

Targets come from the file, or for the common cases from flags or the environment:
--exe '/app/*' watches every process with such an executable. A target's own user
may read it; another one needs CAP_SYS_PTRACE.

It listens on ` + config.DefaultListen + ` unless told otherwise:

  /            the live page
  /metrics     for Prometheus
  /apis/memguard.dev/v1alpha1/   the API; /openapi/v3 describes it
  /livez /readyz?verbose         whether it runs, and what of it does not
  /-/reload    (POST) reads the file again, as SIGHUP does

Writes are off until the file switches them on and says who may. What was wrong in
a file that is read again changes nothing.`,
		Example: `  memguard sidecar --exe '/app/*'
  memguard sidecar --config /etc/memguard/sidecar.yaml
  memguard sidecar --config sidecar.yaml --check
  memguard sidecar --schema > sidecar.schema.json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if schema {
				_, err := c.OutOrStdout().Write(config.Schema())
				return err
			}
			if v := os.Getenv(envPort); v != "" && !c.Flags().Changed("port") {
				if err := c.Flags().Set("port", v); err != nil {
					return &status{exitUsage, fmt.Errorf("$%s: %w", envPort, err)}
				}
			}
			if c.Flags().Changed("port") && rule.Port == 0 { // as in the file: none would be any
				return &status{exitUsage, errors.New("--port: 0 is no port: leave it out for any")}
			}
			load := func() (*config.Config, error) {
				cfg := config.Default()
				if file != "" {
					var err error
					if cfg, err = config.ReadFile(file); err != nil {
						return nil, err
					}
				}
				cfg.Web.Listen = cmp.Or(listen, cfg.Web.Listen)
				cfg.StateDir = cmp.Or(stateDir, cfg.StateDir)
				if rule.PID != 0 || rule.Exe != "" || rule.Command != "" || rule.Port != 0 {
					cfg.Targets = append(cfg.Targets, rule)
				}
				if err := cfg.Complete(os.Getenv); err != nil {
					return nil, fmt.Errorf("config: %s: %w", cmp.Or(file, "flags"), err)
				}
				return cfg, nil
			}
			cfg, err := load()
			if err != nil {
				return &status{exitUsage, err}
			}
			log, err := newLogger(c.ErrOrStderr(), logFormat, level)
			if err != nil {
				return &status{exitUsage, err}
			}
			if check {
				if err := sidecar.Check(cfg); err != nil {
					return &status{exitUsage, fmt.Errorf("config: %s: %w", cmp.Or(file, "flags"), err)}
				}
				fmt.Fprintf(c.OutOrStdout(), "%s: fine\n", cmp.Or(file, "flags"))
				return nil
			}
			reload := make(chan os.Signal, 1)
			notifyReload(reload)
			defer signal.Stop(reload)
			go settle(c.Context())
			err = sidecar.Run(c.Context(), sidecar.Options{
				Config: cfg, Load: load, Reload: reload, Logger: log, Version: version(),
			})
			if err != nil {
				return cannotLook(err)
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVarP(&file, "config", "c", os.Getenv(envConfig), "YAML file; $"+envConfig)
	f.StringVar(&listen, "listen", os.Getenv(envListen), "address to listen at, or none; $"+envListen)
	f.StringVar(&stateDir, "state-dir", os.Getenv(envStateDir), "directory for incidents, journal and audit log; $"+envStateDir)
	f.StringVar(&rule.Name, "name", "app", "name of the target that the following flags describe")
	f.Var((*pidValue)(&rule.PID), "pid", "watch this process")
	f.StringVar(&rule.Exe, "exe", os.Getenv(envExe), "watch processes with this executable: a path in which * and ? may stand; $"+envExe)
	f.StringVar(&rule.Command, "command", os.Getenv(envCommand), "watch processes of this name; $"+envCommand)
	f.IntVar(&rule.Port, "port", 0, "watch the process that listens at this TCP port; $"+envPort)
	f.BoolVar(&check, "check", false, "check the configuration and the files that it names, and end")
	f.BoolVar(&schema, "schema", false, "print the JSON schema of the file")
	f.StringVar(&logFormat, "log-format", "text", "text or json")
	f.TextVar(&level, "log-level", slog.LevelInfo, "debug, info, warn or error")
	_ = c.RegisterFlagCompletionFunc("pid", completePID)
	return c
}

// newLogger makes the log of a long-running command.
func newLogger(w io.Writer, format string, level slog.Level) (*slog.Logger, error) {
	o := &slog.HandlerOptions{Level: level}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return nil, errors.New("--log-format: want text or json")
}
