package gateway

import (
	"context"
	_ "embed"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/api/applicationv1"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/api/authv1"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/api/offerv1"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/token"
)

// OpenAPI describes the API.
//
//go:embed openapi.yaml
var OpenAPI []byte

// answerWithin bounds a request, retries and a failover of a database included.
const answerWithin = 25 * time.Second

// An api turns requests of clients into calls of services.
type api struct {
	auth         authv1.AuthClient
	offers       offerv1.OffersClient
	applications applicationv1.ApplicationsClient
	tokens       *token.Verifier
	log          *slog.Logger
}

// A handler returns what to answer with, as JSON, and the status code for it.
type handler func(r *http.Request) (code int, body any, err error)

// open returns the routes that need no login, closed the others.
func (a *api) open() map[string]handler {
	return map[string]handler{
		"POST /v1/users":  a.register,
		"POST /v1/logins": a.login,
	}
}

func (a *api) closed() map[string]handler {
	return map[string]handler{
		"GET /v1/users/me":                     a.me,
		"GET /v1/offers":                       a.searchOffers,
		"POST /v1/offers":                      a.createOffer,
		"GET /v1/offers/{id}":                  a.getOffer,
		"PUT /v1/offers/{id}":                  a.updateOffer,
		"DELETE /v1/offers/{id}":               a.deleteOffer,
		"POST /v1/offers/{id}/restore":         a.restoreOffer,
		"POST /v1/offers/{id}/applications":    a.apply,
		"GET /v1/applications":                 a.searchApplications,
		"POST /v1/applications/{id}/decisions": a.decide,
	}
}

func (a *api) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /openapi.yaml", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(OpenAPI) // a client that went away
	})
	for pattern, h := range a.open() {
		mux.Handle(pattern, a.answer(h))
	}
	for pattern, h := range a.closed() {
		mux.Handle(pattern, a.answer(a.loggedIn(h)))
	}
	mux.Handle("/", a.answer(func(*http.Request) (int, any, error) {
		return 0, nil, status.Error(codes.NotFound, "no such resource; see /openapi.yaml")
	}))
	return mux
}

// answer writes what a handler returns.
func (a *api) answer(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), answerWithin)
		defer cancel()
		code, body, err := h(r.WithContext(ctx))
		if err != nil {
			code, body = problemOf(err)
			if code >= http.StatusInternalServerError {
				a.log.ErrorContext(ctx, "request failed", "request", requestID(ctx), "error", err)
			}
		}
		writeJSON(w, code, body)
	})
}

// loggedIn lets only people with a login through. Services check it again.
func (a *api) loggedIn(h handler) handler {
	return func(r *http.Request) (int, any, error) {
		text, ok := token.Bearer(r.Header.Get("Authorization"))
		if !ok {
			return 0, nil, status.Error(codes.Unauthenticated, "log in first: Authorization: Bearer TOKEN")
		}
		user, _, err := a.tokens.Verify(text)
		if err != nil {
			return 0, nil, status.Error(codes.Unauthenticated, "the login is not valid, or no longer")
		}
		return h(r.WithContext(token.With(r.Context(), token.Caller{User: user, Token: text})))
	}
}

func (a *api) register(r *http.Request) (int, any, error) {
	var in registration
	if err := readJSON(r, &in); err != nil {
		return 0, nil, err
	}
	res, err := a.auth.Register(r.Context(), &authv1.RegisterRequest{Email: in.Email, Password: in.Password, Name: in.Name, Role: roleNamed(in.Role)})
	return http.StatusCreated, userOf(res.GetUser()), err
}

func (a *api) login(r *http.Request) (int, any, error) {
	var in credentials
	if err := readJSON(r, &in); err != nil {
		return 0, nil, err
	}
	res, err := a.auth.Login(r.Context(), &authv1.LoginRequest{Email: in.Email, Password: in.Password})
	return http.StatusCreated, login{Token: res.GetToken(), Expires: res.GetExpires().AsTime(), User: userOf(res.GetUser())}, err
}

func (a *api) me(r *http.Request) (int, any, error) {
	res, err := a.auth.Validate(r.Context(), &authv1.ValidateRequest{Token: token.From(r.Context()).Token})
	return http.StatusOK, userOf(res.GetUser()), err
}

