// SPDX-License-Identifier: Apache-2.0

// Basic is a service that is guarded by one line: the import of auto.
//
//	go run ./examples/basic -addr 127.0.0.1:8080
//	curl http://127.0.0.1:8080/hello?name=gopher
//	go run ./sidecar/cmd/memguard top --pid $(pgrep -x basic)
//
// MEMGUARD=dry-run lets the guard plan only, MEMGUARD_DIR=DIR keeps evidence.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	_ "github.com/memguard/memguard-go/memguard/auto"
)

func hello(w http.ResponseWriter, r *http.Request) {
	name := r.FormValue("name")
	if name == "" {
		http.Error(w, "want ?name=", http.StatusBadRequest)
		return
	}
	fmt.Fprintf(w, "Hello, %q!\n", name)
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "address to listen on")
	flag.Parse()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello", hello)
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fmt.Printf("listening on %s\n", l.Addr()) // for who started it with port 0
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err = <-failed:
	case <-ctx.Done():
		most, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		err = server.Shutdown(most) // answers what has begun
	}
	if err != nil {
		log.Fatal(err)
	}
}
