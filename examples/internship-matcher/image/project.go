package image

// Source is where the source of all programs is published.
const Source = "https://github.com/kubeguardian/kubeguardian"

// nobody is the user of programs that need no rights of the system.
const nobody = "65532"

// A Project is a Go module whose programs images are made of.
type Project struct {
	Title    string
	Dir      string // of the module, from the folder of this one
	Manual   string // the URL of a page with the headings Images and By hand
	Programs []Program
}

// A Program is a folder in cmd. The binary and the image have its name.
type Program struct {
	Name   string
	User   string   // who it runs as unless the pod says otherwise, by number
	Ports  []string // what it listens on by default
	Public bool     // it calls public addresses
}

// ByHand is the builder where nobody vouches for the machine.
func (p Project) ByHand() string { return p.Manual + "#by-hand" }

// Names are those of the programs.
func (p Project) Names() (names []string) {
	for _, program := range p.Programs {
		names = append(names, program.Name)
	}
	return names
}

func (p Project) program(name string) (Program, bool) {
	for _, program := range p.Programs {
		if program.Name == name {
			return program, true
		}
	}
	return Program{}, false
}

// Projects are all, by name.
func Projects() map[string]Project {
	return map[string]Project{"internship-matcher": InternshipMatcher(), "kubeguardian": KubeGuardian()}
}

// InternshipMatcher is the application. No program of it calls a public address:
// whom to trust is mounted.
func InternshipMatcher() Project {
	service := []string{"8081/tcp", "9090/tcp"}
	return Project{
		Title: "Internship Matcher", Dir: ".",
		Manual: Source + "/blob/main/examples/internship-matcher/README.md",
		Programs: []Program{
			{Name: "auth", User: nobody, Ports: service},
			{Name: "offer", User: nobody, Ports: service},
			{Name: "application", User: nobody, Ports: service},
			{Name: "gateway", User: nobody, Ports: []string{"8080/tcp", "8081/tcp"}},
			{Name: "traffic", User: nobody},
		},
	}
}

// KubeGuardian is what guards it: the server, which asks registries and tells
// people, and the agent, which as root reads what the kernel says and calls
// nobody but the server.
func KubeGuardian() Project {
	return Project{
		Title: "KubeGuardian", Dir: "../..",
		Manual: Source + "/blob/main/docs/install.md",
		Programs: []Program{
			{Name: "kubeguardian", User: nobody, Ports: []string{"8443/tcp", "9443/tcp"}, Public: true},
			{Name: "kubeguardian-agent", User: "0"},
		},
	}
}
