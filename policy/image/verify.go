package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/kubeguardian/kubeguardian/registry"
)

// An outcome is what a policy concludes of one image.
type outcome struct {
	problems []string  // what is wrong with the image
	failure  error     // why it could not be judged
	until    time.Time // when the conclusion ends to hold by itself; zero is never
}

// verifies reports whether the policy needs signatures or attestations.
func (p *Policy) verifies() bool { return p.signatures > 0 || len(p.attestations) > 0 }

// verify judges what is attached to an image.
func (p *Policy) verify(ctx context.Context, r *registries, image name.Digest, now time.Time) outcome {
	want := wanted{signatures: p.signatures > 0, predicates: map[string]bool{}}
	for _, a := range p.attestations {
		want.predicates[a.predicateType] = true
	}
	found, err := r.reader(ctx).attached(image, want)
	if err != nil {
		return failed(image.RegistryStr(), err)
	}
	var out outcome
	if problem := p.signed(ctx, found, image.DigestStr()); problem != "" {
		out.problems = append(out.problems, problem)
	}
	for _, a := range p.attestations {
		problem, until := a.check(ctx, found, image.DigestStr(), now)
		if problem != "" {
			out.problems = append(out.problems, problem)
		} else if !until.IsZero() && (out.until.IsZero() || until.Before(out.until)) {
			out.until = until
		}
	}
	return out
}

// failed makes an outcome of an error of a registry. What does not exist is no
// failure: nobody can run it.
func failed(host string, err error) outcome {
	var forbidden *registry.ForbiddenError
	switch {
	case missing(err):
		return outcome{problems: []string{"the registry does not have it"}}
	case errors.As(err, &forbidden):
		return outcome{problems: []string{fmt.Sprintf("%s is no registry: %v", host, forbidden)}}
	}
	return outcome{failure: fmt.Errorf("ask registry %s: %s", host, oneLine(err))}
}

// signed checks that enough attestors signed.
func (p *Policy) signed(ctx context.Context, found *attached, digest string) string {
	if p.signatures == 0 {
		return ""
	}
	count := 0
	var reasons []string
	for _, a := range p.attestors {
		ok := slices.ContainsFunc(found.signatures, func(s signed) bool {
			err := a.signs(ctx, s, digest)
			if err != nil {
				reasons = append(reasons, oneLine(err))
			}
			return err == nil
		})
		if ok {
			count++
		}
	}
	if count >= p.signatures {
		return ""
	}
	text := "it is not signed by " + names(p.attestors)
	if p.signatures > 1 {
		text = fmt.Sprintf("it is signed by %d of %s, and %d must sign", count, names(p.attestors), p.signatures)
	}
	return text + because(len(found.signatures), "signature", append(reasons, found.faults...))
}

// signs checks one signature, and that it is of this image.
func (a *attestor) signs(ctx context.Context, s signed, digest string) error {
	if _, err := a.verify(ctx, s, digest); err != nil || s.payload == nil {
		return err
	}
	var claim struct {
		Critical struct {
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
			Type string `json:"type"`
		} `json:"critical"`
	}
	if err := json.Unmarshal(s.payload, &claim); err != nil {
		return fmt.Errorf("parse what was signed: %w", err)
	}
	if claim.Critical.Type != "cosign container image signature" {
		return fmt.Errorf("what was signed is of type %q, no image", claim.Critical.Type)
	}
	if claim.Critical.Image.Digest != digest {
		return fmt.Errorf("the signature is of another image, %s", claim.Critical.Image.Digest)
	}
	return nil
}

// check looks for verified statements of the type, and judges them.
func (a *attestation) check(ctx context.Context, found *attached, digest string, now time.Time) (problem string, until time.Time) {
	var verified []statement
	var reasons []string
	count := 0
	for _, s := range found.statements {
		if s.predicateType != a.predicateType {
			continue
		}
		if count++; count > maxSignatures {
			reasons = append(reasons, fmt.Sprintf("there are more than %d", maxSignatures))
			break
		}
		for _, by := range a.attestors {
			result, err := by.verify(ctx, s.signed, digest)
			if err != nil {
				reasons = append(reasons, oneLine(err))
				continue
			}
			v := statement{predicate: s.predicate}
			if len(result.VerifiedTimestamps) > 0 {
				v.witnessed = result.VerifiedTimestamps[0].Timestamp
			}
			verified = append(verified, v)
			break
		}
	}
	if len(verified) == 0 {
		return fmt.Sprintf("attestation %s: none of type %s is signed by %s", a.name, a.predicateType, names(a.attestors)) +
			because(count, "attestation", append(reasons, found.faults...)), until
	}
	if problem, until = a.judge(verified, now); problem != "" {
		problem = fmt.Sprintf("attestation %s: %s", a.name, problem)
	}
	return problem, until
}

func names(attestors []*attestor) string {
	list := make([]string, len(attestors))
	for i, a := range attestors {
		list[i] = a.name
	}
	return strings.Join(list, ", ")
}

// because says what was found instead.
func because(count int, what string, reasons []string) string {
	switch {
	case len(reasons) > 0:
		return fmt.Sprintf(" (%d %ss found: %s)", count, what, reasons[0])
	case count == 0:
		return fmt.Sprintf(" (it has no %s)", what)
	}
	return ""
}

// maxReason bounds what of an error stands in a message.
const maxReason = 300

// oneLine returns an error as a short text in one line.
func oneLine(err error) string {
	text := strings.Join(strings.Fields(err.Error()), " ")
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "") + " …"
	}
	return text
}
