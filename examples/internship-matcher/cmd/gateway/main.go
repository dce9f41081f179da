// Command gateway serves the public API. See package gateway for the
// environment that it reads.
package main

import "github.com/kubeguardian/kubeguardian/examples/internship-matcher/gateway"

func main() { gateway.Main() }
