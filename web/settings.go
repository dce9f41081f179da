package web

import (
	"net/http"

	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/web/rest"
)

type settingsData struct {
	Settings []config.Setting
	JSON     string
}

func (s *Server) settingsPage(w http.ResponseWriter, r *http.Request) error {
	return s.show(w, r, "settings", "Settings", settingsData{s.Settings(), "/api/v1/settings"})
}

func (s *Server) getSettings(w http.ResponseWriter, _ *http.Request) error {
	return rest.WriteJSON(w, http.StatusOK, rest.Items(s.Settings(), ""))
}
