package gateway

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/api/applicationv1"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/api/authv1"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/api/offerv1"
)

// The types of the API; openapi.yaml describes them.
type (
	registration struct {
		Email    string `json:"email"`
		Password string `json:"password"`
		Name     string `json:"name"`
		Role     string `json:"role"`
	}
	credentials struct {
		Email    string `json:"email"`
		Password string `json:"password"`
	}
	user struct {
		ID      string    `json:"id"`
		Email   string    `json:"email"`
		Name    string    `json:"name"`
		Role    string    `json:"role"`
		Created time.Time `json:"created"`
	}
	login struct {
		Token   string    `json:"token"`
		Expires time.Time `json:"expires"`
		User    user      `json:"user"`
	}
	content struct {
		Title       string `json:"title"`
		Description string `json:"description"`
		Location    string `json:"location"`
		Weeks       int32  `json:"weeks"`
		Places      int32  `json:"places"`
	}
	change struct {
		content
		Version int64 `json:"version"`
	}
	offer struct {
		ID        string `json:"id"`
		CompanyID string `json:"companyId"`
		change
		Deleted bool      `json:"deleted"`
		Created time.Time `json:"created"`
	}
	application struct {
		ID         string    `json:"id"`
		OfferID    string    `json:"offerId"`
		CompanyID  string    `json:"companyId"`
		StudentID  string    `json:"studentId"`
		Motivation string    `json:"motivation"`
		Status     string    `json:"status"`
		Created    time.Time `json:"created"`
	}
	list[T any] struct {
		Items         []T    `json:"items"`
		NextPageToken string `json:"nextPageToken,omitempty"`
	}
	problem struct { // RFC 9457
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail,omitempty"`
	}
)

func userOf(u *authv1.User) user {
	return user{ID: u.GetId(), Email: u.GetEmail(), Name: u.GetName(), Role: name("ROLE_", u.GetRole().String()), Created: u.GetCreated().AsTime()}
}

func (c content) proto() *offerv1.Content {
	return &offerv1.Content{Title: c.Title, Description: c.Description, Location: c.Location, Weeks: c.Weeks, Places: c.Places}
}

func offerOf(o *offerv1.Offer) offer {
	c := o.GetContent()
	return offer{
		ID: o.GetId(), CompanyID: o.GetCompanyId(), Deleted: o.GetDeleted(), Created: o.GetCreated().AsTime(),
		change: change{
			content: content{Title: c.GetTitle(), Description: c.GetDescription(), Location: c.GetLocation(), Weeks: c.GetWeeks(), Places: c.GetPlaces()},
			Version: o.GetVersion(),
		},
	}
}

func applicationOf(a *applicationv1.Application) application {
	return application{
		ID: a.GetId(), OfferID: a.GetOfferId(), CompanyID: a.GetCompanyId(), StudentID: a.GetStudentId(),
		Motivation: a.GetMotivation(), Status: name("STATUS_", a.GetStatus().String()), Created: a.GetCreated().AsTime(),
	}
}

// each converts a list; an empty one is [] and not null.
func each[P, T any](in []P, convert func(P) T) []T {
	out := make([]T, 0, len(in))
	for _, p := range in {
		out = append(out, convert(p))
	}
	return out
}

// name returns the name of an enum's value as the API has it: student for
// ROLE_STUDENT.
func name(prefix, value string) string { return strings.ToLower(strings.TrimPrefix(value, prefix)) }

// roleNamed and statusNamed are the other way round; unspecified for a name
// that does not exist.
func roleNamed(name string) authv1.Role {
	return authv1.Role(authv1.Role_value["ROLE_"+strings.ToUpper(name)])
}

func statusNamed(name string) applicationv1.Status {
	return applicationv1.Status(applicationv1.Status_value["STATUS_"+strings.ToUpper(name)])
}

// readJSON reads a body strictly. Its size is bounded before, by [limitBody].
func readJSON(r *http.Request, into any) error {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return status.Error(codes.InvalidArgument, "Content-Type: is not application/json")
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return status.Error(codes.InvalidArgument, "body: "+strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return status.Error(codes.InvalidArgument, "body: more than one JSON value")
	}
	return nil
}

func writeJSON(w http.ResponseWriter, code int, body any) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	if _, ok := body.(problem); ok {
		h.Set("Content-Type", "application/problem+json")
	}
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	w.WriteHeader(code)
	if body != nil {
		_ = json.NewEncoder(w).Encode(body) // a client that went away
	}
}

// The status codes of HTTP for those of gRPC; whatever is missing is 500.
var httpCodes = map[codes.Code]int{
	codes.InvalidArgument:    http.StatusBadRequest,
	codes.Unauthenticated:    http.StatusUnauthorized,
	codes.PermissionDenied:   http.StatusForbidden,
	codes.NotFound:           http.StatusNotFound,
	codes.AlreadyExists:      http.StatusConflict,
	codes.Aborted:            http.StatusConflict,
	codes.FailedPrecondition: http.StatusConflict,
	codes.ResourceExhausted:  http.StatusTooManyRequests,
	codes.Canceled:           499, // the client went away
	codes.DeadlineExceeded:   http.StatusGatewayTimeout,
	codes.Unavailable:        http.StatusServiceUnavailable,
}

// problemOf says to a client what went wrong. What is not its business, which
// is all but its own mistakes, is not in it.
func problemOf(err error) (int, problem) {
	s := status.Convert(err)
	code, ok := httpCodes[s.Code()]
	if !ok {
		code = http.StatusInternalServerError
	}
	p := problem{Title: http.StatusText(code), Status: code, Detail: s.Message()}
	if code >= http.StatusInternalServerError {
		p.Detail = ""
	}
	return code, p
}
