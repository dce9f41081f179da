package web

import (
	"database/sql"
	"encoding/csv"
	"encoding/json"
	"html"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
)

func TestLookupPages(t *testing.T) {
	s := newSite(t, full(t))
	s.join(t, "one", "system:anonymous")
	v := s.member(t)
	for _, tt := range []struct {
		name, path string
		want, not  []string
	}{
		{"search", "/search?q=offer-service-12", []string{`href="/entity/pod/shop/offer-service-12"`, `href="/entity/pod/shop/offer-service-129"`, "Failing findings", "/api/v1/search?q=offer-service-12"}, []string{"Nothing that is kept", "{{"}},
		{"search of a rule", "/search?q=never+matched", []string{`href="/rules/Never%20matched"`}, nil},
		{"search of a policy", "/search?q=latest-tag", []string{`href="/policies?text=latest-tags"`}, nil},
		{"search of an incident", "/search?q=anonymous", []string{"/incidents/one", `href="/entity/user/system:anonymous"`}, nil},
		{"nothing found", "/search?q=none-of-this", []string{"Nothing that is kept holds"}, nil},
		{"nothing asked", "/search", []string{"Type a part of a name"}, nil},
		{"pod", "/entity/pod/shop/offer-service-128", []string{testAlert(128).ID, "Exec into pod", "What makes it vulnerable", "Privileged containers", `href="/entity/user/developer@example.com"`, "entity=pod%3Ashop%2Foffer-service-128"}, []string{testAlert(127).ID}},
		{"pod of a decision", "/entity/pod/shop/debug-0", []string{"container shell is privileged", "out-denied"}, nil},
		{"user", "/entity/user/system:anonymous", []string{"/incidents/one", "Anonymous request", "Seen with it"}, []string{"Exec into pod"}},
		{"workload", "/entity/workload/Deployment/shop/offer-service-04", []string{"offer-service-04", "Seen with it"}, nil},
		{"nobody", "/entity/user/nobody", []string{"No alert and no admission request"}, nil},
		{"name that a path would change", "/entity/object/a%2F%2Fb%2F..", []string{"a//b/.."}, nil},
		{"alerts of an entity", "/alerts?entity=user:system:anonymous", []string{"Anonymous request", `value="user:system:anonymous"`, "entity=user%3Asystem%3Aanonymous"}, []string{"Exec into pod"}},
		{"rules", "/rules", []string{"5 loaded, 1 silent", "Never matched", "it is disabled", ">33<", "/api/v1/export/rules?format=csv"}, []string{"{{"}},
		{"silent rules", "/rules?state=silent", []string{"Never matched", "1 of this filter"}, []string{"Secrets listed"}},
		{"rules by tag", "/rules?text=mitre_exec&source=syscall", []string{"No rule matches"}, nil},
		{"rules in pages", "/rules?limit=2&after=2", []string{"← first", "more →"}, nil},
		{"rule", "/rules/Secrets%20listed", []string{"ka.verb = create and", "controllers: ka.user.name", "33 stored", testAlert(129).ID, "kubernetes_audit.yaml:11"}, []string{testAlert(128).ID}},
		{"rule that is silent", "/rules/Never%20matched", []string{"it is disabled", "No alert of it is stored"}, nil},
		{"policies", "/policies", []string{"latest-tags", ">80<", ">30<", "rego does not parse", "nobody"}, []string{"{{"}},
		{"mistaken policies", "/policies?state=mistaken", []string{"k8sownedworkload"}, []string{"privileged"}},
		{"alert", "/alerts/" + testAlert(1).ID, []string{`href="/rules/Secrets%20listed"`, `href="/entity/address/10.0.3.1"`}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, body := v.get(tt.path)
			if code != http.StatusOK {
				t.Fatalf("%d: %s", code, body)
			}
			checkText(t, body, tt.want, tt.not)
		})
	}
	for path, want := range map[string]int{
		"/entity/ghost/x": 404, "/entity/pod/": 404, "/rules/none": 404, "/rules?state=odd": 400, "/policies?state=odd": 400, "/alerts?entity=x": 400,
		"/entity/pod/" + strings.Repeat("x", 600): 404, "/search?q=" + strings.Repeat("x", 600): 400,
	} {
		if code, body := v.get(path); code != want {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}

func TestLookupAPI(t *testing.T) {
	s := newSite(t, full(t))
	code, found := s.bearer(t, "/api/v1/search?q=10.0.3.77", testToken)
	if entities := found["entities"].([]any); code != 200 || len(entities) != 1 || entities[0].(map[string]any)["kind"] != "address" || len(found["alerts"].([]any)) != 1 {
		t.Errorf("search: %d %v", code, found)
	}
	code, e := s.bearer(t, "/api/v1/entity/pod/shop/offer-service-77", testToken)
	if code != 200 || e["name"] != "shop/offer-service-77" || len(e["alerts"].([]any)) != 1 || len(e["seenWith"].([]any)) != 3 {
		t.Errorf("entity: %d %v", code, e)
	}
	code, r := s.bearer(t, "/api/v1/rules/Exec%20into%20pod", testToken)
	if code != 200 || r["count"] != 33.0 || r["condition"] == "" {
		t.Errorf("rule: %d %v", code, r)
	}
	if code, page := s.bearer(t, "/api/v1/rules?limit=2&state=on", testToken); code != 200 || page["next"] != "2" || len(page["items"].([]any)) != 2 {
		t.Errorf("rules: %d %v", code, page)
	}
}

// TestExport: all of a list by its filters, in both formats, and no cell that a
// spreadsheet runs.
func TestExport(t *testing.T) {
	s := newSite(t, full(t))
	hostile := testAlert(400)
	hostile.Rule, hostile.Output = `=HYPERLINK("http://192.0.2.1","x")`, "+1,\"2\"\n3"
	hostile.OutputFields["ka.user.name"] = "@SUM(A1)"
	hostile.Subject.Name = "-x"
	s.add(t, hostile)
	var many []alert.Alert
	for i := range 2100 { // more than two pages
		a := testAlert(1000 + 4*i)
		a.Time = a.Time.Add(-24 * time.Hour)
		many = append(many, a)
	}
	s.add(t, many...)
	v := s.member(t)
	for list, want := range map[string]int{
		"alerts": 131 + 2100, "alerts?rule=Secrets+listed": 33, "decisions": 60, "decisions?outcome=denied": 15, "findings?status=fail": 53,
		"audit": 89, "readiness": 3, "actions": 1, "rules": 5, "policies": 3, "incidents": 0, "alerts?entity=pod:shop/offer-service-7": 1,
	} {
		path := "/api/v1/export/" + list + map[bool]string{true: "&", false: "?"}[strings.Contains(list, "?")]
		code, text := v.get(path + "format=csv")
		rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
		if code != http.StatusOK || err != nil || len(rows) != want+1 {
			t.Errorf("%s: %d, %d rows, want %d: %v", list, code, len(rows)-1, want, err)
		}
		for _, row := range rows {
			if len(row) != len(rows[0]) {
				t.Errorf("%s: %d cells below %d names", list, len(row), len(rows[0]))
			}
			for _, cell := range row {
				if cell != "" && strings.ContainsAny(cell[:1], "=+-@\t\r\n") {
					t.Errorf("%s: a spreadsheet runs %q", list, cell)
				}
			}
		}
		var all []json.RawMessage
		code, text = v.get(path + "format=json")
		if err := json.Unmarshal([]byte(text), &all); code != http.StatusOK || err != nil || len(all) != want {
			t.Errorf("%s: %d, %d records, want %d: %v", list, code, len(all), want, err)
		}
	}
	_, text := v.get("/api/v1/export/alerts?format=csv&text=HYPERLINK")
	checkText(t, text, []string{`"'=HYPERLINK(""http://192.0.2.1"",""x"")"`, "'@SUM(A1)"}, nil)
	resp, err := v.Get(s.url + "/api/v1/export/rules?format=csv")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if have := resp.Header.Get("Content-Disposition"); have != `attachment; filename="rules.csv"` {
		t.Errorf("disposition %q", have)
	}
	for path, want := range map[string]int{"none": 404, "alerts?format=xml": 400, "alerts?limit=5": 400, "alerts?before=x": 400, "rules?state=odd": 400, "findings?status=odd": 400} {
		if code, body := v.get("/api/v1/export/" + path); code != want {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if code, _ := s.visitor(t).get("/api/v1/export/alerts"); code != http.StatusUnauthorized {
		t.Errorf("without a login: %d", code)
	}
}

// TestExportBreaksOff: who gets a part is not told that it is the whole.
func TestExportBreaksOff(t *testing.T) {
	s := newSite(t, full(t))
	var many []alert.Alert
	for i := range 1500 {
		a := testAlert(1000 + i)
		a.Time = a.Time.Add(-24 * time.Hour)
		many = append(many, a)
	}
	s.add(t, many...)
	db, err := sql.Open("sqlite", s.file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("UPDATE alerts SET body = '{' WHERE id = ?", many[0].ID); err != nil { // on the second page
		t.Fatal(err)
	}
	v := s.member(t)
	resp, err := v.Get(s.url + "/api/v1/export/alerts")
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Errorf("a list without its second page is whole: %v", resp.Status)
	}
	if !strings.Contains(s.log.String(), "export broken off") {
		t.Errorf("the log says %s", s.log)
	}
}

func TestEntityLink(t *testing.T) {
	s := newSite(t)
	v := s.member(t)
	for _, name := range []string{"shop/web-0", "a//b", "/", "a/../b", "a b?c#d%2F", "system:serviceaccount:shop:web", "2001:db8::1", "registry.example.com:5000/x@sha256:1"} {
		if code, body := v.get(entityLink(alert.Object, name)); code != http.StatusOK || !strings.Contains(body, `<h1 class="break">`+html.EscapeString(name)+"</h1>") {
			t.Errorf("%q leads to %d", name, code)
		}
	}
}
