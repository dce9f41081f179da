package web

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/web/rest"
)

var errFormat = errors.New("parameter format: want json or openreports")

// The days that are looked back on.
const (
	readinessDays    = 7
	maxReadinessDays = 366
)

var readinessParams = []string{"days", "after", "limit"}

// A readinessPage is a page of the policies that do not deny, those that would
// have denied most first.
type readinessPage struct {
	Days  int                 `json:"days"`
	Since time.Time           `json:"since,omitzero"` // when counting began
	Items []finding.Readiness `json:"items"`
	Next  string              `json:"next,omitempty"`
}

func (s *Server) readiness(r *http.Request, p *rest.Params) (page readinessPage, err error) {
	page.Days = cmp.Or(int(rest.Value(p, "days", rest.ParseNatural)), readinessDays)
	after := int(rest.Value(p, "after", rest.ParseNatural))
	limit := min(cmp.Or(int(rest.Value(p, "limit", rest.ParseNatural)), rest.PageSize), rest.MaxPageSize)
	if page.Days > maxReadinessDays {
		p.Fail(fmt.Errorf("parameter days: want %d or less", maxReadinessDays))
	}
	if p.Err != nil {
		return page, p.Err
	}
	all, since, err := s.Readiness(r.Context(), page.Days)
	if err != nil {
		return page, err
	}
	page.Since, page.Items = since, []finding.Readiness{}
	if after < len(all) {
		page.Items = append(page.Items, all[after:min(after+limit, len(all))]...)
	}
	if after+limit < len(all) {
		page.Next = strconv.Itoa(after + limit)
	}
	return page, nil
}

func (s *Server) getReadiness(w http.ResponseWriter, r *http.Request) error {
	page, err := s.readiness(r, rest.Parse(r.URL, readinessParams...))
	if err != nil {
		return err
	}
	return rest.WriteJSON(w, http.StatusOK, page)
}

type readinessData struct {
	readinessPage
	Short             bool // counting began later than the days that are asked for
	Query             url.Values
	Windows           []window
	First, More, JSON string
}

// readinessPage shows what policies that do not deny would have denied.
func (s *Server) readinessPage(w http.ResponseWriter, r *http.Request) error {
	p := rest.Parse(r.URL, readinessParams...)
	page, err := s.readiness(r, p)
	if err != nil {
		return err
	}
	data := readinessData{
		readinessPage: page, Query: p.Values, JSON: rest.With("/api/v1/admission/readiness", p.Values),
		Windows: []window{{"1", "today"}, {"7", "7 days"}, {"14", "14 days"}, {"30", "30 days"}},
	}
	data.Short = time.Since(page.Since) < time.Duration(page.Days)*24*time.Hour
	data.First, data.More = rest.Steps("/readiness", p, page.Next)
	return s.show(w, r, "readiness", "Policy readiness", data)
}
