# SPDX-License-Identifier: Apache-2.0
# Needs Go and nothing else. Everything fetched is a Go module.

GO          ?= go
FUZZTIME    ?= 20s
BENCHTIME   ?= 1s
NESTED      := bench/peers examples/adapters sidecar/conformance
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

# The race detector needs a C compiler.
RACE := $(shell CGO_ENABLED=1 $(GO) env CC | cut -d' ' -f1 | xargs -I{} sh -c 'command -v {} >/dev/null 2>&1 && echo -race')

.PHONY: demo test check lint cross bench lab guest claims nested fuzz golden build help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## one real service lives twice under a real memory limit: killed, and guarded
	@$(GO) run ./sidecar/cmd/memguard demo

test: ## all tests, with the race detector where there is a C compiler
	$(if $(RACE),,@echo "no C compiler: testing without the race detector and without the cgo programs")
	$(GO) test $(RACE) ./...

check: lint cross test ## what a change must pass: lint, cross-compilation, tests, a short fuzz
	@$(MAKE) --no-print-directory fuzz FUZZTIME=2s

lint: ## gofmt, vet, staticcheck, go mod tidy
	@test -z "$$(gofmt -l .)" || { echo "not gofmt-clean:"; gofmt -l .; exit 1; }
	$(GO) vet ./... ./memguard/testdata/hold/...
	$(GO) run $(STATICCHECK) ./...
	$(GO) mod tidy -diff

cross: ## other systems must compile
	GOOS=darwin GOARCH=arm64 $(GO) vet ./...
	GOOS=windows GOARCH=amd64 $(GO) vet ./...
	GOOS=linux GOARCH=arm64 $(GO) build ./...

bench: ## hot paths, and their ratios to the alternatives
	$(GO) run ./bench/cmd/micro --benchtime $(BENCHTIME)

lab: ## services under a real memory limit, with and without a guard (10 minutes)
	$(GO) run ./bench/cmd/oomlab run --guard plain,memguard-shed

guest: ## the lab under cgroup version 2, in an emulated machine: make guest KERNEL=vmlinuz [ARGS="bursts-45"]
	$(GO) run ./bench/cmd/guest --kernel $(KERNEL) -- ./bench/cmd/oomlab run $(ARGS) --guard plain,memguard-shed --limit 64MiB

claims: ## what is said about Go's memory, as experiments
	$(GO) run ./bench/cmd/claims

nested: ## the modules beside this one: other people's guards and libraries
	@for dir in $(NESTED); do \
		echo "$$dir"; \
		(cd $$dir && $(GO) vet ./... && $(GO) test ./... && $(GO) mod tidy -diff) || exit 1; \
	done

fuzz: ## every fuzz target for FUZZTIME
	@for dir in $$($(GO) list -f '{{.Dir}}' ./...); do \
		for target in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' $$dir/*_test.go 2>/dev/null | cut -c6-); do \
			echo "$$dir $$target"; \
			(cd $$dir && $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x .) || exit 1; \
		done; \
	done

golden: ## rewrite golden files and generated docs
	UPDATE=1 $(GO) test ./...

build: ## the memguard binary, in bin/
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags='-s -w' -o bin/memguard ./sidecar/cmd/memguard
