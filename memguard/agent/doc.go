// SPDX-License-Identifier: Apache-2.0

// Package agent is the hand in a service that its operators reach: HTTP on a
// unix socket in a private directory, which tells what the service's own guard
// sees and takes orders for it. It is there only if the service calls [Serve].
//
//	g := memguard.Start(memguard.Config{})
//	a, err := agent.Serve(g, agent.Config{})
//
// The socket is DIR/memguard-UID/PID.sock, where DIR is $XDG_RUNTIME_DIR, or the
// directory for temporary files where that is unset or unusable. The directory
// has mode 0700, the socket 0600, and the kernel tells who connects
// (SO_PEERCRED, unix(7)): the service's own user and root are answered, others
// are not. [Dial] finds the socket of a process, in another container too.
// "memguard explain", "ledger" and "top" use it by themselves.
//
//	GET    /v1/status               what the guard knows and does: Status
//	GET    /v1/sample               the figures of its last tick: Sample
//	GET    /v1/ledger               memguard.Ledger of that tick
//	GET    /v1/findings             what stands, the most severe first: []memguard.Finding
//	GET    /v1/report               memguard.Report, with a survey of the address space
//	GET    /v1/events?after=N&wait=30s   []memguard.Event after the one with Seq N
//	POST   /v1/orders               memguard.Order in, memguard.Event out
//	DELETE /v1/orders/SEQ?reason=R&by=B  takes back the order that is event SEQ
//
// Every answer is a JSON object: version, which is 1, and what was asked for
// under its name: status, sample, ledger, findings, report, events (with ended:
// true when there will be no more), event. What is unknown is null. Sizes are
// bytes. An error has code, error, and do: what to do about it.
//
//	curl --unix-socket $XDG_RUNTIME_DIR/memguard-$UID/4711.sock http://memguard/v1/status
//	curl --unix-socket ... -d '{"action":"gc-percent","to":50,"reason":"leak in orders"}' http://memguard/v1/orders
//
// The actions that can be ordered. Settings stand until ttl_ns is over (without one
// ten minutes, a day at most), until they are taken back, or until the guard ends;
// the guard itself sees to it, whatever becomes of who asked. All take a reason, by,
// and dry_run.
//
//	gc-percent      to: percent, -1 is off
//	memory-limit    to: bytes
//	breaker         to: 0 closed, 1 half-open, 2 open: of the service's memory breaker
//	shed            to: percent of the work that the limiter refuses, 0 to 100; work of
//	                high priority is not refused
//	gc, free-os-memory, capture, compact    done once, without to
//
// What the service has no part for (a breaker, a limiter, a store, a hook) is
// refused with code "refused", and the error says what it lacks.
//
// A report costs the service 15-30 ms for each GiB of RSS. One is taken at a
// time, and who asks again within a second, or within twenty times of what it
// took, gets the last one; its time says so. Events are long-polled: the answer
// waits for the next event, for as long as wait says and a minute at most.
//
// Everything is bounded: bodies, headers, connections, requests at once, and the
// time that each may take. Nothing here holds a lock of the guard's for longer
// than copying its figures takes, and a guard that hangs is said to hang. When the
// guard has ended the agent tells those who ask, for seconds, and ends too: its
// socket goes.
package agent
