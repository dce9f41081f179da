package evidence

import (
	"context"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/evidence/repository"
)

// A Repository is what was seen in a source folder.
type Repository struct {
	Origin
	*repository.Tree
}

// sourceFolder reads a source folder, which is known by the address of its
// remote, else by its own name.
func sourceFolder(ctx context.Context, folder string) (*Set, error) {
	tree, err := repository.Read(ctx, folder)
	if err != nil {
		return nil, err
	}
	if tree.Remote != "" {
		tree.Name = RepositoryName(tree.Remote)
	}
	r := Repository{Origin{Kind: Repo, Tool: "kubeguardian", Source: folder, SeenAt: time.Now().UTC()}, tree}
	return &Set{Repositories: []Repository{r}}, nil
}

// Is reports whether a name, "host/owner/name" or a part of it from the right,
// is that of the repository. A folder without a remote goes by its own name.
func (r *Repository) Is(name string) bool {
	mine, name := "/"+strings.ToLower(r.Name), "/"+strings.ToLower(name)
	return strings.HasSuffix(mine, name) || r.Remote == "" && strings.HasSuffix(name, mine)
}
