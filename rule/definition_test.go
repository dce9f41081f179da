package rule_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/rule"
)

func TestDefinitions(t *testing.T) {
	const base = `
- list: verbs
  items: [get, list]
- rule: Reads
  desc: somebody reads
  condition: ka.verb in (verbs)
  output: "%ka.user.name reads"
  priority: NOTICE
  source: k8s_audit
  exceptions:
    - name: controllers
      fields: [ka.user.name, ka.verb]
      comps: [startswith, in]
      values:
        - ["system:", [get]]
    - name: nobody
      fields: ka.user.name
`
	const later = `
- rule: Reads
  condition: and ka.target.resource = secrets
  override: {condition: append}
`
	least := alert.Warning
	set, results := rule.Options{Minimum: &least}.Load(rule.File{Name: "a.yaml", Data: []byte(base)}, rule.File{Name: "b.yaml", Data: []byte(later)})
	if set == nil {
		t.Fatal(rule.Mistakes(results))
	}
	d := set.Definitions()[0]
	if d.Name != "Reads" || !d.Enabled || d.Live || d.Output != "%ka.user.name reads" {
		t.Errorf("definition %+v", d)
	}
	if have := strings.Join(strings.Fields(d.Condition), " "); have != "(ka.verb in ( get, list ) and ka.target.resource = secrets) and not ((ka.user.name startswith system: and ka.verb in (get)))" {
		t.Errorf("condition %q", have)
	}
	want := "[controllers: ka.user.name, ka.verb by startswith, in: (system:; [get]) nobody: ka.user.name by in: no values]"
	if have := fmt.Sprint(d.Exceptions); have != want {
		t.Errorf("exceptions %s\nwant       %s", have, want)
	}
}
