// Package offer is the service that keeps the internships which companies
// offer.
package offer

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
		Name: "offer",
		Callers: map[string][]string{
			offerv1.Offers_Create_FullMethodName:  gateway,
			offerv1.Offers_Get_FullMethodName:     {"gateway", "application"},
			offerv1.Offers_Update_FullMethodName:  gateway,
			offerv1.Offers_Delete_FullMethodName:  gateway,
			offerv1.Offers_Restore_FullMethodName: gateway,
			offerv1.Offers_Search_FullMethodName:  gateway,
		},
		Migrations: files,
		Register: func(server grpc.ServiceRegistrar, with service.Resources) error {
			offerv1.RegisterOffersServer(server, &offers{store: store{with.Database}})
			return nil
		},
	}
}

type offers struct {
	offerv1.UnimplementedOffersServer
	store store
}

// fail turns what a store says into a status.
func fail(err error) error {
	switch {
	case errors.Is(err, errNone):
		return status.Error(codes.NotFound, "no such offer")
	case errors.Is(err, errOthers):
		return status.Error(codes.PermissionDenied, "the offer is of another company")
	case errors.Is(err, errChanged):
		return status.Error(codes.Aborted, "somebody changed the offer meanwhile; read it again")
	case errors.Is(err, errKeyUsed):
		return status.Error(codes.FailedPrecondition, "idempotency_key: was used for another offer")
	}
	return err
}

// company returns the id of the calling company.
func company(ctx context.Context) (string, error) {
	c := token.From(ctx)
	if c.Role != "company" {
		return "", status.Error(codes.PermissionDenied, "only companies make offers")
	}
	return c.ID, nil
}

func (o *offers) Create(ctx context.Context, req *offerv1.CreateRequest) (*offerv1.CreateResponse, error) {
	who, err := company(ctx)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(checkID("idempotency_key", req.GetIdempotencyKey()), check(req.GetContent())); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	created, err := o.store.add(ctx, row{ID: uuid.NewString(), CompanyID: who, content: contentOf(req.GetContent())}, req.GetIdempotencyKey())
	if err != nil {
		return nil, fail(err)
	}
	return &offerv1.CreateResponse{Offer: created.proto()}, nil
}

func (o *offers) Get(ctx context.Context, req *offerv1.GetRequest) (*offerv1.GetResponse, error) {
	if err := checkID("id", req.GetId()); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	found, err := o.store.get(ctx, req.GetId())
	if err == nil && found.Deleted && found.CompanyID != token.From(ctx).ID {
		err = errNone
	}
	if err != nil {
		return nil, fail(err)
	}
	return &offerv1.GetResponse{Offer: found.proto()}, nil
}

func (o *offers) Update(ctx context.Context, req *offerv1.UpdateRequest) (*offerv1.UpdateResponse, error) {
	who, err := company(ctx)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(checkID("id", req.GetId()), check(req.GetContent())); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	changed, err := o.store.update(ctx, who, req.GetId(), req.GetVersion(), contentOf(req.GetContent()))
	if err != nil {
		return nil, fail(err)
	}
	return &offerv1.UpdateResponse{Offer: changed.proto()}, nil
}

func (o *offers) Delete(ctx context.Context, req *offerv1.DeleteRequest) (*offerv1.DeleteResponse, error) {
	if _, err := o.hide(ctx, req.GetId(), true); err != nil {
		return nil, err
	}
	return &offerv1.DeleteResponse{}, nil
}

func (o *offers) Restore(ctx context.Context, req *offerv1.RestoreRequest) (*offerv1.RestoreResponse, error) {
	shown, err := o.hide(ctx, req.GetId(), false)
	if err != nil {
		return nil, err
	}
	return &offerv1.RestoreResponse{Offer: shown.proto()}, nil
}

func (o *offers) hide(ctx context.Context, id string, deleted bool) (row, error) {
	who, err := company(ctx)
	if err != nil {
		return row{}, err
	}
	if err := checkID("id", id); err != nil {
		return row{}, status.Error(codes.InvalidArgument, err.Error())
	}
	changed, err := o.store.hide(ctx, who, id, deleted)
	return changed, fail(err)
}

func (o *offers) Search(ctx context.Context, req *offerv1.SearchRequest) (*offerv1.SearchResponse, error) {
	page, err := database.NewPage(req.GetPageSize(), req.GetPageToken())
	if err == nil && req.GetCompanyId() != "" {
		err = checkID("company_id", req.GetCompanyId())
	}
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	found, err := o.store.search(ctx, req, page)
	if err != nil {
		return nil, err
	}
	res := &offerv1.SearchResponse{}
	for _, r := range found {
		res.Offers = append(res.Offers, r.proto())
	}
	if n := len(found); n == page.Size {
		res.NextPageToken = database.Next(found[n-1].Created, found[n-1].ID)
	}
	return res, nil
}

func checkID(name, id string) error {
	if uuid.Validate(id) != nil || len(id) != 36 {
		return fmt.Errorf("%s: is not a UUID", name)
	}
	return nil
}

// check says what is wrong with the content of an offer.
func check(c *offerv1.Content) error {
	var errs []error
	length := func(name, text string, least, most int) {
		if n := utf8.RuneCountInString(text); n < least || n > most {
			errs = append(errs, fmt.Errorf("%s: needs %d to %d characters", name, least, most))
		}
	}
	between := func(name string, n int32, least, most int32) {
		if n < least || n > most {
			errs = append(errs, fmt.Errorf("%s: needs to be %d to %d", name, least, most))
		}
	}
	length("title", c.GetTitle(), 1, 200)
	length("description", c.GetDescription(), 0, 10_000)
	length("location", c.GetLocation(), 0, 100)
	between("weeks", c.GetWeeks(), 1, 104)
	between("places", c.GetPlaces(), 1, 1000)
	return errors.Join(errs...)
}
