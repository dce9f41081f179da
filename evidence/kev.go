package evidence

import "strings"

// An Exploited is a catalogue of vulnerabilities that were seen in real attacks.
type Exploited struct {
	Origin
	IDs map[string]bool
}

func isKEV(h head) bool { return h.has("catalogVersion", "vulnerabilities") }

// kev reads the catalogue of known exploited vulnerabilities in the JSON form
// that CISA publishes.
func kev(d document) (*Set, error) {
	var c struct {
		Version         string `json:"catalogVersion"`
		Released        string `json:"dateReleased"`
		Vulnerabilities []struct {
			ID string `json:"cveID"`
		} `json:"vulnerabilities"`
	}
	if err := d.json(&c); err != nil {
		return nil, err
	}
	e := Exploited{Origin: Origin{Kind: Image, Tool: tool("KEV", c.Version), Source: d.name, SeenAt: instant(c.Released)}, IDs: map[string]bool{}}
	for _, v := range c.Vulnerabilities {
		if strings.HasPrefix(v.ID, "CVE-") {
			e.IDs[v.ID] = true
		}
	}
	if len(e.IDs) == 0 {
		return nil, d.errorf(0, "the catalogue lists no vulnerability")
	}
	return &Set{Exploited: []Exploited{e}}, nil
}
