// SPDX-License-Identifier: Apache-2.0

// Producer prints its own smaps and, before it, what it knows about its addresses: lines
// "# KIND START END WHAT", each a range that lies in mappings of that kind. It is built with the Go
// release whose layout is to be recorded, so it keeps to Go 1.18 and the standard library.
//
//	producer [-heap MiB] [-object bytes] [-mmap MiB] [-file MiB] [-shm MiB] [-malloc MiB] [-threads n]
package main

import (
	"debug/dwarf"
	"debug/elf"
	"flag"
	"fmt"
	"log"
	"os"
	"reflect"
	"runtime"
	"syscall"
	"unsafe"
)

var (
	live [][]byte
	bss  [1 << 20]byte
	data = [8]byte{1}
)

// hooks of cgo.go
var (
	mallocs = func(mib, threads int) {}
)

func truth(kind string, p unsafe.Pointer, n int, what string) {
	fmt.Printf("# %s %x %x %s\n", kind, uintptr(p), uintptr(p)+uintptr(n), what)
}

func main() {
	log.SetFlags(0)
	heap := flag.Int("heap", 16, "`MiB` of live Go objects")
	object := flag.Int("object", 64<<10, "`bytes` of each")
	anon := flag.Int("mmap", 0, "`MiB` of private anonymous memory")
	file := flag.Int("file", 0, "`MiB` of a mapped file")
	shm := flag.Int("shm", 0, "`MiB` of shared anonymous memory")
	malloc := flag.Int("malloc", 0, "`MiB` from C malloc")
	threads := flag.Int("threads", 1, "C threads that call malloc")
	flag.Parse()

	for n := 0; n < *heap<<20; n += *object {
		live = append(live, make([]byte, *object))
	}
	fmt.Printf("# go %s\n", runtime.Version())
	truth("go-heap", unsafe.Pointer(&live[0][0]), *object, "object")
	truth("go-heap", unsafe.Pointer(&live[len(live)-1][0]), *object, "object")
	done := make(chan bool)
	go func() {
		var local [64]byte
		truth("go-heap", unsafe.Pointer(&local), len(local), "goroutine stack")
		done <- true
	}()
	<-done
	bss[0] = 1
	truth("binary", unsafe.Pointer(&bss), len(bss), "bss")
	truth("binary", unsafe.Pointer(&data), len(data), "data")
	truth("binary", unsafe.Pointer(reflect.ValueOf(main).Pointer()), 1, "text")

	mmap("anon", -1, *anon, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	mmap("shmem", -1, *shm, syscall.MAP_SHARED|syscall.MAP_ANON)
	if *file > 0 {
		f, err := os.CreateTemp("", "mapped file ")
		check(err)
		check(os.Remove(f.Name()))
		check(f.Truncate(int64(*file) << 20))
		mmap("file", int(f.Fd()), *file, syscall.MAP_SHARED)
	}
	mallocs(*malloc, *threads)
	metadata()
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	fmt.Printf("# metadata-bytes %d\n", ms.MSpanSys+ms.MCacheSys+ms.BuckHashSys+ms.GCSys+ms.OtherSys)

	smaps, err := os.ReadFile("/proc/self/smaps")
	check(err)
	os.Stdout.Write(smaps)
	runtime.KeepAlive(live)
}

func mmap(kind string, fd, mib, flags int) {
	if mib == 0 {
		return
	}
	b, err := syscall.Mmap(fd, 0, mib<<20, syscall.PROT_READ|syscall.PROT_WRITE, flags)
	check(err)
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	truth(kind, unsafe.Pointer(&b[0]), len(b), "mmap")
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// metadata reads runtime.mheap_ by its debug information: where the arenas are, and the
// tables about them.
func metadata() {
	f, err := elf.Open("/proc/self/exe")
	check(err)
	d, err := f.DWARF()
	check(err)
	syms, err := f.Symbols()
	check(err)
	var heap, self uintptr
	for _, s := range syms {
		switch s.Name {
		case "runtime.mheap_":
			heap = uintptr(s.Value)
		case "main.main":
			self = uintptr(s.Value)
		}
	}
	bias := reflect.ValueOf(main).Pointer() - self // position-independent executables
	h := object{d, find(d, "runtime.mheap"), heap + bias}

	const arena, l2entries = 64 << 20, 1 << 22
	arenas := h.field("allArenas", "heapArenas")
	base, n := arenas.slice()
	for i := uintptr(0); i < n; i++ {
		idx := *(*uint)(unsafe.Pointer(base + i*unsafe.Sizeof(uint(0))))
		start := uintptr(idx) * arena
		if runtime.GOARCH == "amd64" {
			start += 0xffff800000000000
		}
		truth("go-heap", unsafe.Pointer(start), arena, "arena")
	}
	l2 := *(*uintptr)(unsafe.Pointer(h.field("arenas").addr))
	truth("go-metadata", unsafe.Pointer(l2), l2entries*8, "heap index")
	for i := uintptr(0); i < n; i++ {
		idx := *(*uint)(unsafe.Pointer(base + i*unsafe.Sizeof(uint(0))))
		truth("go-metadata", unsafe.Pointer(*(*uintptr)(unsafe.Pointer(l2 + uintptr(idx)*8))), 1, "heap arena")
	}
	spans, n := h.field("allspans").slice()
	truth("go-metadata", unsafe.Pointer(spans), int(n)*8, "allspans array")
	pages := h.field("pages")
	summary := pages.field("summary")
	for l := uintptr(0); l < 5; l++ {
		sh := (*reflect.SliceHeader)(unsafe.Pointer(summary.addr + l*unsafe.Sizeof(reflect.SliceHeader{})))
		truth("go-metadata", unsafe.Pointer(sh.Data), sh.Cap*8, fmt.Sprintf("page summary %d", l))
	}
	chunks := pages.field("chunks").addr
	for i := uintptr(0); i < 1<<13; i++ {
		if p := *(*uintptr)(unsafe.Pointer(chunks + i*8)); p != 0 {
			truth("go-metadata", unsafe.Pointer(p), 1<<20, "page alloc")
		}
	}
}

type object struct {
	d    *dwarf.Data
	typ  *dwarf.StructType
	addr uintptr
}

func (o object) field(names ...string) object {
	for _, f := range o.typ.Field {
		for _, n := range names {
			if f.Name == n {
				t := f.Type
				for {
					td, ok := t.(*dwarf.TypedefType)
					if !ok {
						break
					}
					t = td.Type
				}
				st, _ := t.(*dwarf.StructType)
				return object{o.d, st, o.addr + uintptr(f.ByteOffset)}
			}
		}
	}
	log.Fatalf("no field %v", names)
	return object{}
}

func (o object) slice() (base, n uintptr) {
	sh := (*reflect.SliceHeader)(unsafe.Pointer(o.addr))
	return sh.Data, uintptr(sh.Len)
}

func find(d *dwarf.Data, name string) *dwarf.StructType {
	r := d.Reader()
	for {
		e, err := r.Next()
		check(err)
		if e == nil {
			log.Fatalf("no type %s", name)
		}
		if s, _ := e.Val(dwarf.AttrName).(string); s == name && (e.Tag == dwarf.TagStructType || e.Tag == dwarf.TagTypedef) {
			t, err := d.Type(e.Offset)
			check(err)
			if td, ok := t.(*dwarf.TypedefType); ok {
				t = td.Type
			}
			return t.(*dwarf.StructType)
		}
	}
}