func (a *api) searchOffers(r *http.Request) (int, any, error) {
	q := r.URL.Query()
	size, err := pageSize(q.Get("pageSize"))
	if err != nil {
		return 0, nil, err
	}
	res, err := a.offers.Search(r.Context(), &offerv1.SearchRequest{
		Text: q.Get("text"), Location: q.Get("location"), CompanyId: q.Get("companyId"), PageSize: size, PageToken: q.Get("pageToken"),
	})
	return http.StatusOK, list[offer]{Items: each(res.GetOffers(), offerOf), NextPageToken: res.GetNextPageToken()}, err
}

func (a *api) createOffer(r *http.Request) (int, any, error) {
	var in content
	if err := readJSON(r, &in); err != nil {
		return 0, nil, err
	}
	key := r.Header.Get("Idempotency-Key")
	if key == "" {
		return 0, nil, status.Error(codes.InvalidArgument, "Idempotency-Key: send a UUID, and the same one when you try again")
	}
	res, err := a.offers.Create(r.Context(), &offerv1.CreateRequest{IdempotencyKey: key, Content: in.proto()})
	return http.StatusCreated, offerOf(res.GetOffer()), err
}

func (a *api) getOffer(r *http.Request) (int, any, error) {
	res, err := a.offers.Get(r.Context(), &offerv1.GetRequest{Id: r.PathValue("id")})
	return http.StatusOK, offerOf(res.GetOffer()), err
}

func (a *api) updateOffer(r *http.Request) (int, any, error) {
	var in change
	if err := readJSON(r, &in); err != nil {
		return 0, nil, err
	}
	res, err := a.offers.Update(r.Context(), &offerv1.UpdateRequest{Id: r.PathValue("id"), Version: in.Version, Content: in.proto()})
	return http.StatusOK, offerOf(res.GetOffer()), err
}

func (a *api) deleteOffer(r *http.Request) (int, any, error) {
	_, err := a.offers.Delete(r.Context(), &offerv1.DeleteRequest{Id: r.PathValue("id")})
	return http.StatusNoContent, nil, err
}

func (a *api) restoreOffer(r *http.Request) (int, any, error) {
	res, err := a.offers.Restore(r.Context(), &offerv1.RestoreRequest{Id: r.PathValue("id")})
	return http.StatusOK, offerOf(res.GetOffer()), err
}

func (a *api) apply(r *http.Request) (int, any, error) {
	var in struct {
		Motivation string `json:"motivation"`
	}
	if err := readJSON(r, &in); err != nil {
		return 0, nil, err
	}
	res, err := a.applications.Apply(r.Context(), &applicationv1.ApplyRequest{OfferId: r.PathValue("id"), Motivation: in.Motivation})
	return http.StatusCreated, applicationOf(res.GetApplication()), err
}

func (a *api) searchApplications(r *http.Request) (int, any, error) {
	q := r.URL.Query()
	size, err := pageSize(q.Get("pageSize"))
	if err != nil {
		return 0, nil, err
	}
	state := statusNamed(q.Get("status"))
	if q.Get("status") != "" && state == applicationv1.Status_STATUS_UNSPECIFIED {
		return 0, nil, status.Error(codes.InvalidArgument, "status: is pending, accepted or rejected")
	}
	res, err := a.applications.Search(r.Context(), &applicationv1.SearchRequest{
		OfferId: q.Get("offerId"), Status: state, PageSize: size, PageToken: q.Get("pageToken"),
	})
	return http.StatusOK, list[application]{Items: each(res.GetApplications(), applicationOf), NextPageToken: res.GetNextPageToken()}, err
}

func (a *api) decide(r *http.Request) (int, any, error) {
	var in struct {
		Status string `json:"status"`
	}
	if err := readJSON(r, &in); err != nil {
		return 0, nil, err
	}
	res, err := a.applications.Decide(r.Context(), &applicationv1.DecideRequest{Id: r.PathValue("id"), Status: statusNamed(in.Status)})
	return http.StatusCreated, applicationOf(res.GetApplication()), err
}

func pageSize(text string) (int32, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 1 {
		return 0, status.Error(codes.InvalidArgument, "pageSize: is not a positive number")
	}
	return int32(n), nil
}
