package node

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/evidence"
)

const (
	maxList     = 256 << 20 // bytes of one package list, unpacked
	maxPackages = 200_000
	maxPending  = 500 // that are named
	aptLists    = "/var/lib/apt/lists"
)

// updates finds out which security updates wait, from the package manager's own
// lists. They are not fetched anew: the record says how old they are.
func (c *collector) updates(ctx context.Context) {
	installed, err := c.installed(ctx)
	switch {
	case missing(err):
		c.gap(evidence.PartUpdates, "", fmt.Errorf("the package manager of %s is not read", c.osName()))
		return
	case err != nil:
		c.gap(evidence.PartUpdates, "/var/lib/dpkg/status", err)
		return
	}
	u := &evidence.NodeUpdates{Manager: "dpkg", Restart: c.restart(installed)}
	lists, err := c.securityLists()
	if err == nil && len(lists) == 0 {
		err = errors.New("no list of a security archive: run apt-get update")
	}
	for _, list := range lists {
		pending, failed := c.pending(ctx, list, installed)
		u.Security = append(u.Security, pending...)
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("%s: %s", path.Base(list), reason(failed)))
		}
	}
	if err != nil {
		c.gap(evidence.PartUpdates, aptLists, err)
	}
	slices.Sort(u.Security)
	u.Security = slices.Compact(u.Security)
	u.Security = u.Security[:min(len(u.Security), maxPending)]
	u.Lists = c.fetched()
	c.record.Updates = u
}

func (c *collector) osName() string {
	if c.record.OS.Name != "" {
		return c.record.OS.Name
	}
	return "this system"
}

// A pack names an installed package.
type pack struct{ name, architecture string }

// installed returns the versions of the installed packages.
func (c *collector) installed(ctx context.Context) (map[pack]string, error) {
	f, err := c.open("/var/lib/dpkg/status")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[pack]string{}
	err = stanzas(ctx, f, func(s map[string]string) {
		if strings.HasSuffix(s["Status"], " ok installed") && len(out) < maxPackages {
			out[pack{s["Package"], s["Architecture"]}] = s["Version"]
		}
	})
	if err == nil && len(out) == 0 {
		err = errors.New("no package is installed by dpkg")
	}
	return out, err
}

// securityLists returns the package lists of archives of security updates.
func (c *collector) securityLists() ([]string, error) {
	names, err := c.list(aptLists)
	return slices.DeleteFunc(names, func(name string) bool {
		base := path.Base(name)
		return !strings.Contains(base, "security") || !strings.Contains(base, "_Packages")
	}), err
}

// pending returns the installed packages of which a list has a later version.
func (c *collector) pending(ctx context.Context, list string, installed map[pack]string) ([]string, error) {
	f, err := c.open(list)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var text io.Reader = f
	switch path.Ext(list) {
	case ".gz":
		unpacked, err := gzip.NewReader(f)
		if err != nil {
			return nil, err
		}
		text = unpacked
	case ".lz4", ".xz", ".bz2", ".zst":
		return nil, fmt.Errorf("lists packed as %s are not read", path.Ext(list))
	}
	later := map[pack]string{}
	err = stanzas(ctx, text, func(s map[string]string) {
		p := pack{s["Package"], s["Architecture"]}
		if have, ok := installed[p]; ok && compareVersions(have, s["Version"]) < 0 && compareVersions(later[p], s["Version"]) < 0 {
			later[p] = s["Version"]
		}
	})
	var out []string
	for p, version := range later {
		out = append(out, fmt.Sprintf("%s %s -> %s", p.name, installed[p], version))
	}
	return out, err
}

// stanzas yields the paragraphs of a control file, with the fields that are
// asked for.
func stanzas(ctx context.Context, r io.Reader, yield func(map[string]string)) error {
	limited := &io.LimitedReader{R: r, N: maxList}
	lines := bufio.NewScanner(limited)
	lines.Buffer(nil, 1<<20)
	stanza := map[string]string{}
	for n := 0; lines.Scan(); n++ {
		line := lines.Text()
		if line == "" {
			yield(stanza)
			stanza = map[string]string{}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			continue
		}
		key, value, _ := strings.Cut(line, ":")
		if slices.Contains([]string{"Package", "Status", "Version", "Architecture"}, key) {
			stanza[key] = strings.TrimSpace(value)
		}
	}
	yield(stanza)
	if limited.N == 0 {
		return fmt.Errorf("over %d MiB", maxList>>20)
	}
	return lines.Err()
}

