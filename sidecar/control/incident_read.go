// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"

	"github.com/memguard/memguard-go/sidecar/incident"
)

// pagePolicy lets a report as a page show itself and have its files saved, and
// nothing else: what is in it came from a process that nobody trusts.
const pagePolicy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox allow-downloads"

func (s *Server) incidents(c *call) (answer, error) {
	if s.store == nil {
		return newList[incident.Summary]("IncidentList", nil), nil
	}
	all, err := s.store.List()
	if err != nil {
		return answer{}, s.cannotRead(err)
	}
	if c.query.Has("target") {
		all = slices.DeleteFunc(all, func(i incident.Summary) bool { return i.Target != c.about })
	}
	return newList("IncidentList", all), nil
}

// incidentTarget is the target that a call for incidents is about, empty for all
// and for a report that is not there.
func (s *Server) incidentTarget(c *call) string {
	id := c.path["id"]
	if id == "" {
		return c.query.Get("target")
	}
	if s.store != nil {
		if r, err := s.store.Get(id); err == nil {
			c.report = r
			return r.Target
		}
	}
	return ""
}

// report is the one that the call is about.
func (s *Server) report(c *call) (*incident.Report, error) {
	if c.report != nil {
		return c.report, nil
	}
	if s.store == nil {
		return nil, refuse(http.StatusNotFound, reasonNotFound, "this sidecar keeps no incidents: set state_dir in its configuration")
	}
	r, err := s.store.Get(c.path["id"])
	return r, s.cannotRead(err)
}

// cannotRead says why the store has no such thing, nil if it has.
func (s *Server) cannotRead(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, incident.ErrNoIncident), errors.Is(err, fs.ErrNotExist):
		return refuse(http.StatusNotFound, reasonNotFound, "%s: see .../incidents for those that are kept; the oldest go first", clean(err.Error(), 512))
	}
	return refuse(http.StatusServiceUnavailable, reasonUnavailable, "%s: look at the disk", clean(err.Error(), 512))
}

func (s *Server) incident(c *call) (answer, error) {
	format := c.query.Get("format")
	if format != "" && format != "json" && format != "html" && format != "md" {
		return answer{}, badField("format", "%q: want json, html or md", clean(format, 64))
	}
	r, err := s.report(c)
	if err != nil {
		return answer{}, err
	}
	var b bytes.Buffer
	switch format {
	case "html":
		leave, err := s.place()
		if err != nil {
			return answer{}, err
		}
		defer leave()
		files, err := s.store.Files(r.ID)
		if err == nil {
			err = r.WriteHTML(&b, files)
		}
		c.w.Header().Set("Content-Security-Policy", pagePolicy)
		return answer{raw: b.Bytes(), kind: "text/html; charset=utf-8"}, s.cannotRead(err)
	case "md":
		err := r.WriteMarkdown(&b)
		return answer{raw: b.Bytes(), kind: "text/markdown; charset=utf-8"}, s.cannotRead(err)
	}
	return answer{body: r}, nil
}

func (s *Server) incidentFile(c *call) (answer, error) {
	r, err := s.report(c)
	if err != nil {
		return answer{}, err
	}
	name := c.path["file"]
	if !slices.ContainsFunc(r.Files, func(n incident.Named) bool { return n.Name == name }) {
		return answer{}, refuse(http.StatusNotFound, reasonNotFound, "incident %s has no file %q: its report names those that it has", r.ID, name)
	}
	leave, err := s.place()
	if err != nil {
		return answer{}, err
	}
	defer leave()
	b, err := s.store.File(r.ID, name)
	if err != nil {
		return answer{}, s.cannotRead(err)
	}
	c.w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", name))
	return answer{raw: b, kind: "application/octet-stream"}, nil
}
