// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"io"
)

// openAPIPacked is openapi.json: a tenth of its size in every binary. UPDATE=1 go test
// packs it again.
//
//go:embed openapi.json.gz
var openAPIPacked []byte

func openAPI() ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(openAPIPacked))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// document describes all of this.
func (s *Server) document(*call) (answer, error) {
	text, err := openAPI()
	return answer{raw: text, kind: "application/json"}, err
}
