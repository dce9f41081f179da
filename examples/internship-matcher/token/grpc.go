package token

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const header = "authorization"

// Require lets only logged-in people call the methods of a server, but for the
// open ones, and puts the caller into the context.
func Require(v *Verifier, open ...string) grpc.UnaryServerInterceptor {
	free := map[string]bool{}
	for _, method := range open {
		free[method] = true
	}
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if free[info.FullMethod] {
			return handler(ctx, req)
		}
		token, ok := Bearer(first(metadata.ValueFromIncomingContext(ctx, header)))
		if !ok {
			return nil, status.Error(codes.Unauthenticated, "log in first")
		}
		user, _, err := v.Verify(token)
		if err != nil {
			return nil, status.Error(codes.Unauthenticated, "the login is not valid, or no longer")
		}
		return handler(With(ctx, Caller{User: user, Token: token}), req)
	}
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// Forward sends the caller's token along with every call.
func Forward(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if token := From(ctx).Token; token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, header, "Bearer "+token)
	}
	return invoke(ctx, method, req, reply, cc, opts...)
}
