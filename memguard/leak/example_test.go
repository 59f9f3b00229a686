// SPDX-License-Identifier: Apache-2.0

package leak_test

import (
	"fmt"
	"os"
	"strings"

	"github.com/memguard/memguard-go/memguard/leak"
)

const earlier = `goroutine 1 [IO wait]:
main.serve(...)
	/src/main.go:20 +0x1d
`

const later = earlier + `
goroutine 18 [chan receive, 12 minutes]:
main.(*client).wait(0xc000014a10)
	/src/client.go:41 +0x1d
created by main.(*client).start in goroutine 1
	/src/client.go:33 +0x2f

goroutine 19 [chan receive, 3 minutes]:
main.(*client).wait(0xc000014a80)
	/src/client.go:41 +0x1d
created by main.(*client).start in goroutine 1
	/src/client.go:33 +0x2f
`

func ExampleParse() {
	s, err := leak.Parse(strings.NewReader(later))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, c := range s.Clusters {
		fmt.Printf("%d [%s] at %s, created by %s\n", c.Count, c.State, c.Blocked(), c.Origin())
	}
	// Output:
	// 2 [chan receive] at main.(*client).wait (client.go:41), created by main.(*client).start (client.go:33)
	// 1 [IO wait] at main.serve (main.go:20), created by main.serve (main.go:20)
}

func ExampleCompare() {
	before, _ := leak.Parse(strings.NewReader(earlier))
	after, _ := leak.Parse(strings.NewReader(later))
	_ = leak.Compare(before, after).WriteText(os.Stdout, 80, false)
	// Output:
	// 1 -> 3 goroutines (+2)
	//
	// APPEARED
	//       +2  0 -> 2  main.(*client).wait (client.go:41) [chan receive]
	//           created by main.(*client).start (client.go:33)
	//           longest wait 12m0s
	//           chan-receive: A receive from a channel that nobody sends on or closes
	//           any more.
	//
	// STAYED
	//       +0  1 -> 1  main.serve (main.go:20) [IO wait]
	//           entered at main.serve (main.go:20)
	//
	// WHERE THE 2 NEW ONES ARE
	//        2  ############ [chan receive] main.(*client).wait (client.go:41)
}
