package oracle

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/open-policy-agent/gatekeeper/v3/pkg/mutation/path/parser"
)

// mutation makes mutators that often meet each other, and requests.
func (g generator) mutation() Mutation {
	var m Mutation
	for i := range 1 + g.IntN(7) {
		m.Mutators = append(m.Mutators, string(raw(g.mutator(fmt.Sprintf("%c%d", 'a'+rune(g.IntN(26)), i)))))
	}
	if g.IntN(20) == 0 {
		m.Mutators = append(m.Mutators, g.circle()...)
	}
	for range 4 {
		m.Requests = append(m.Requests, g.withArgs(g.request()))
	}
	return m
}

// circle makes mutators that change the kind of an object without an end, if they
// come in an order that lets each see what the one after it did.
func (g generator) circle() (out []string) {
	names := []string{"x", "y", "z"}
	g.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	kinds := []string{"Pod", "Deployment", "Turn", "Pod"}
	for i, name := range names {
		out = append(out, string(raw(object{
			"apiVersion": "mutations.gatekeeper.sh/v1beta1", "kind": "Assign", "metadata": object{"name": name},
			"spec": object{
				"applyTo":  []any{object{"groups": []any{""}, "versions": []any{"v1"}, "kinds": []any{kinds[i]}}},
				"location": "kind", "parameters": object{"assign": object{"value": kinds[i+1]}},
			},
		})))
	}
	return out
}

// mostly returns the good value, but for one time in twelve.
func (g generator) mostly(good string, others ...string) string {
	if g.IntN(12) > 0 {
		return good
	}
	return pick(g, others...)
}

func (g generator) mutator(name string) object {
	kind := pick(g, "Assign", "Assign", "AssignMetadata", "AssignImage", "ModifySet")
	location := g.location(kind)
	parameters := object{}
	spec := object{"location": location, "parameters": parameters}
	switch kind {
	case "Assign":
		parameters["assign"] = g.assign(location)
	case "AssignMetadata":
		parameters["assign"] = pick(g, g.external("Username", "Username", "ValueAtLocation"), object{"value": "v"}, object{"value": "w"}, object{"fromMetadata": object{"field": pick(g, "name", "namespace")}}, object{"value": 1})
	case "AssignImage":
		for field, value := range g.some(object{
			"assignDomain": g.mostly(pick(g, "a.b", "localhost:5000", "a-.b_c"), "r.io:x", "host"), "assignPath": g.mostly(pick(g, "x", "x/y", "x__y/z--w"), "a.b/c", "X", "x//y", "x_"),
			"assignTag": g.mostly(pick(g, ":1", ":1.2-x", "@sha256:0123456789abcdef0123456789abcdef"), "latest", "@sha256:0", ":"),
		}) {
			parameters[field] = value
		}
	case "ModifySet":
		if g.half() {
			parameters["operation"] = pick(g, "merge", "prune")
		}
		parameters["values"] = object{"fromList": pick(g, []any{"--x"}, []any{"--x", 5}, []any{object{"name": "c"}, 5, "--y"}, []any{}, []any{"--x", "--x"})}
	}
	version := "v1"
	if kind == "AssignImage" {
		version = "v1alpha1"
	}
	if kind != "AssignMetadata" {
		spec["applyTo"] = g.applyTo(location)
		g.pathTests(location, parameters)
	}
	if g.half() {
		spec["match"] = g.match()
	}
	return object{"apiVersion": "mutations.gatekeeper.sh/" + version, "kind": kind, "metadata": object{"name": name}, "spec": spec}
}

// location returns one for a kind, sometimes one for others.
func (g generator) location(kind string) string {
	if g.IntN(12) == 0 {
		return pick(g, "spec..x", "spec.", "spec[a]", "metadata.name", "spec.containers[name: *][name: c]", `spec."x`, "spec.x y", "spec.0x", "spec.c[n: 1x].y", "metadata.labels")
	}
	switch kind {
	case "AssignMetadata":
		return pick(g, "metadata.labels.team", "metadata.labels.new", `metadata.annotations."x.y/z"`, "metadata.annotations['a b']", "metadata.annotations.'a b'", " metadata . labels . env ")
	case "AssignImage":
		return pick(g, "spec.containers[name: *].image", "spec.containers[name: c].image", "spec.initContainers[name: d].image", "spec.containers[name: c]", "spec.containers[image: *].image", "spec.image", "spec.containers[name: *].args")
	case "ModifySet":
		return pick(g, "spec.containers[name: *].args", "spec.containers[name: c].args", "spec.x.list", "spec.containers", "spec.containers[name: c]", "spec.containers[name: *].image")
	}
	return pick(g, "spec.containers[name: *].image", "spec.containers[name: c].image.x", "spec.containers[name: c]", `spec.containers[name: "<b>"].stdin`, "spec.containers.x",
		"spec.containers", "spec.containers[name: *]", "spec.containers[name: c].name", "spec.containers[image: 'nginx:1'].x", "spec.hostPID", "spec.x", "spec.x.list", "spec.x.list[n: v].w",
		"spec.containers[name: *].ports[containerPort: 80].protocol", "spec.containers[name: *].securityContext.privileged", "spec.template.spec.hostPID", `spec."a.b/c".'d e'`, "kind", "apiVersion")
}

