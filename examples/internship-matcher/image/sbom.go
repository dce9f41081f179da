package image

import (
	"bytes"
	"net/url"
	"time"

	"github.com/CycloneDX/cyclonedx-go"
	"github.com/google/uuid"
)

// SBOM lists what is in the image, in the JSON form of CycloneDX: the modules
// that the compiler says are in the binary, and Go's standard library. The same
// image has the same list.
func (i *Image) SBOM() ([]byte, error) {
	root := "image"
	var components []cyclonedx.Component
	var refs []string
	for _, m := range i.modules() {
		c := cyclonedx.Component{BOMRef: m.purl(), Type: cyclonedx.ComponentTypeLibrary, Name: m.path, Version: m.version, PackageURL: m.purl()}
		components, refs = append(components, c), append(refs, c.BOMRef)
	}
	bom := cyclonedx.NewBOM()
	bom.SerialNumber = uuid.NewSHA1(uuid.NameSpaceOID, []byte(i.Digest.String())).URN()
	bom.Metadata = &cyclonedx.Metadata{
		Tools: &cyclonedx.ToolsChoice{Components: &[]cyclonedx.Component{{Type: cyclonedx.ComponentTypeApplication, Name: "cmd/images"}}},
		Component: &cyclonedx.Component{
			BOMRef: root, Type: cyclonedx.ComponentTypeContainer,
			Name: i.Tag.Context().Name(), Version: i.Digest.String(), PackageURL: i.purl(),
		},
	}
	if _, created := i.Commit(); !created.IsZero() {
		bom.Metadata.Timestamp = created.Format(time.RFC3339)
	}
	bom.Components = &components
	bom.Dependencies = &[]cyclonedx.Dependency{{Ref: root, Dependencies: &refs}}
	var b bytes.Buffer
	err := cyclonedx.NewBOMEncoder(&b, cyclonedx.BOMFileFormatJSON).SetPretty(true).SetEscapeHTML(false).EncodeVersion(bom, cyclonedx.SpecVersion1_6)
	return b.Bytes(), err
}

// purl names the image as package URLs do.
func (i *Image) purl() string {
	query := url.Values{"arch": {i.Arch}, "repository_url": {i.Tag.Context().Name()}, "tag": {i.Tag.TagStr()}}
	return "pkg:oci/" + i.Name + "@" + url.PathEscape(i.Digest.String()) + "?" + query.Encode()
}

// A module is one whose code is in a binary; sum is its hash as in go.sum, "" for
// the standard library.
type module struct{ path, version, sum string }

func (m module) purl() string { return "pkg:golang/" + m.path + "@" + url.PathEscape(m.version) }

func (i *Image) modules() []module {
	modules := []module{{path: "stdlib", version: i.Binary.GoVersion[len("go"):]}}
	for _, m := range i.Binary.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		modules = append(modules, module{m.Path, m.Version, m.Sum})
	}
	return modules
}
