// Package application is the service that keeps who applied for which
// internship, and what became of it.
package application

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"unicode/utf8"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/api/applicationv1"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/api/offerv1"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/database"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/service"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/token"
)

//go:embed migrations/*.sql
var migrations embed.FS

// New describes the service to [service.Run].
func New() service.Service {
	files, _ := fs.Sub(migrations, "migrations") // embedded above
	gateway := []string{"gateway"}
	return service.Service{
		Name: "application",
		Callers: map[string][]string{
			applicationv1.Applications_Apply_FullMethodName:  gateway,
			applicationv1.Applications_Decide_FullMethodName: gateway,
			applicationv1.Applications_Search_FullMethodName: gateway,
		},
		Migrations: files,
		Register: func(server grpc.ServiceRegistrar, with service.Resources) error {
			if with.Settings.OfferAddress == "" {
				return errors.New("OFFER_ADDRESS is not set")
			}
			conn, err := service.Dial(with.Identity, with.Settings.OfferAddress, "offer")
			if err != nil {
				return err
			}
			applicationv1.RegisterApplicationsServer(server, &applications{
				store: store{with.Database}, offers: offerv1.NewOffersClient(conn),
			})
			return nil
		},
	}
}

type applications struct {
	applicationv1.UnimplementedApplicationsServer
	store  store
	offers offerv1.OffersClient
}

// The states of the API and their names in the database.
var states = map[applicationv1.Status]string{
	applicationv1.Status_STATUS_PENDING:  "pending",
	applicationv1.Status_STATUS_ACCEPTED: "accepted",
	applicationv1.Status_STATUS_REJECTED: "rejected",
}

func state(name string) applicationv1.Status {
	for state, n := range states {
		if n == name {
			return state
		}
	}
	return applicationv1.Status_STATUS_UNSPECIFIED
}

func (a *applications) Apply(ctx context.Context, req *applicationv1.ApplyRequest) (*applicationv1.ApplyResponse, error) {
	caller := token.From(ctx)
	if caller.Role != "student" {
		return nil, status.Error(codes.PermissionDenied, "only students apply")
	}
	if utf8.RuneCountInString(req.GetMotivation()) > 10_000 {
		return nil, status.Error(codes.InvalidArgument, "motivation: needs at most 10000 characters")
	}
	found, err := a.offers.Get(ctx, &offerv1.GetRequest{Id: req.GetOfferId()})
	if err != nil {
		return nil, of(err)
	}
	kept, err := a.store.add(ctx, row{
		ID: uuid.NewString(), OfferID: req.GetOfferId(), CompanyID: found.GetOffer().GetCompanyId(), StudentID: caller.ID, Motivation: req.GetMotivation(),
	})
	if err != nil {
		return nil, err
	}
	return &applicationv1.ApplyResponse{Application: kept.proto()}, nil
}

// of passes on what the service of offers says about the request itself.
func of(err error) error {
	switch status.Code(err) {
	case codes.NotFound, codes.InvalidArgument, codes.Unauthenticated, codes.DeadlineExceeded, codes.Unavailable:
		return err
	}
	return fmt.Errorf("ask for the offer: %s", err) // its status is not one about this call
}

func (a *applications) Decide(ctx context.Context, req *applicationv1.DecideRequest) (*applicationv1.DecideResponse, error) {
	caller := token.From(ctx)
	if caller.Role != "company" {
		return nil, status.Error(codes.PermissionDenied, "only companies decide")
	}
	if s := req.GetStatus(); s != applicationv1.Status_STATUS_ACCEPTED && s != applicationv1.Status_STATUS_REJECTED {
		return nil, status.Error(codes.InvalidArgument, "status: is accepted or rejected")
	}
	if uuid.Validate(req.GetId()) != nil {
		return nil, status.Error(codes.InvalidArgument, "id: is not a UUID")
	}
	decided, err := a.store.decide(ctx, caller.ID, req.GetId(), states[req.GetStatus()])
	switch {
	case errors.Is(err, errNone):
		return nil, status.Error(codes.NotFound, "no such application")
	case errors.Is(err, errDecided):
		return nil, status.Error(codes.FailedPrecondition, "the application was decided otherwise")
	case err != nil:
		return nil, err
	}
	return &applicationv1.DecideResponse{Application: decided.proto()}, nil
}

func (a *applications) Search(ctx context.Context, req *applicationv1.SearchRequest) (*applicationv1.SearchResponse, error) {
	page, err := database.NewPage(req.GetPageSize(), req.GetPageToken())
	if err == nil && req.GetOfferId() != "" && uuid.Validate(req.GetOfferId()) != nil {
		err = errors.New("offer_id: is not a UUID")
	}
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	found, err := a.store.search(ctx, token.From(ctx).User, req, page)
	if err != nil {
		return nil, err
	}
	res := &applicationv1.SearchResponse{}
	for _, r := range found {
		res.Applications = append(res.Applications, r.proto())
	}
	if n := len(found); n == page.Size {
		res.NextPageToken = database.Next(found[n-1].Created, found[n-1].ID)
	}
	return res, nil
}
