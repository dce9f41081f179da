package test

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// arrows says which packages of ours each package may import; "check/*" stands
// for the folders in check. Whole-product tests may import all.
var arrows = map[string][]string{
	"access": {},
	"action": {},

	"access/issuertest": {},

	"agent/agenttest": {"agent", "alert", "sensor"},

	"event":    {},
	"finding":  {},
	"config":   {},
	"content":  {},
	"fact":     {},
	"tool":     {"content", "fact"},
	"yamldoc":  {},
	"registry": {},

	"alert":              {"event", "finding"},
	"action/deed":        {"action", "alert"},
	"action/journal":     {"action"},
	"admission/watch":    {"admission", "alert"},
	"alert/cooldown":     {"alert", "rule/condition"},
	"alert/team":         {"alert", "inventory"},
	"incident":           {"alert", "event", "finding"},
	"k8saudit/intake":    {"k8saudit"},
	"k8saudit/heartbeat": {"alert", "event"},
	"incident/joiner":    {"alert", "incident", "store"},

	"sensor":   {"event", "sensor/record"},
	"k8saudit": {"event"},
	"falco":    {"event", "alert", "finding"},

	"sensor/container":                {"sensor/syscall"},
	"sensor/container/containerdtest": {},
	"sensor/process":                  {"sensor/container", "sensor/record", "sensor/syscall"},

	"rule":     {"event", "alert", "rule/condition", "rule/plain", "rule/match"},
	"tuning":   {"alert", "event", "rule"},
	"ruletest": {"event", "alert", "enrichment", "k8saudit", "rule", "sensor/syscall", "content", "yamldoc"},

	"sensor/record":  {},
	"sensor/syscall": {"event", "alert"},

	"rule/condition": {"event"},
	"rule/plain":     {"event", "rule/condition"},
	"rule/match":     {"event", "rule/condition", "rule/plain"},

	"enrichment": {"event", "alert"},
	"correlate":  {"event", "alert", "finding"},

	"helm":          {},
	"inventory":     {"finding", "helm", "policy/normal"},
	"evidence":      {"finding", "fact", "evidence/*", "yamldoc"},
	"evidence/*":    {"fact", "tool"},
	"exception":     {"finding", "yamldoc"},
	"node":          {"evidence"},
	"policy":        {"finding", "policy/equivalent", "policy/deadline", "policy/expression", "policy/memory", "policy/normal"},
	"policy/source": {"policy", "policy/normal"},
	"policy/memory": {},
	"policy/normal": {},
	"engine":        {"policy", "policy/externaldata", "policy/gatekeeper", "policy/image", "policy/mutator", "policy/referential", "finding"},
	"clusterpolicy": {"engine", "policy", "policy/gatekeeper"},
	"artifact":      {"content", "registry", "policy"},
	"manifest":      {"policy"},
	"vap":           {"engine", "manifest", "policy", "policy/gatekeeper"},
	"review":        {"inventory", "audit", "engine", "policy", "policy/externaldata", "policy/source", "finding"},
	"check/*":       {"inventory", "evidence", "evidence/*", "fact", "tool", "finding"},
	"control":       {"inventory", "evidence", "exception", "policy", "check/*", "tool", "finding", "yamldoc"},
	"suite":         {"artifact", "content", "inventory", "evidence", "exception", "policy", "engine", "review", "control", "finding", "yamldoc", "ruletest"},
	"admission":     {"policy", "finding"},
	"audit":         {"inventory", "policy", "finding"},

	"policy/externaldata": {"policy"},
	"policy/gatekeeper":   {"policy", "policy/deadline", "policy/expression", "policy/externaldata", "policy/memory", "policy/plan", "policy/referential", "finding"},
	"policy/referential":  {},
	"policy/expression":   {"policy/memory"},
	"policy/equivalent":   {"policy/normal"},
	"policy/plan":         {},
	"policy/deadline":     {},
	"policy/image":        {"policy", "registry", "finding", "yamldoc"},
	"policy/setting":      {"manifest", "policy", "yamldoc"},
	"policy/mutator":      {"policy", "policy/externaldata", "policy/gatekeeper", "finding"},

	"policy/externaldata/providertest": {},

	"fix":         {"inventory", "control", "policy", "evidence", "exception", "finding", "check/*", "fix/edit", "fix/isolate"},
	"fix/edit":    {},
	"fix/isolate": {"inventory", "check/*", "fix/edit"},

	"bus":             {"event", "alert", "bus/fleet", "bus/spool"},
	"bus/fleet":       {},
	"bus/embedded":    {},
	"bus/hub":         {"bus", "bus/embedded"},
	"bus/identity":    {},
	"server/clusters": {"alert", "bus/leaf", "bus/roster", "config", "finding", "server/listener", "store"},
	"bus/leaf":        {"alert", "bus", "bus/embedded", "bus/roster", "finding"},
	"bus/roster":      {},
	"bus/spool":       {},
	"bus/verdict":     {"alert", "bus", "correlate", "event"},

	"leader": {},
	"store":  {"bus/roster", "event", "alert", "incident", "finding", "notify/delivery", "store/actionlog", "store/dialect", "store/dialer", "store/history", "store/outbox", "store/postgres", "store/retention", "store/sessions", "store/transfer", "store/words"},

	"store/postgrestest": {},
	"store/outbox":       {"notify/delivery", "store/dialect"},
	"store/retention":    {},
	"store/words":        {},
	"store/sessions":     {"access/sealed"},
	"store/history":      {"finding"},
	"store/dialect":      {},
	"store/dialer":       {},
	"store/postgres":     {"store/dialect"},
	"store/actionlog":    {"action"},
	"store/transfer":     {},

	"notify":    {"alert", "incident", "finding", "config", "notify/delivery"},
	"notify/*":  {"alert", "incident", "finding", "config", "notify", "notify/document", "notify/post"},
	"respond":   {"alert", "incident", "finding", "config"},
	"respond/*": {"alert", "incident", "finding", "config"},
	"chart":     {"control"},
	"report":    {"finding", "control", "exception", "chart", "tool"},
	"web":       {"health", "web/export", "web/rest", "web/session", "web/query", "web/live", "access", "bus/fleet", "bus/roster", "action", "notify/delivery", "event", "alert", "incident", "finding", "audit", "control", "chart", "report", "tool", "incident/lineage", "incident/timeline", "playground", "config"},
	"health":    {}, "web/export": {}, "access/attempt": {}, "access/sealed": {}, "web/rest": {"access"}, "web/session": {"access", "access/attempt", "access/sealed", "action", "web/rest"},
	"web/query": {"alert", "audit", "finding", "incident", "notify/delivery", "web/rest"}, "web/live": {"alert", "web/query", "web/rest"},
	"incident/lineage": {"alert"}, "incident/timeline": {"alert", "finding", "incident", "notify/delivery"},
	"playground": {"alert", "engine", "enrichment", "event", "finding", "k8saudit", "policy", "rule", "sensor/syscall"},

	"notify/document":   {"alert", "incident", "finding", "notify"},
	"notify/delivery":   {},
	"notify/post":       {"config", "incident", "notify"},
	"notify/notifytest": {"alert", "incident", "finding", "notify"},

	"enforce": {"sensor", "sensor/container", "sensor/record", "sensor/syscall", "event", "rule", "rule/condition", "alert"},
	"agent":   {"sensor", "sensor/container", "sensor/process", "sensor/record", "sensor/syscall", "event", "rule", "alert", "correlate", "enforce", "bus", "bus/fleet", "bus/spool", "content", "yamldoc"},
	"server": {
		"bus/leaf", "bus/roster", "server/clusters",
		"correlate", "bus/verdict", "server/agents", "server/listener", "action/deed", "action/journal", "admission/watch",
		"notify/delivery",
		"sensor", "k8saudit", "k8saudit/heartbeat", "k8saudit/intake", "falco", "enrichment", "admission", "audit", "inventory", "evidence", "exception", "event", "rule", "policy", "policy/externaldata", "policy/source", "engine", "clusterpolicy", "control", "check/*",
		"finding", "alert", "alert/cooldown", "alert/team", "incident", "incident/joiner", "bus", "bus/fleet", "bus/hub", "bus/identity", "store", "store/retention", "notify", "notify/*", "notify/post", "respond", "respond/*",
		"fact", "report", "chart", "health", "access", "action", "playground", "web", "web/session", "config", "content", "tracing", "artifact", "registry", "policy/image", "policy/setting", "leader",
	},

	"server/agents":   {"alert", "bus", "bus/fleet", "bus/hub", "bus/identity", "bus/verdict", "config", "event", "finding", "rule", "server/listener"},
	"server/listener": {},

	"cmd/kubeguardian":       {"bus/leaf", "server", "action", "alert", "artifact", "registry", "policy/externaldata", "policy/image", "policy/setting", "tool", "suite", "review", "vap", "engine", "inventory", "evidence", "exception", "node", "policy", "rule", "control", "report", "content", "config", "event", "fix", "k8saudit", "playground", "sensor/syscall", "enrichment", "finding", "tuning"},
	"cmd/kubeguardian-agent": {"agent"},

	"charts/dashboard": {},
	"tracing":          {"admission", "finding", "policy"},

	"examples/*": {},
	"test/*":     {"*"},
}