func (g generator) assign(location string) object {
	if location == "kind" {
		return object{"value": pick(g, "Pod", "Deployment", "Turn")}
	}
	if location == "spec.containers[name: c]" && g.half() {
		return object{"value": object{"name": "c", "image": "x"}}
	}
	if g.IntN(6) == 0 {
		return g.external("ValueAtLocation", "ValueAtLocation", "Username")
	}
	if g.IntN(3) > 0 {
		return pick(g, object{"value": "text"}, object{"value": g.half()}, object{"value": 5}, object{"value": object{"name": "c", "x": object{}}})
	}
	return pick(g, object{"value": "text"}, object{"value": g.half()}, object{"value": 5}, object{"value": 1.5}, object{"value": object{"name": "c", "x": object{}}},
		object{"value": object{"name": "d"}}, object{"value": []any{"--x", object{"name": "c"}}}, object{"value": object{}}, object{"value": nil},
		object{"fromMetadata": object{"field": pick(g, "name", "namespace", "uid")}}, object{}, object{"value": "x", "fromMetadata": object{"field": "name"}})
}

// external makes an assignment of external data, with all that has a default on
// an API server.
func (g generator) external(sources ...string) object {
	data := object{
		"provider": g.mostly("good", "plain", "broken", "lost", "failing"), "dataSource": pick(g, sources...),
		"failurePolicy": pick(g, "Fail", "UseDefault", "Ignore"), "default": "other",
	}
	if g.IntN(12) == 0 {
		data["default"] = ""
	}
	out := object{"externalData": data}
	if g.IntN(20) == 0 {
		out["value"] = "x"
	}
	return out
}

// applyTo names kinds. No Namespace becomes anything else: Gatekeeper would take
// it for an object in a namespace of that name.
func (g generator) applyTo(location string) []any {
	other := []any{"Turn", "Namespace"}
	if location == "kind" {
		other = other[:1]
	}
	var out []any
	for range 1 + g.IntN(2) {
		to := object{"groups": []any{"", "apps"}, "versions": []any{"v1"}, "kinds": pick(g, []any{"Pod"}, []any{"Pod"}, []any{"Pod", "Deployment"}, other, []any{"Deployment"})}
		if g.IntN(3) == 0 {
			to["operations"] = pick(g, []any{"CREATE"}, []any{"UPDATE"}, []any{"CREATE", "UPDATE"}, []any{"*"}, []any{})
		}
		if g.IntN(40) == 0 {
			to["operations"] = pick(g, []any{"DELETE"}, []any{"*", "CREATE"}, []any{"UPDATE", "UPDATE"})
		}
		if g.IntN(40) == 0 {
			delete(to, pick(g, "groups", "versions", "kinds"))
		}
		out = append(out, to)
	}
	return out
}

// pathTests adds tests of the parts of a location, in their order: Gatekeeper
// looks for contradictions by the order of the list.
func (g generator) pathTests(location string, parameters object) {
	path, err := parser.Parse(location)
	if err != nil {
		return
	}
	var tests []any
	for n := range path.Nodes {
		if g.IntN(5) == 0 {
			sub := parser.Path{Nodes: path.Nodes[:n+1]}
			tests = append(tests, object{"subPath": sub.String(), "condition": pick(g, "MustExist", "MustNotExist")})
		}
	}
	if g.IntN(20) == 0 {
		tests = append(tests, object{"subPath": "spec.other", "condition": "MustExist"})
	}
	if len(tests) > 0 {
		parameters["pathTests"] = tests
	}
}

func (g generator) match() object {
	selector := func(key, value string) object {
		return object{"matchExpressions": []any{object{"key": key, "operator": pick(g, "In", "NotIn"), "values": []any{value}}}}
	}
	return pick(g,
		object{"kinds": []any{object{"apiGroups": []any{"*"}, "kinds": []any{pick(g, "Pod", "*", "Node")}}}},
		object{"scope": pick(g, "*", "Cluster", "Namespaced")}, object{"namespaces": []any{pick(g, "shop", "team-*", "*m")}},
		object{"excludedNamespaces": []any{pick(g, "shop", "kube-*", "*a*")}}, object{"labelSelector": selector("team", "web")},
		object{"labelSelector": selector("new", "v")}, object{"namespaceSelector": selector("env", "prod")},
		object{"name": pick(g, "a1", "a*", "*b", "web-*")}, object{"source": pick(g, "All", "Original", "Generated")}, object{})
}

// withArgs gives containers lists that sets may change, and things that a
// location cannot lead through.
func (g generator) withArgs(request []byte) json.RawMessage {
	var r object
	if err := json.Unmarshal(request, &r); err != nil {
		panic(err) // our own
	}
	o, _ := r["object"].(object)
	spec, _ := o["spec"].(object)
	containers, _ := spec["containers"].([]any)
	for i, c := range containers {
		if g.half() {
			c.(object)["args"] = slices.Clone(pick(g, []any{"--x"}, []any{"--y", 5, "--x"}, []any{object{"name": "c"}}, []any{}))
		}
		if g.IntN(16) == 0 {
			containers[i] = pick[any](g, "text", nil, 5)
		}
	}
	if spec != nil && g.IntN(6) == 0 {
		spec["x"] = pick[any](g, object{"list": []any{object{"n": "v"}}}, object{"list": []any{"--x"}}, "text", nil, []any{})
	}
	return raw(r)
}
