package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus"
	"github.com/kubeguardian/kubeguardian/rule"
	"github.com/kubeguardian/kubeguardian/sensor/record"
)

// A widener is a [Source] that can show more than what it was opened for.
type widener interface{ Widen(types []string) error }

// pushed is what became of the rules of the server. The zero value has none.
type pushed struct {
	hash string // of those in force; empty: the agent's own
	err  error  // why the last ones are not
}

// takesRules reports whether the server says which rules there are: if the
// configuration does not.
func (c *Config) takesRules() bool { return c.Server.URL != "" && len(c.Rules) == 0 }

// keptRules is the file with the rules of the server, for a start without it.
func (c *Config) keptRules() string { return filepath.Join(c.Server.Dir, "rules") }

// A compiled is what rules of the server amount to.
type compiled struct {
	hash     string
	set      *rule.Set
	mode     rule.Mode
	entrance *entrance
}

// compile loads rules of the server. The error has all mistakes.
func compile(r *bus.Rules) (*compiled, error) {
	least, err := alert.ParsePriority(r.Priority)
	if err != nil {
		return nil, fmt.Errorf("load rules of the server: %w", err)
	}
	opts := rule.Options{Minimum: &least, Static: r.Static}
	for _, s := range r.Select {
		opts.Select = append(opts.Select, rule.Selection{Rule: s.Rule, Tag: s.Tag, On: s.On})
	}
	for _, a := range r.Append {
		add := rule.Append{Source: a.Source, Rule: a.Rule, Tags: a.Tags, Output: a.Output}
		for _, f := range a.Fields {
			add.Fields = append(add.Fields, rule.Extra{Name: f.Name, Format: f.Format})
		}
		opts.Append = append(opts.Append, add)
	}
	files := make([]rule.File, 0, len(r.Files))
	for _, f := range r.Files {
		files = append(files, rule.File{Name: f.Name, Data: f.Data})
	}
	set, results := opts.Load(files...)
	if set == nil {
		return nil, fmt.Errorf("load rules of the server: %w", rule.Mistakes(results))
	}
	if len(set.Needs().Rules) == 0 {
		return nil, errors.New("load rules of the server: none of them is enabled and of source syscall")
	}
	c := &compiled{hash: r.Hash(), set: set, mode: (&Config{Match: r.Match}).mode()}
	c.entrance, err = newEntrance(files)
	return c, err
}

// loadKept returns the rules that the server gave last, nil if there are none.
func (a *Agent) loadKept() *compiled {
	if !a.o.Config.takesRules() {
		return nil
	}
	data, err := os.ReadFile(a.o.Config.keptRules())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var c *compiled
	if err == nil {
		var r *bus.Rules
		if r, err = bus.DecodeRules(data); err == nil {
			c, err = compile(r)
		}
	}
	if err != nil {
		a.o.Log.Error("the rules that the server gave last cannot be used: the built-in ones are in force until it gives others", "file", a.o.Config.keptRules(), "error", err)
		return nil
	}
	return c
}

// firstRules returns the rules that the agent starts with: those that the server
// gave last, or its own.
func (a *Agent) firstRules() (*compiled, error) {
	if a.o.Out == nil {
		if a.kept = a.loadKept(); a.kept != nil {
			return a.kept, nil
		}
	}
	set, err := loadRules(a.o.Config, a.o.Log)
	if err != nil {
		return nil, err
	}
	c := &compiled{set: set, mode: a.o.Config.mode()}
	if a.o.Out == nil {
		c.entrance, err = loadEntrance(a.o.Config)
	}
	return c, err
}

// keepRules writes the rules of the server for the next start, whole or not at
// all.
func (a *Agent) keepRules(r *bus.Rules) error {
	data, err := r.Encode()
	if err != nil {
		return err
	}
	name := a.o.Config.keptRules()
	if err := os.WriteFile(name+".new", data, 0o600); err != nil {
		return fmt.Errorf("keep rules of the server: %w", errors.Join(err, os.Remove(name+".new")))
	}
	if err := os.Rename(name+".new", name); err != nil {
		return fmt.Errorf("keep rules of the server: %w", err)
	}
	return nil
}

// followRules takes the rules of the server over, as they come, until ctx ends.
func (r *reporter) followRules(ctx context.Context) {
	err := bus.FollowRules(ctx, r.conn, func(rules *bus.Rules, err error) {
		if err == nil {
			err = r.agent.replaceRules(rules)
		}
		state := pushed{err: err}
		if last := r.rules.Load(); last != nil {
			state.hash = last.hash
		}
		if err != nil {
			r.agent.o.Log.Error("the rules of the server are refused: those before stay in force", "error", err)
		} else {
			state.hash = rules.Hash()
		}
		r.rules.Store(&state)
		r.news()
	})
	if err != nil {
		r.agent.o.Log.Error("rules of the server are not followed", "error", err)
	}
}

// replaceRules puts rules of the server in force. Events meet the rules before or
// these, and none is lost by it.
func (a *Agent) replaceRules(rules *bus.Rules) error {
	c, err := compile(rules)
	if err != nil {
		return err
	}
	next := a.newRuling(c.set)
	if w, ok := a.source.(widener); ok {
		if err := w.Widen(append(next.types(), c.entrance.types()...)); err != nil {
			return fmt.Errorf("have the kernel show more: %w", err)
		}
	} else if missing := a.unopened(append(next.types(), c.entrance.types()...)); len(missing) > 0 {
		return fmt.Errorf("they need events that the sensor was not started for: %v", missing)
	}
	if err := a.putInForce(next, c); err != nil {
		a.o.Log.Error("the sensor shows what no rule is about", "error", err)
	}
	a.o.Log.Info("rules of the server are in force", "rules", next.count, "hash", c.hash)
	debug.FreeOSMemory() // of those before
	if err := a.keepRules(rules); err != nil {
		a.o.Log.Error("the rules of the server are in force, and a start without the server goes on with those before", "error", err)
	}
	return nil
}

// unopened lists the types that the source was not opened for.
func (a *Agent) unopened(types []string) []string {
	return slices.DeleteFunc(types, func(t string) bool {
		_, known := record.TypeOf(t) // what no sensor shows is not covered, whenever it was started
		return !known || slices.Contains(a.opened, t)
	})
}

// putInForce replaces all that follows from rules.
func (a *Agent) putInForce(next *ruling, c *compiled) error {
	a.pipeline.entrance.Store(c.entrance)
	a.pipeline.mode.Store(uint32(c.mode))
	if a.shedder != nil {
		return a.shedder.replace(next)
	}
	return a.use(next)
}