func TestArrows(t *testing.T) {
	all := sources(t)
	for _, s := range all.code() {
		allowed, known := arrows[pattern(s.folder())]
		if !known {
			t.Errorf("%s: package %s is not in the table of arrows", s.path, s.folder())
			continue
		}
		for _, spec := range s.file.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			own, ok := strings.CutPrefix(name, module+"/")
			if ok && !slices.Contains(allowed, pattern(own)) && !slices.Contains(allowed, "*") {
				t.Errorf("%s: %s must not import %s", all.line(spec), s.folder(), own)
			}
		}
	}
}

// pattern returns the row of the table that a folder belongs to.
func pattern(folder string) string {
	if _, own := arrows[folder]; own {
		return folder
	}
	for _, parent := range []string{"check", "evidence", "examples", "notify", "respond", "test"} {
		if strings.HasPrefix(folder, parent+"/") {
			return parent + "/*"
		}
	}
	return folder
}

func TestArrowsHaveNoCircle(t *testing.T) {
	const white, grey, black = 0, 1, 2
	state := map[string]int{}
	var visit func(pkg string)
	visit = func(pkg string) {
		state[pkg] = grey
		for _, next := range arrows[pkg] {
			switch state[next] {
			case grey:
				t.Errorf("%s and %s may import each other", pkg, next)
			case white:
				visit(next)
			}
		}
		state[pkg] = black
	}
	for pkg := range arrows {
		if state[pkg] == white {
			visit(pkg)
		}
	}
}

func TestDependencies(t *testing.T) {
	const most = 58 // of which the agent's own may be 10
	data, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	direct := 0
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(fields) < 2 || !strings.HasPrefix(fields[1], "v") {
			continue
		}
		if !strings.Contains(line, "// indirect") {
			direct++
		}
		if fields[0] == "cel.dev/cel-go" {
			t.Error("cel.dev/cel-go has other Go types than the CEL of the API server: use github.com/google/cel-go")
		}
	}
	if direct == 0 || direct > most {
		t.Errorf("%d direct dependencies, at most %d", direct, most)
	}
}
