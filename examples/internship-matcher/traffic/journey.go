package traffic

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/uuid"
)

// object is a JSON object.
type object = map[string]any

// A person is somebody with an account, logged in.
type person struct {
	Client
	Login
	email, password string
}

// join makes an account and logs in.
func join(ctx context.Context, c Client, role, name string) (person, error) {
	p := person{Client: c, email: strings.ToLower(rand.Text()) + "@example.com", password: rand.Text()}
	err := c.Again(ctx, http.MethodPost, "/v1/users", object{"email": p.email, "password": p.password, "name": name, "role": role}, nil)
	if err != nil && Code(err) != http.StatusConflict { // the answer to the first try was lost
		return p, err
	}
	err = c.Again(ctx, http.MethodPost, "/v1/logins", object{"email": p.email, "password": p.password}, &p.Login)
	p.Client.Token = p.Login.Token
	return p, err
}

// A Journey is what a company and a student do to find each other. Its texts
// have in them what real ones have and a firewall might take for an attack.
//
// It returns the ids of all that was acknowledged, by path.
func Journey(ctx context.Context, c Client, n int) (acknowledged []string, err error) {
	company, err := join(ctx, c, "company", "O'Brien & Sons GmbH")
	if err != nil {
		return nil, err
	}
	offer, err := publish(ctx, company, n)
	if err != nil {
		return nil, err
	}
	acknowledged = append(acknowledged, "/v1/offers/"+offer.ID)
	student, err := join(ctx, c, "student", "Zoë Müller-D'Angelo")
	if err != nil {
		return acknowledged, err
	}
	application, err := apply(ctx, student, offer)
	if err != nil {
		return acknowledged, err
	}
	acknowledged = append(acknowledged, "/v1/applications/"+application.ID)
	return acknowledged, settle(ctx, company, student, offer, application)
}

// publish makes an offer, changes it, and hides and shows it.
func publish(ctx context.Context, company person, n int) (offer Offer, err error) {
	content := object{
		"title":       fmt.Sprintf("Back end engineer (Go & SQL) #%d", n),
		"description": "Select a team; update your skills: we build C++/Go services \"end to end\".\nYou'll join 5-8 people; 50% remote. Ask us: jobs@example.com — or see https://example.com/jobs?team=platform&year=2027.",
		"location":    "Köln", "weeks": 12, "places": 2,
	}
	if err := company.Again(ctx, http.MethodPost, "/v1/offers", content, &offer, "Idempotency-Key", uuid.NewString()); err != nil {
		return offer, err
	}
	path := "/v1/offers/" + offer.ID
	content["places"], content["version"] = 3, offer.Version
	if err := company.Again(ctx, http.MethodPut, path, content, &offer); err != nil {
		return offer, err
	}
	if err := company.Again(ctx, http.MethodDelete, path, nil, nil); err != nil {
		return offer, err
	}
	return offer, company.Again(ctx, http.MethodPost, path+"/restore", nil, &offer)
}

// apply searches for an offer as a student, reads it and applies.
func apply(ctx context.Context, student person, offer Offer) (application Application, err error) {
	var found Page[Offer]
	if err := student.Again(ctx, http.MethodGet, "/v1/offers?text=engineer+go&location=K%C3%B6ln&pageSize=5", nil, &found); err != nil {
		return application, err
	}
	if len(found.Items) == 0 {
		return application, fmt.Errorf("search: found no offer, although one was just made")
	}
	path := "/v1/offers/" + offer.ID
	if err := student.Again(ctx, http.MethodGet, path, nil, &offer); err != nil {
		return application, err
	}
	motivation := "I'd love to join: I've written a parser & a scheduler in Go, and I like <strong> teams; 1 = 1, or so I'm told."
	return application, student.Again(ctx, http.MethodPost, path+"/applications", object{"motivation": motivation}, &application)
}

// settle lets the company decide, and the student see it.
func settle(ctx context.Context, company, student person, offer Offer, application Application) error {
	var inbox, outbox Page[Application]
	if err := company.Again(ctx, http.MethodGet, "/v1/applications?status=pending&offerId="+offer.ID, nil, &inbox); err != nil {
		return err
	}
	if len(inbox.Items) != 1 || inbox.Items[0].ID != application.ID {
		return fmt.Errorf("the company sees %v, want application %s", inbox.Items, application.ID)
	}
	if err := company.Again(ctx, http.MethodPost, "/v1/applications/"+application.ID+"/decisions", object{"status": "accepted"}, nil); err != nil {
		return err
	}
	if err := student.Again(ctx, http.MethodGet, "/v1/applications", nil, &outbox); err != nil {
		return err
	}
	if len(outbox.Items) != 1 || outbox.Items[0].Status != "accepted" {
		return fmt.Errorf("the student sees %v, want one accepted application", outbox.Items)
	}
	return nil
}
