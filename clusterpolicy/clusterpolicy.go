// Package clusterpolicy has the policies that are objects of a cluster:
// Gatekeeper's templates, constraints, mutators and their settings, ImagePolicies,
// and the API server's own policies.
//
// A [Watcher] follows them. After each change it writes them as documents and
// loads these as files are loaded, together with the policies of files, so that a
// policy gives the same verdict whichever way it comes. An object with a mistake
// does not stop the others: its last good version stays in force, and its status
// says what is wrong, with the line.
//
// # Beside Gatekeeper
//
// The definitions of Gatekeeper's kinds belong to Gatekeeper or to us. They are
// ours when they have the label app.kubernetes.io/managed-by: kubeguardian, as
// those that `kubeguardian setup gatekeeper` prints, and no webhook has Gatekeeper's
// label gatekeeper.sh/system: "yes". Only then the watcher writes: a definition for
// the constraints of each template, and status. Otherwise it only reads.
package clusterpolicy

import (
	"fmt"
	"log/slog"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/kubeguardian/kubeguardian/engine"
	"github.com/kubeguardian/kubeguardian/policy"
)

// Options are what a [Watcher] needs. Base, Load and KeepFile may be missing.
type Options struct {
	Config *rest.Config
	// Base are policies of files, which are in force beside those of the cluster,
	// until [Watcher.Rebase] has others. They load without a mistake.
	Base []policy.File
	// Load loads policies, time and again; nil is that of an [engine.Loader].
	Load func(files ...policy.File) (*engine.Set, error)
	// KeepFile keeps the last good version of objects from one start to the next.
	KeepFile string
	// Replica tells this watcher from others on the same cluster, by a name that
	// is that of a Kubernetes object.
	Replica string
	// Namespace is where replicas tell each other that they live.
	Namespace string
	Log       *slog.Logger
	// Publish is called with what is in force whenever that has changed, once at a
	// time.
	Publish func(State)
}

// A State is what is in force.
type State struct {
	// Enforced are the policies of files and of the cluster, but for native ones,
	// which the API server enforces itself.
	Enforced *engine.Set
	// Base are the files among them.
	Base []policy.File
	// Native are the native ones. They only judge what is there already.
	Native *engine.Set
	// Objects are the policies of the cluster, by kind and name.
	Objects []Object
	// Unread says why kinds of policies are not read.
	Unread []error
	// Foreign says why nothing is written to the cluster; empty: it is.
	Foreign string
}

// An Object is a policy in the cluster, or what belongs to one.
type Object struct {
	Kind            schema.GroupVersionKind
	Namespace, Name string
	UID             types.UID
	Generation      int64
	// Native says that the API server itself judges by it.
	Native bool
	// InForce says that a version of it is in force, and Stale that it is an
	// earlier one.
	InForce, Stale bool
	// Problems are what is wrong with the version that there is now.
	Problems []Problem
}

// A Problem is a mistake in an object.
type Problem struct {
	// Code is one of [policy.Codes].
	Code    string
	Message string
	// Location is the field, and for text of several lines the line in it, such as
	// spec.targets[0].rego:3.
	Location string
}

// key tells objects from each other. It is also the name of the file that errors
// begin with, and has no colon.
func key(kind schema.GroupKind, namespace, name string) string {
	parts := []string{kind.String(), name}
	if namespace != "" {
		parts = []string{kind.String(), namespace, name}
	}
	return strings.ReplaceAll(strings.Join(parts, "/"), ":", "_")
}

// Native reports whether objects of a kind are native policies or their bindings.
func Native(kind schema.GroupVersionKind) bool { return kind.Group == "admissionregistration.k8s.io" }

// String returns what messages call an object.
func (o *Object) String() string { return fmt.Sprintf("%s %q", o.Kind.Kind, o.Name) }
