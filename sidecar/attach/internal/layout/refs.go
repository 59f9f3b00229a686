// SPDX-License-Identifier: Apache-2.0

package layout

import "iter"

// Global is a variable of package runtime that is read.
type Global struct {
	Name     string
	Optional bool // figures are lost without it, the rest is not
	// Lone: an integer or pointer with nothing around it, which only the exact
	// place in known machine code identifies.
	Lone bool
}

// Globals are all of them.
var Globals = []Global{
	{Name: "runtime.mheap_"},
	{Name: "runtime.memstats"},
	{Name: "runtime.gcController"},
	{Name: "runtime.sched"},
	{Name: "runtime.allp"},
	{Name: "runtime.allgs"},
	{Name: "runtime.allfin", Optional: true, Lone: true},
	{Name: "runtime.fing", Optional: true, Lone: true},
	{Name: "runtime.finqueued", Optional: true, Lone: true},
	{Name: "runtime.finexecuted", Optional: true, Lone: true},
	{Name: "runtime.gcCleanups", Optional: true},
	{Name: "runtime.mbuckets", Optional: true, Lone: true},
	{Name: "runtime.mProfCycle", Optional: true, Lone: true},
	{Name: "runtime.MemProfileRate", Optional: true, Lone: true},
	{Name: "runtime.gcphase", Optional: true, Lone: true},
	{Name: "runtime.allm", Optional: true, Lone: true},
}

// Addresses yields every place in code, which is loaded at pc, that may hold the
// address of a variable, with that address. For amd64 it is every position: an
// operand relative to the next instruction can be anywhere (Intel SDM volume 2,
// 2.2.1.6), and telling instructions apart is not needed where many functions
// vote. For arm64 it is ADRP followed by an instruction that adds the low bits.
func Addresses(arch string, code []byte, pc uint64) iter.Seq2[uint32, uint64] {
	if arch == "arm64" {
		return arm64Addresses(code, pc)
	}
	return func(yield func(uint32, uint64) bool) {
		for i := 0; i+4 <= len(code); i++ {
			if !yield(uint32(i), pc+uint64(i)+4+uint64(int64(int32(le32(code[i:]))))) {
				return
			}
		}
	}
}

// arm64Addresses decodes ADRP Xd, page and the ADD, load or store that uses it
// (Arm ARM, C4.1). The compiler keeps the two together.
func arm64Addresses(code []byte, pc uint64) iter.Seq2[uint32, uint64] {
	return func(yield func(uint32, uint64) bool) {
		for i := 0; i+8 <= len(code); i += 4 {
			adrp, next := le32(code[i:]), le32(code[i+4:])
			if adrp&0x9f000000 != 0x90000000 || adrp&31 != next>>5&31 {
				continue
			}
			imm := int64(adrp>>5&0x7ffff)<<2 | int64(adrp>>29&3)
			page := (pc+uint64(i))&^0xfff + uint64(imm<<43>>43)<<12 // 21 bits, signed
			low := uint64(next >> 10 & 0xfff)
			switch {
			case next&0xffc00000 == 0x91000000: // ADD Xd, Xn, #imm12
			case next&0x3b000000 == 0x39000000: // LDR, STR with an unsigned offset, scaled by the size
				low <<= next >> 30
			default:
				continue
			}
			if !yield(uint32(i), page+low) {
				return
			}
		}
	}
}

func le32(b []byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

// Code is the machine code of a function of the target.
type Code struct {
	PC    uint64
	Bytes []byte
}

// Locate finds the globals of a program without symbols: every known function
// says where it refers to what. in bounds where variables can be. A global
// that the functions do not agree on is left out.
func (l *Layout) Locate(code map[string]Code, in func(addr uint64) bool) map[string]uint64 {
	exact := map[string]map[uint64]int{} // by places in functions that are as in the reference build
	loose := map[string]map[uint64]int{} // by any place in functions that differ
	differ := map[string]map[string][]int32{}
	for _, r := range l.Refs {
		c, ok := code[r.Func]
		switch {
		case !ok:
		case len(c.Bytes) != int(r.Len):
			if differ[r.Global] == nil {
				differ[r.Global] = map[string][]int32{}
			}
			differ[r.Global][r.Func] = append(differ[r.Global][r.Func], r.Addend)
		default:
			end := min(uint64(r.At)+8, uint64(len(c.Bytes)))
			if uint64(r.At) >= end {
				continue
			}
			for at, addr := range Addresses(l.Arch, c.Bytes[r.At:end], c.PC+uint64(r.At)) {
				if at == 0 {
					vote(exact, r.Global, addr-uint64(int64(r.Addend)), in)
				}
				break
			}
		}
	}
	found := map[string]uint64{}
	for _, g := range Globals {
		if addr, ok := winner(exact[g.Name]); ok {
			found[g.Name] = addr
			continue
		}
		if g.Lone {
			continue
		}
		for fn, addends := range differ[g.Name] {
			once := map[uint64]bool{} // each function has one vote for each address
			for _, addr := range Addresses(l.Arch, code[fn].Bytes, code[fn].PC) {
				for _, a := range addends {
					if addr -= uint64(int64(a)); !once[addr] {
						once[addr] = true
						vote(loose, g.Name, addr, in)
					}
					addr += uint64(int64(a))
				}
			}
		}
		if addr, ok := winner(loose[g.Name]); ok {
			found[g.Name] = addr
		}
	}
	return found
}

func vote(votes map[string]map[uint64]int, name string, addr uint64, in func(uint64) bool) {
	if !in(addr) || addr%4 != 0 {
		return
	}
	if votes[name] == nil {
		votes[name] = map[uint64]int{}
	}
	votes[name][addr]++
}

// winner is the address with the most votes, if it has at least two and twice as
// many as any other.
func winner(votes map[uint64]int) (uint64, bool) {
	var addr uint64
	first, second := 0, 0
	for a, n := range votes {
		switch {
		case n > first:
			addr, first, second = a, n, first
		case n > second:
			second = n
		}
	}
	return addr, first >= 2 && first >= 2*second
}
