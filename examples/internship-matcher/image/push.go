package image

import (
	"context"
	"fmt"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Push puts an image into its registry, with the credentials of "docker login".
func (i *Image) Push(ctx context.Context) error {
	if err := remote.Write(i.Tag, i.OCI, options(ctx)...); err != nil {
		return fmt.Errorf("push %s: %w", i.Tag, err)
	}
	return nil
}

func options(ctx context.Context) []remote.Option {
	return []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)}
}