// fetched returns when the package lists were last brought up to date: the
// files have the times of the archive.
func (c *collector) fetched() time.Time {
	var latest time.Time
	for _, name := range []string{aptLists, aptLists + "/partial", "/var/lib/apt/periodic/update-success-stamp"} {
		if info, err := c.stat(name); err == nil && info.ModTime().After(latest) {
			latest = info.ModTime()
		}
	}
	return latest.UTC().Truncate(time.Second)
}

var kernelPackage = regexp.MustCompile(`^linux-image-([0-9].*)$`)

// restart says what update waits for a restart, or "": a kernel newer than the
// one that runs, or what packages have asked for.
func (c *collector) restart(installed map[pack]string) string {
	running, newest, version := "", "", ""
	for p, v := range installed {
		m := kernelPackage.FindStringSubmatch(p.name)
		if m == nil || strings.HasSuffix(m[1], "-dbg") {
			continue
		}
		if m[1] == c.record.Kernel {
			running = v
		}
		if newest == "" || compareVersions(version, v) < 0 {
			newest, version = m[1], v
		}
	}
	if running != "" && compareVersions(running, version) < 0 {
		return "kernel " + newest
	}
	for _, name := range []string{"/run/reboot-required", "/var/run/reboot-required"} {
		if _, err := c.stat(name); err == nil {
			return "installed updates"
		}
	}
	return ""
}

var (
	unattended   = regexp.MustCompile(`(?m)^\s*(?:APT::Periodic::)?Unattended-Upgrade\s+"?([^";\s]+)"?\s*;`)
	applyUpdates = regexp.MustCompile(`(?mi)^\s*apply_updates\s*=\s*(yes|true|1|on)\s*$`)
)

// automatic finds what installs security updates by itself.
func (c *collector) automatic(ctx context.Context) {
	installed, err := c.installed(ctx)
	if err == nil {
		c.aptAutomatic(installed)
		return
	}
	if !missing(err) {
		c.gap(evidence.PartAutomatic, "/var/lib/dpkg/status", err)
		return
	}
	known := c.record.OS.ID != "" && slices.ContainsFunc(append(c.record.OS.Like, c.record.OS.ID), func(id string) bool {
		return slices.Contains([]string{"fedora", "rhel", "centos"}, id)
	})
	if !known {
		c.gap(evidence.PartAutomatic, "", fmt.Errorf("how %s updates itself is not read", c.osName()))
		return
	}
	c.dnfAutomatic()
}

// aptAutomatic takes the last setting of all configuration files, as apt does.
func (c *collector) aptAutomatic(installed map[pack]string) {
	have := false
	for p := range installed {
		have = have || p.name == "unattended-upgrades"
	}
	names, err := c.list("/etc/apt/apt.conf.d")
	if err != nil {
		c.gap(evidence.PartAutomatic, "/etc/apt/apt.conf.d", err)
	}
	on := ""
	for _, name := range append(names, "/etc/apt/apt.conf") {
		data, err := c.read(name)
		if err != nil {
			if !missing(err) {
				c.gap(evidence.PartAutomatic, name, err)
			}
			continue
		}
		for _, m := range unattended.FindAllSubmatch(data, -1) {
			on = string(m[1])
		}
	}
	if have && on != "" && on != "0" {
		c.record.AutomaticUpdates = "unattended-upgrades"
	}
}

// dnfAutomatic looks for a timer that is enabled and installs what it finds.
func (c *collector) dnfAutomatic() {
	const timers = "/etc/systemd/system/timers.target.wants"
	for _, name := range []string{"dnf-automatic-install.timer", "dnf-automatic.timer", "dnf5-automatic.timer"} {
		place, err := c.list(timers)
		if err != nil {
			c.gap(evidence.PartAutomatic, timers, err)
			return
		}
		if !slices.Contains(place, path.Join(timers, name)) {
			continue
		}
		data, err := c.read("/etc/dnf/automatic.conf")
		if err != nil && !missing(err) {
			c.gap(evidence.PartAutomatic, "/etc/dnf/automatic.conf", err)
		}
		if name == "dnf-automatic-install.timer" || applyUpdates.Match(data) {
			c.record.AutomaticUpdates = strings.TrimSuffix(name, ".timer")
			return
		}
	}
}
