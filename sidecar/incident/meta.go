// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"cmp"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// Meta says where a process ran: what a person looks for it by. Empty is unknown.
type Meta struct {
	Namespace   string `json:"namespace,omitempty"`
	Pod         string `json:"pod,omitempty"`
	PodUID      string `json:"pod_uid,omitempty"`
	Container   string `json:"container,omitempty"`
	ContainerID string `json:"container_id,omitempty"`
	Node        string `json:"node,omitempty"`
	Unit        string `json:"unit,omitempty"` // of systemd
}

// ReadMeta reads what Kubernetes' downward API tells of the pod in which we run: the
// variables POD_NAMESPACE, POD_NAME, POD_UID, CONTAINER_NAME and NODE_NAME, and the
// files namespace, name, uid, container and node in dir, which win; dir may be empty.
func ReadMeta(getenv func(string) string, dir string) Meta {
	read := func(file, env string) string {
		s := ""
		if dir != "" {
			if f, err := os.Open(filepath.Join(dir, file)); err == nil {
				b, _ := io.ReadAll(io.LimitReader(f, mostName))
				f.Close()
				s = string(b)
			}
		}
		return tame(cmp.Or(strings.TrimSpace(s), getenv(env)), mostName)
	}
	return Meta{
		Namespace: read("namespace", "POD_NAMESPACE"), Pod: read("name", "POD_NAME"), PodUID: read("uid", "POD_UID"),
		Container: read("container", "CONTAINER_NAME"), Node: read("node", "NODE_NAME"),
	}
}

// How the runtimes name cgroups: with systemd
// /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID.slice/cri-containerd-ID.scope,
// without /kubepods/burstable/podUID/ID; Docker's alone /docker/ID and
// /system.slice/docker-ID.scope.
var (
	podDir       = regexp.MustCompile(`pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12})(?:\.slice)?$`)
	containerDir = regexp.MustCompile(`^(?:[a-z-]+-)?([0-9a-f]{64})(?:\.scope)?$`)
)

// within completes m with what the path of a cgroup tells.
func (m Meta) within(cgroup string) Meta {
	for rest := cgroup; len(rest) > 1 && len(rest) < 4096; rest = path.Dir(rest) {
		name := path.Base(rest)
		switch {
		case podDir.MatchString(name):
			m.PodUID = cmp.Or(m.PodUID, strings.ReplaceAll(podDir.FindStringSubmatch(name)[1], "_", "-"))
		case containerDir.MatchString(name):
			m.ContainerID = cmp.Or(m.ContainerID, containerDir.FindStringSubmatch(name)[1])
		case strings.HasSuffix(name, ".service"):
			m.Unit = cmp.Or(m.Unit, tame(name, mostName))
		}
		if path.Dir(rest) == rest || path.Dir(rest) == "." {
			break
		}
	}
	return m
}
