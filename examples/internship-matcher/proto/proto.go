// Package proto holds the contracts between the services, one folder for each
// service and version. Their Go code is in api; it needs protoc 3.21 or later.
package proto

//go:generate sh -c "cd .. && protoc -I proto --plugin=protoc-gen-go=$(go tool -n protoc-gen-go) --plugin=protoc-gen-go-grpc=$(go tool -n protoc-gen-go-grpc) --go_out=. --go_opt=module=github.com/kubeguardian/kubeguardian/examples/internship-matcher --go-grpc_out=. --go-grpc_opt=module=github.com/kubeguardian/kubeguardian/examples/internship-matcher proto/auth/v1/auth.proto proto/offer/v1/offer.proto proto/application/v1/application.proto"
