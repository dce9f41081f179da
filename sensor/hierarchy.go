package sensor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A Hierarchy is where a hierarchy of cgroups is mounted on the node, by its
// paths.
type Hierarchy struct {
	Records string // the one whose numbers and paths are in records: the number is the inode of the folder
	Unified string // that of version 2, which [Sensor.BlockEgress] needs; empty if the node has none
}

// FindHierarchy looks the hierarchies up in the /proc of the node.
func FindHierarchy(proc string) (Hierarchy, error) {
	controller, _, err := cgroupController()
	if err != nil {
		return Hierarchy{}, err
	}
	mounts, err := os.ReadFile(filepath.Join(proc, "1/mounts"))
	if err != nil {
		return Hierarchy{}, fmt.Errorf("find where cgroups are mounted: %w", err)
	}
	h := hierarchies(string(mounts), controller)
	if h.Records == "" {
		return h, errors.New("find where cgroups are mounted: the hierarchy that names containers is not mounted")
	}
	return h, nil
}

// hierarchies reads /proc/PID/mounts.
func hierarchies(mounts, controller string) Hierarchy {
	var h Hierarchy
	for line := range strings.Lines(mounts) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		switch {
		case f[2] == "cgroup2" && h.Unified == "":
			h.Unified = f[1]
		case f[2] == "cgroup" && controller != "" && h.Records == "" && slices.Contains(strings.Split(f[3], ","), controller):
			h.Records = f[1]
		}
	}
	if controller == "" {
		h.Records = h.Unified
	}
	return h
}
