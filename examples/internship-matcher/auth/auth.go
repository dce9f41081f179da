// Package auth is the service that knows who people are: it keeps accounts and
// signs logins.
package auth

import (
	"context"
	"embed"
	"errors"
	"io/fs"
	"net/mail"
	"runtime"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/api/authv1"
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
		Name: "auth",
		Callers: map[string][]string{
			authv1.Auth_Register_FullMethodName: gateway,
			authv1.Auth_Login_FullMethodName:    gateway,
			authv1.Auth_Validate_FullMethodName: gateway,
		},
		Open:       []string{authv1.Auth_Register_FullMethodName, authv1.Auth_Login_FullMethodName, authv1.Auth_Validate_FullMethodName},
		Migrations: files,
		Register: func(server grpc.ServiceRegistrar, with service.Resources) error {
			signer, err := token.NewSigner(with.Settings.SigningKey)
			if err != nil {
				return err
			}
			authv1.RegisterAuthServer(server, &auth{
				users: store{with.Database}, signer: signer, verifier: with.Tokens, hasher: newHasher(min(runtime.GOMAXPROCS(0), 4)),
			})
			return nil
		},
	}
}

type auth struct {
	authv1.UnimplementedAuthServer
	users    store
	signer   *token.Signer
	verifier *token.Verifier
	hasher   hasher
}

// The roles of the API and their names in tokens and in the database.
var roles = map[authv1.Role]string{
	authv1.Role_ROLE_STUDENT: "student",
	authv1.Role_ROLE_COMPANY: "company",
	authv1.Role_ROLE_ADMIN:   "admin",
}

func role(name string) authv1.Role {
	for role, n := range roles {
		if n == name {
			return role
		}
	}
	return authv1.Role_ROLE_UNSPECIFIED
}

func (a *auth) Register(ctx context.Context, req *authv1.RegisterRequest) (*authv1.RegisterResponse, error) {
	if err := checkRegistration(req); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	hash, err := a.hasher.hash(ctx, req.GetPassword())
	if err != nil {
		return nil, err
	}
	u := user{ID: uuid.NewString(), Email: req.GetEmail(), Name: req.GetName(), Role: roles[req.GetRole()], Password: hash}
	created, err := a.users.add(ctx, u)
	switch {
	case errors.Is(err, errTaken):
		return nil, status.Error(codes.AlreadyExists, "this address has an account already")
	case err != nil:
		return nil, err
	}
	return &authv1.RegisterResponse{User: created.proto()}, nil
}

func checkRegistration(req *authv1.RegisterRequest) error {
	if err := checkEmail(req.GetEmail()); err != nil {
		return err
	}
	if n := utf8.RuneCountInString(req.GetPassword()); n < 12 || n > 128 {
		return errors.New("password: needs 12 to 128 characters")
	}
	if n := utf8.RuneCountInString(strings.TrimSpace(req.GetName())); n < 1 || n > 100 {
		return errors.New("name: needs 1 to 100 characters")
	}
	if r := req.GetRole(); r != authv1.Role_ROLE_STUDENT && r != authv1.Role_ROLE_COMPANY {
		return errors.New("role: is student or company")
	}
	return nil
}

func checkEmail(email string) error {
	address, err := mail.ParseAddress(email)
	if err != nil || address.Address != email || len(email) > 254 {
		return errors.New("email: is not an address")
	}
	return nil
}

func (a *auth) Login(ctx context.Context, req *authv1.LoginRequest) (*authv1.LoginResponse, error) {
	wrong := status.Error(codes.Unauthenticated, "wrong address or password")
	if checkEmail(req.GetEmail()) != nil || len(req.GetPassword()) > 4*128 {
		return nil, wrong
	}
	switch tries, err := a.users.failures(ctx, req.GetEmail()); {
	case err != nil:
		return nil, err
	case tries >= maxFailures:
		return nil, status.Error(codes.ResourceExhausted, "too many wrong passwords for this address; try again later")
	}
	u, err := a.users.byEmail(ctx, req.GetEmail())
	if err != nil && !errors.Is(err, errNone) {
		return nil, err
	}
	ok, err := a.hasher.matches(ctx, req.GetPassword(), u.Password)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		if err := a.users.failed(ctx, req.GetEmail()); err != nil {
			return nil, err
		}
		return nil, wrong
	}
	if err := a.users.succeeded(ctx, req.GetEmail()); err != nil {
		return nil, err
	}
	signed, expires, err := a.signer.Sign(token.User{ID: u.ID, Role: u.Role}, time.Now())
	if err != nil {
		return nil, err
	}
	return &authv1.LoginResponse{Token: signed, Expires: timestamppb.New(expires), User: u.proto()}, nil
}

func (a *auth) Validate(ctx context.Context, req *authv1.ValidateRequest) (*authv1.ValidateResponse, error) {
	refused := status.Error(codes.Unauthenticated, "the login is not valid, or no longer")
	of, expires, err := a.verifier.Verify(req.GetToken())
	if err != nil {
		return nil, refused
	}
	u, err := a.users.byID(ctx, of.ID)
	switch {
	case errors.Is(err, errNone):
		return nil, refused
	case err != nil:
		return nil, err
	}
	return &authv1.ValidateResponse{User: u.proto(), Expires: timestamppb.New(expires)}, nil
}
