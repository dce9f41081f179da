package evidence

import "github.com/kubeguardian/kubeguardian/evidence/terraform"

// A Plan is what a Terraform plan or state says of a cloud.
type Plan struct {
	Origin
	*terraform.Plan
}

// terraformPlan reads the output of terraform show -json.
func terraformPlan(d document) (*Set, error) {
	read, err := terraform.Read(d.data)
	if err != nil {
		return nil, d.errorf(0, "%v", err)
	}
	p := Plan{Origin{Kind: IaC, Tool: "Terraform " + read.Version, Source: d.name, SeenAt: read.Time}, read}
	if read.State {
		p.Kind = Cloud
	}
	return &Set{Plans: []Plan{p}}, nil
}

// Place returns where something is said: file and address.
func (p *Plan) Place(address string) string { return p.Source + ": " + address }
