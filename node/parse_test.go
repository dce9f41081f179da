package node

import (
	"cmp"
	"context"
	"errors"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/kubeguardian/kubeguardian/evidence"
)

func pipe(t *testing.T, name string) {
	t.Helper()
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOSRelease(t *testing.T) {
	text := "# a comment\nID=\"rhel\"\nID_LIKE='fedora  centos'\nPRETTY_NAME=\"A \\\"B\\\"\" # more\nVERSION_ID=9.4\nVARIANT_ID\nVARIANT_ID=server extra\n"
	want := evidence.NodeOS{ID: "rhel", Like: []string{"fedora", "centos"}, Name: `A "B"`, Version: "9.4", Variant: "server"}
	if got := osRelease([]byte(text)); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// parseSSH reads a configuration whose includes are given by their pattern.
func parseSSH(text string, includes map[string]string) (*evidence.SSHServer, []error) {
	p := sshParser{first: map[string]string{}, include: func(pattern string) ([]string, error) {
		if text, ok := includes[pattern]; ok {
			return []string{text}, nil
		}
		return nil, errors.New("no " + pattern)
	}}
	p.file(text, 0)
	return p.result(), p.errs
}

func TestSSH(t *testing.T) {
	open := evidence.SSHServer{Source: sshdConfig, PermitRootLogin: "prohibit-password", Password: true, KeyboardInteractive: true}
	shut := evidence.SSHServer{Source: sshdConfig, PermitRootLogin: "no"}
	const all = "PermitRootLogin no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
	matching := shut
	matching.Matches = []string{"Match user bob and address 10.*: permitrootlogin yes"}
	for name, tt := range map[string]struct {
		text string
		want evidence.SSHServer
	}{
		"defaults":             {"", open},
		"comments":             {"#PermitRootLogin no\n  # PasswordAuthentication no\n", open},
		"shut":                 {all, shut},
		"the first counts":     {all + "PermitRootLogin yes\nPasswordAuthentication yes\n", shut},
		"cases and signs":      {"permitrootlogin=no\nPASSWORDAUTHENTICATION = \"no\"\nChallengeResponseAuthentication\tno # so\n", shut},
		"keys always":          {"PermitRootLogin no\nAuthenticationMethods publickey publickey,password\n", shut},
		"keys or passwords":    {"PermitRootLogin no\nAuthenticationMethods publickey password\n", evidence.SSHServer{Source: sshdConfig, PermitRootLogin: "no", Password: true, KeyboardInteractive: true}},
		"match closes":         {all + "Match User bob\n PasswordAuthentication no\n", shut},
		"included":             {"Include a\n" + "PermitRootLogin yes\n", shut},
		"match in an include":  {"Include b\n" + all, evidence.SSHServer{Source: sshdConfig, PermitRootLogin: "no", Matches: []string{"Match all: passwordauthentication yes"}}},
		"an include in match":  {all + "Match user bob\nInclude c\n", matching},
		"a match is no global": {"Match user bob\n" + all, open},
	} {
		includes := map[string]string{"a": all, "b": "Match all\nPasswordAuthentication yes", "c": "Match address 10.*\nPermitRootLogin yes"}
		got, errs := parseSSH(tt.text, includes)
		if !reflect.DeepEqual(*got, tt.want) || len(errs) > 0 {
			t.Errorf("%s: %+v, %v; want %+v", name, *got, errs, tt.want)
		}
	}
	if _, errs := parseSSH("Include self", map[string]string{"self": "Include self"}); len(errs) == 0 {
		t.Error("a file that includes itself is no error")
	}
	if _, errs := parseSSH("Include other", nil); len(errs) != 1 {
		t.Errorf("an include that cannot be read: %v", errs)
	}
}

func FuzzSSH(f *testing.F) {
	f.Add("Include a\nMatch user \"x y\"\nPermitRootLogin = yes\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, _ := parseSSH(text, map[string]string{"a": text})
		if s.PermitRootLogin == "" || len(s.Matches) > maxMatches {
			t.Errorf("%+v", s)
		}
	})
}

func FuzzOSRelease(f *testing.F) {
	f.Add([]byte("ID=\"a\\\"\nID_LIKE='b c'\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if os := osRelease(data); strings.ContainsAny(strings.Join(os.Like, ""), " \t") {
			t.Errorf("%q", os.Like)
		}
	})
}

func FuzzSettings(f *testing.F) {
	f.Add([]byte("authentication: {anonymous: {enabled: false}}\ntlsCipherSuites: [a]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		into := map[string]string{}
		if err := pick(data, settingsOf["kubelet"], into); err != nil {
			return
		}
		for key, value := range into {
			if len(value) > 2048 {
				t.Errorf("%s has %d bytes", key, len(value))
			}
		}
		p := &evidence.Program{}
		for _, read := range []func(*evidence.Program, []byte) error{authentication, authorization, encryption, auditPolicy} {
			_ = read(p, data) // a mistake in it is an error, and nothing worse
		}
	})
}

// orders are versions in ascending order, by the rules of Debian's policy.
var orders = strings.Fields(`
	0~~ 0~~a 0~ 0 0.0~rc1 0.0 0.9 0.10 1.0~beta1 1.0 1.0-0.1 1.0-1~bpo1 1.0-1 1.0-1+deb12u1 1.0-1+deb12u2 1.0-1.1 1.0-2 1.0-10
	1.0a 1.0b 1.0+git1 1.0.1 1.2-3-1 1.2-3-2 2 1:0.1 1:1 2:0`)

