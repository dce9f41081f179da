package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/node"
	"github.com/kubeguardian/kubeguardian/report"
)

// scanNode writes what this node shows, as evidence for a scan of its cluster.
func (o *scanOptions) scanNode(ctx context.Context, std streams) error {
	record, err := node.Collect(ctx, node.Options{Tool: "kubeguardian " + built()})
	if err != nil {
		return err
	}
	remarkGaps(std.err, record.Gaps)
	write := func(w io.Writer) error {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(record)
	}
	if o.output == "" {
		return write(std.out)
	}
	if err := writeFile(o.output, write); err != nil {
		return fmt.Errorf("write evidence: %w", err)
	}
	return nil
}

// remarkGaps says what could not be seen of the node; the evidence has it all.
func remarkGaps(w io.Writer, gaps []evidence.NodeGap) {
	for _, g := range gaps[:min(remarks, len(gaps))] {
		place := string(g.Part)
		if g.Path != "" {
			place += " " + g.Path
		}
		fmt.Fprintf(w, "kubeguardian: note: not seen: %s: %s\n", report.Plain(place), report.Plain(g.Reason))
	}
	if more := len(gaps) - remarks; more > 0 {
		fmt.Fprintf(w, "kubeguardian: note: and %d more\n", more)
	}
}
