package incident

import "strings"

const anonymous = "system:anonymous"

// Hub reports whether a user stands for nobody in particular: the control plane,
// and nodes act on behalf of others, and everybody can be anonymous. A controller
// shows by what it is seen with: an account of kube-system may be an attacker's.
func Hub(user string) bool {
	switch user {
	case "", anonymous, "system:apiserver", "system:kube-controller-manager", "system:kube-scheduler":
		return true
	}
	return strings.HasPrefix(user, "system:node:")
}
