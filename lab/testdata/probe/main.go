// Command probe is what the pods of the lab's tests run: a server that says who
// it is, and a client.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	switch {
	case len(args) > 1 && args[0] == "serve":
		return serve(args[1:])
	case len(args) == 2 && args[0] == "get":
		return get(ctx, args[1])
	case len(args) == 2 && args[0] == "resolve":
		found, err := net.DefaultResolver.LookupHost(ctx, args[1])
		fmt.Println(strings.Join(found, " "))
		return err
	}
	return fmt.Errorf("usage: probe serve ADDRESS... | get URL | resolve NAME")
}

// serve answers at each address with the host's name and the address.
func serve(addresses []string) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	ended := make(chan error)
	for _, a := range addresses {
		answer := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, "%s at %s\n", name, a) }
		go func() { ended <- http.ListenAndServe(a, http.HandlerFunc(answer)) }()
	}
	fmt.Println("serving")
	return <-ended
}

func get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(os.Stdout, resp.Body)
	return err
}
