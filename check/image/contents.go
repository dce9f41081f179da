package image

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
)

// tools are packages of distributions that an application does not need to run,
// and an intruder likes to find.
var tools = []struct {
	what string
	name *regexp.Regexp
}{
	{"shell", regexp.MustCompile(`^(bash|dash|busybox|busybox-binsh|busybox-static|zsh|[lm]?ksh|fish|tcsh|toybox)$`)},
	{"package manager", regexp.MustCompile(`^(apt|aptitude|apk-tools|rpm|dnf|dnf5|microdnf|yum|tdnf|zypper|pacman|python3-pip|py3-pip)$`)},
	{"compiler", regexp.MustCompile(`^((gcc|g\+\+|clang|golang|rustc|tcc)(-[0-9.]+)?(-go)?|gcc-c\+\+|build-base|build-essential|openjdk-?[0-9]+-jdk(-headless)?|java-[0-9.]+-openjdk-devel)$`)},
}

// Minimal says for each workload whether its images are free of shells, package
// managers and compilers.
func (im *Images) Minimal() []finding.Verdict {
	return im.eachImage(func(c *container) state {
		lists := c.of(func(r report) bool { return len(r.Packages) > 0 })
		if len(lists) == 0 {
			return c.without("list of packages", scanHint)
		}
		r := lists[0]
		if held := held(r.Packages); len(held) > 0 {
			return fail(shorten(held, ", ")+" ("+r.String()+")", "the image holds more than the application needs").byContents(r)
		}
		if r.OS != "" && !slices.ContainsFunc(r.Packages, func(p evidence.Package) bool { return !p.Library }) {
			return unknown("%s lists no package of %s: the distribution was not searched", r, r.OS)
		}
		return pass("no shell, package manager or compiler among %s (%s)", plural(len(r.Packages), "package", "packages"), r).byContents(r)
	})
}

// held names the tools among packages.
func held(packages []evidence.Package) []string {
	var out []string
	for _, p := range packages {
		for _, t := range tools {
			if !p.Library && t.name.MatchString(p.Name) {
				out = append(out, t.what+" "+p.Name)
			}
		}
	}
	return unique(out)
}

// Current says for each workload whether its images, and the distributions in
// them, are not past their age.
func (im *Images) Current() []finding.Verdict {
	return im.eachImage(func(c *container) state {
		reports := c.of(func(r report) bool { return r.Support != "" })
		for _, r := range reports {
			if r.Support == evidence.EndOfLife {
				return fail(r.OS+" ("+r.String()+")", "its distribution gets no more security updates").by(r)
			}
		}
		built, from := im.built(c)
		switch {
		case !built.IsZero() && im.now.Sub(built) > evidence.ImageAge:
			return fail(from, "was built on %s, over a year ago", built.Format(time.DateOnly))
		case len(reports) == 0:
			return c.without("scan that knows its distribution", scanHint)
		case built.IsZero():
			return unknown("the image does not say when it was built; give its provenance by --evidence")
		}
		return pass("built on %s, %s (%s)", built.Format(time.DateOnly), cmp.Or(reports[0].OS, "without a distribution"), reports[0]).by(reports[0])
	})
}

// built returns when an image was built, and who says so.
func (im *Images) built(c *container) (at time.Time, from string) {
	for _, r := range c.reports {
		if r.Config != nil && r.Config.Created.After(at) {
			at, from = r.Config.Created, r.String()
		}
	}
	for _, digest := range c.digests {
		for _, p := range im.provenances[digest] {
			if p.Finished.After(at) {
				at, from = p.Finished, "provenance in "+p.Source
			}
		}
	}
	return at, from
}

// Secrets says for each workload whether credentials were found in the layers,
// the environment or the history of its images.
func (im *Images) Secrets() []finding.Verdict {
	return im.eachImage(func(c *container) state {
		if found := c.of(func(r report) bool { return len(r.Secrets) > 0 }); len(found) > 0 {
			r := found[0]
			var places []string
			for _, s := range r.Secrets {
				places = append(places, s.Rule+" in "+s.Place)
			}
			return fail(shorten(places, "; ")+", values not shown ("+r.String()+")", "%s in the image", plural(len(places), "credential", "credentials")).by(r)
		}
		if searched := c.of(func(r report) bool { return r.SecretsSearched }); len(searched) > 0 {
			return pass("searched, and no credential found (%s)", searched[0]).by(searched[0])
		}
		if scans := c.of(scanned); len(scans) > 0 {
			return unknown("%s names no credential, and does not say that it searched; "+secretsHint, scans[0])
		}
		return c.without("search for credentials", secretsHint)
	})
}

// Root says for each workload whether it is kept from running as root, by the
// pod or by the image.
func (im *Images) Root() []finding.Verdict {
	return im.each(func(c *container) state {
		if os := c.workload.Template.Spec.OS; os != nil && os.Name == corev1.Windows {
			return notApplicable("Windows has no user 0")
		}
		user, forbids := podUser(c)
		switch {
		case forbids:
			return pass("runAsNonRoot: true")
		case user != nil && *user == 0:
			return notApplicable("the pod sets runAsUser: 0, whatever the image says")
		case user != nil:
			return pass("runAsUser: %d", *user)
		}
		configs := c.of(func(r report) bool { return r.Config != nil })
		if len(configs) == 0 {
			return c.without("configuration", scanHint)
		}
		r := configs[0]
		if name, _, _ := strings.Cut(r.Config.User, ":"); name == "" || name == "root" || name == "0" {
			return fail(fmt.Sprintf("USER %q (%s)", r.Config.User, r), "runs as root: neither the image nor the pod names another user").byContents(r)
		}
		return pass("USER %s (%s)", r.Config.User, r).byContents(r)
	})
}

// podUser returns what the pod says of the user; the container overrules it.
func podUser(c *container) (user *int64, forbidsRoot bool) {
	var nonRoot *bool
	if pod := c.workload.Template.Spec.SecurityContext; pod != nil {
		user, nonRoot = pod.RunAsUser, pod.RunAsNonRoot
	}
	if own := c.context; own != nil {
		user, nonRoot = cmp.Or(own.RunAsUser, user), cmp.Or(own.RunAsNonRoot, nonRoot)
	}
	return user, nonRoot != nil && *nonRoot
}

// Listed says for each workload whether there is an SBOM of its images.
func (im *Images) Listed() []finding.Verdict {
	return im.eachImage(func(c *container) state {
		boms := c.of(func(r report) bool { return r.SBOM })
		if len(boms) == 0 {
			return c.without("SBOM", listHint)
		}
		for _, r := range boms {
			if len(r.Packages) > 0 {
				return pass("%s (%s)", plural(len(r.Packages), "component", "components"), r).byContents(r)
			}
		}
		return fail(boms[0].String(), "its SBOM lists nothing").byContents(boms[0])
	})
}
