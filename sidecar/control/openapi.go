// SPDX-License-Identifier: Apache-2.0

package control

import _ "embed"

//go:embed openapi.json
var openAPI []byte

// document describes all of this.
func (s *Server) document(*call) (answer, error) {
	return answer{raw: openAPI, kind: "application/json"}, nil
}
