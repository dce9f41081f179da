// Command offer serves the service of that name. See package service for the
// environment that it reads.
package main

import (
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/offer"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/service"
)

func main() { service.Main(offer.New()) }
