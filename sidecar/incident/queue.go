// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// What a webhook has yet to be told is a mark in the incident's own directory, made
// with it: whatever ends this process, an incident that is kept is told of.

// register makes every incident that is added from now on one that the webhooks of
// these keys are to be told of, and removes the marks of others.
func (s *Store) register(keys []string, added func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lock == nil {
		return ErrReadOnly
	}
	s.hooks, s.added = keys, added
	ids, err := s.ids()
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, key := range keys {
		known[key] = true
	}
	for _, id := range ids {
		for _, key := range s.pendingOf(id) {
			if !known[key] {
				_ = os.Remove(filepath.Join(s.dir, id, unposted+key))
			}
		}
	}
	return nil
}

// pendingOf are the keys of the webhooks that have yet to be told of an incident.
func (s *Store) pendingOf(id string) (keys []string) {
	entries, _ := os.ReadDir(filepath.Join(s.dir, id))
	for _, e := range entries {
		if key, ok := strings.CutPrefix(e.Name(), unposted); ok {
			keys = append(keys, key)
		}
	}
	return keys
}

// pending are the incidents that a webhook has yet to be told of, the oldest first.
func (s *Store) pending(key string) ([]string, error) {
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, id := range ids {
		if _, err := os.Lstat(filepath.Join(s.dir, id, unposted+key)); err == nil {
			out = append(out, id)
		}
	}
	return out, nil
}

// told removes the mark. Should the machine fail before that is on disk, the webhook
// is told twice: the id says that it is the same one.
func (s *Store) told(id, key string) error {
	err := os.Remove(filepath.Join(s.dir, id, unposted+key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// takeLost is how many incidents the bounds of the store have removed since the last
// call before a webhook was told of them.
func (s *Store) takeLost(key string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.lost[key]
	delete(s.lost, key)
	return n
}
