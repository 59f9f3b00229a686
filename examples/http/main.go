// SPDX-License-Identifier: Apache-2.0

// Http is an HTTP service that refuses what does not fit into its memory, and
// answers the rest. A thumbnail holds some mebibytes while it is made; when more
// are asked for than fit under the container's limit, the surplus gets a 503 at
// once, and the health check is the last to be refused.
//
//	go run ./examples/http -addr 127.0.0.1:8080
//	curl -o small.png 'http://127.0.0.1:8080/thumbnails/42?size=64'
//	curl http://127.0.0.1:8080/debug/shed
//
// and http://127.0.0.1:8080/debug/memory in a browser shows what the guard knows.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/shed"
)

const original = 1024 // pixels of a picture's side; 4 bytes each

// thumbnail draws picture id and makes it small.
func thumbnail(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 32)
	if err != nil {
		http.Error(w, "no such picture", http.StatusNotFound)
		return
	}
	size, err := strconv.Atoi(r.FormValue("size"))
	if err != nil || size < 1 || size > original {
		http.Error(w, fmt.Sprintf("size: want 1 to %d", original), http.StatusBadRequest)
		return
	}
	picture := image.NewRGBA(image.Rect(0, 0, original, original))
	for i := range picture.Pix {
		picture.Pix[i] = byte(uint64(i) * (id + 1) >> 7)
	}
	small := image.NewRGBA(image.Rect(0, 0, size, size))
	for y := range size {
		for x := range size {
			c := picture.RGBAAt(x*original/size, y*original/size)
			small.SetRGBA(x, y, color.RGBA{R: c.R, G: c.G, B: c.B, A: 255})
		}
	}
	w.Header().Set("Content-Type", "image/png")
	_ = png.Encode(w, small)
}

// work lets the health check in when nothing else is: a service that is busy is
// not to be restarted. So is who looks why.
func work(r *http.Request) shed.Work {
	switch r.URL.Path {
	case "/healthz", "/debug/shed", "/debug/memory":
		return shed.Work{Priority: shed.High}
	}
	return shed.Work{}
}

func service(guard *memguard.Guard, limiter *shed.Limiter) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /thumbnails/{id}", thumbnail)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /debug/shed", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(limiter.Snapshot())
	})
	mux.HandleFunc("GET /debug/memory", page(guard))
	return limiter.Handler(mux)
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "address to listen on")
	flag.Parse()
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fmt.Printf("listening on %s\n", l.Addr()) // for who started it with port 0

	limiter := shed.New(shed.Config{Work: work})
	guard := memguard.Start(memguard.Config{Shed: limiter})
	server := &http.Server{
		Handler:           service(guard, limiter),
		ConnState:         limiter.ConnState, // it closes none that has a request under way
		ReadHeaderTimeout: 10 * time.Second,  // and half a request holds none for ever
	}
	err = serve(ctx, server, limiter.Listener(l))
	_ = guard.Close() // puts back every setting
	if err != nil {
		log.Fatal(err)
	}
}

// serve answers until ctx ends, and then what has begun.
func serve(ctx context.Context, server *http.Server, l net.Listener) error {
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	most, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return server.Shutdown(most)
}
