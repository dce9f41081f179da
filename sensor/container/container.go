// Package container tells which container a process runs in, and what that
// container is: from the path of its control group its id, from the runtime's
// socket (CRI) its name, image and pod, from its own files its users and groups.
package container
