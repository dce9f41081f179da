package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/externaldata"
	"github.com/kubeguardian/kubeguardian/policy/mutator"
)

// A mutation is what -mutate reads on each line: mutators, in one YAML text each,
// and requests for them.
type mutation struct {
	Mutators   []string           `json:"mutators"`
	Namespaces []corev1.Namespace `json:"namespaces"`
	Requests   []json.RawMessage  `json:"requests"`
	outer
}

// A mutated says what became of it, in the same order. Mutators that are refused
// are left out of what the requests go through.
type mutated struct {
	Refused   []string        `json:"refused"` // an error or "" for each mutator
	Conflicts int             `json:"conflicts"`
	Objects   []mutatedObject `json:"objects"`
}

type mutatedObject struct {
	Object *unstructured.Unstructured `json:"object,omitempty"`
	Error  string                     `json:"error,omitempty"`
}

// mutate answers each line of in by one line of out.
func mutate(in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 64<<20)
	encoder := json.NewEncoder(out)
	var client *externaldata.Client // that of the first line: all ask the same
	for lines.Scan() {
		var m mutation
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			return fmt.Errorf("read mutation: %w", err)
		}
		if client == nil {
			var err error
			if client, err = m.client(); err != nil {
				return err
			}
		}
		answer, err := m.answer(client)
		if err != nil {
			return err
		}
		if err := encoder.Encode(answer); err != nil {
			return err
		}
	}
	return lines.Err()
}

func (m *mutation) answer(client *externaldata.Client) (*mutated, error) {
	out := &mutated{}
	var files []policy.File
	for i, text := range m.Mutators {
		f := policy.File{Name: fmt.Sprintf("%d.yaml", i), Data: []byte(text)}
		if _, err := mutator.Load(f); err != nil {
			out.Refused = append(out.Refused, err.Error())
			continue
		}
		out.Refused = append(out.Refused, "")
		files = append(files, f)
	}
	set, err := mutator.Load(files...)
	if err != nil {
		return nil, err
	}
	set = set.WithExternalData(client)
	out.Conflicts = len(set.Conflicts())
	j := judge{namespaces: map[string]*corev1.Namespace{}}
	for i := range m.Namespaces {
		j.namespaces[m.Namespaces[i].Name] = &m.Namespaces[i]
	}
	for _, line := range m.Requests {
		req, err := j.request(line)
		if err != nil {
			return nil, err
		}
		out.Objects = append(out.Objects, mutateOne(set, req))
	}
	return out, nil
}

func mutateOne(set *mutator.Set, req policy.Request) mutatedObject {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	object, _, err := set.Mutate(ctx, req)
	if err != nil {
		return mutatedObject{Error: err.Error()}
	}
	return mutatedObject{Object: object}
}