func TestCompareVersions(t *testing.T) {
	for i, a := range orders {
		for j, b := range orders {
			if got, want := compareVersions(a, b), cmp.Compare(i, j); got != want {
				t.Errorf("%s and %s: %d, want %d", a, b, got, want)
			}
		}
	}
	for a, b := range map[string]string{"1.0": "1.00", "0:1.0": "1.0", "1.0-0": "1.0", "01.002": "1.2"} {
		if compareVersions(a, b) != 0 {
			t.Errorf("%s and %s are not the same", a, b)
		}
	}
}

func FuzzCompareVersions(f *testing.F) {
	f.Add("1:1.0~a-1", "1.0+b-2", "0")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if compareVersions(a, b) != -compareVersions(b, a) || compareVersions(a, a) != 0 {
			t.Errorf("%q and %q: the order depends on which comes first", a, b)
		}
		if compareVersions(a, b) <= 0 && compareVersions(b, c) <= 0 && compareVersions(a, c) > 0 {
			t.Errorf("%q, %q, %q: no order", a, b, c)
		}
	})
}

func TestStanzas(t *testing.T) {
	var got []map[string]string
	err := stanzas(context.Background(), strings.NewReader("Package: a\nDescription: x\n Version: 9\nVersion: 1:2\n\n\nPackage: b\n"), func(s map[string]string) { got = append(got, s) })
	want := []map[string]string{{"Package": "a", "Version": "1:2"}, {}, {"Package": "b"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if err := stanzas(context.Background(), strings.NewReader(strings.Repeat("x", 2<<20)), func(map[string]string) {}); err == nil {
		t.Error("a line without end is no error")
	}
}

// TestTree keeps links within the tree.
func TestTree(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "real/file"), []byte("x"))
	for name, target := range map[string]string{"absolute": "/real", "relative": "../real/file", "up": "../../../../real/file", "loop": "loop"} {
		link(t, target, filepath.Join(root, "links", name))
	}
	tr := tree{root}
	for name, want := range map[string]bool{
		"/real/file": true, "/links/absolute/file": true, "/links/relative": true, "/links/up": true, "/../real/file": true,
		"/links/loop": false, "/links": false, "/none": false,
	} {
		data, err := tr.read(name)
		if (err == nil) != want || err == nil && string(data) != "x" {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
	for i := range maxEntries + 1 {
		write(t, filepath.Join(root, "many", strconv.Itoa(i)), nil)
	}
	if _, err := tr.list("/many"); err == nil || err.Error() != "over 1000 files" {
		t.Errorf("a folder of too many files: %v", err)
	}
	if names, err := tr.list("/none"); err != nil || len(names) > 0 {
		t.Errorf("a folder that does not exist: %v, %v", names, err)
	}
}

func TestAutomatic(t *testing.T) {
	const timers = "etc/systemd/system/timers.target.wants/"
	for name, tt := range map[string]struct {
		files map[string]string
		want  string
		gap   string
	}{
		"another system": {map[string]string{"etc/os-release": "ID=arch\nPRETTY_NAME=Arch"}, "", "how Arch updates itself is not read"},
		"dnf, nothing":   {map[string]string{"etc/os-release": "ID=rocky\nID_LIKE=\"rhel fedora\""}, "", ""},
		"dnf, downloads": {map[string]string{"etc/os-release": "ID=fedora", timers + "dnf-automatic.timer": "", "etc/dnf/automatic.conf": "apply_updates = no"}, "", ""},
		"dnf, installs":  {map[string]string{"etc/os-release": "ID=fedora", timers + "dnf-automatic.timer": "", "etc/dnf/automatic.conf": "[commands]\napply_updates = yes\n"}, "dnf-automatic", ""},
		"dnf, always":    {map[string]string{"etc/os-release": "ID=fedora", timers + "dnf-automatic-install.timer": ""}, "dnf-automatic-install", ""},
		"apt, off later": {map[string]string{
			"var/lib/dpkg/status": "Package: unattended-upgrades\nStatus: install ok installed\n", "etc/apt/apt.conf.d/20a": "APT::Periodic::Unattended-Upgrade \"1\";",
			"etc/apt/apt.conf.d/99b": "APT::Periodic { Unattended-Upgrade \"x\";\n Unattended-Upgrade \"0\"; };",
		}, "", ""},
		"apt, not installed": {map[string]string{
			"var/lib/dpkg/status": "Package: a\nStatus: install ok installed\n", "etc/apt/apt.conf.d/20a": "APT::Periodic::Unattended-Upgrade \"1\";",
		}, "", ""},
		"apt, comment": {map[string]string{
			"var/lib/dpkg/status": "Package: unattended-upgrades\nStatus: install ok installed\n", "etc/apt/apt.conf.d/20a": "// APT::Periodic::Unattended-Upgrade \"1\";\nUnattended-Upgrade::Mail \"root\";",
		}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			write(t, filepath.Join(root, "proc/sys/kernel/hostname"), []byte("n"))
			for file, text := range tt.files {
				write(t, filepath.Join(root, file), []byte(text))
			}
			r := collect(t, root)
			if r.AutomaticUpdates != tt.want || r.Gap(evidence.PartAutomatic) != tt.gap {
				t.Errorf("%q, gap %q", r.AutomaticUpdates, r.Gap(evidence.PartAutomatic))
			}
		})
	}
}
