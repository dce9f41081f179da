// Package dashboard has the dashboards of the chart, for Grafana. Its test writes
// them into the chart, and compares.
package dashboard

// A Dashboard is one page of Grafana.
type Dashboard struct {
	Name        string // of the file, and in Grafana's addresses
	Title       string
	Description string
	Rows        []Row
}

// A Row is a part of a dashboard with a title.
type Row struct {
	Title  string
	Panels []Panel
}

// A Panel shows what some queries return.
type Panel struct {
	Title       string
	Description string
	Unit        string   // as Grafana names it
	Stat        bool     // the last value in place of a curve
	Bad         *float64 // of a Stat: from which value on it is red
	Least       *float64 // of a curve: where the axis begins
	Queries     []Query
}

// A Query is an expression of PromQL, and what its series are called.
type Query struct{ Expr, Legend string }

// All are the dashboards of the chart.
func All() []Dashboard { return []Dashboard{overview(), pipeline(), nodes()} }

// stat shows one value, red from bad on.
func stat(title, unit, expr string, bad *float64, description string) Panel {
	return Panel{Title: title, Description: description, Unit: unit, Stat: true, Bad: bad, Queries: []Query{{Expr: expr}}}
}

// curve shows series over time, from zero.
func curve(title, unit, description string, queries ...Query) Panel {
	return Panel{Title: title, Description: description, Unit: unit, Least: new(0.0), Queries: queries}
}

// quantiles are queries for the times of a histogram.
func quantiles(metric string) []Query {
	bucket := "sum by (le) (rate(" + metric + "_bucket[$__rate_interval]))"
	return []Query{
		{"histogram_quantile(0.5, " + bucket + ")", "half"},
		{"histogram_quantile(0.99, " + bucket + ")", "99 of 100"},
	}
}

// rate is a query for how often something happens each second.
func rate(metric, by string) Query {
	if by == "" {
		return Query{"sum(rate(" + metric + "[$__rate_interval]))", "all"}
	}
	return Query{"sum by (" + by + ") (rate(" + metric + "[$__rate_interval]))", "{{" + by + "}}"}
}

func overview() Dashboard {
	return Dashboard{
		Name: "kubeguardian-overview", Title: "KubeGuardian: overview", Description: "How secure the cluster is, and whether everything that should look does.",
		Rows: []Row{
			{"Does it see?", []Panel{
				stat("Admission", "none", "max(kubeguardian_admission_blind)", new(1.0), "1 while the API server does not ask the webhook."),
				stat("Registered", "none", "1 - min(kubeguardian_admission_webhook_registered)", new(1.0), "1 while the webhook is not registered as it should be."),
				stat("Audit log", "none", "max(kubeguardian_audit_blind)", new(1.0), "1 while requests do not appear in the audit log."),
				stat("Break-glass", "none", "max(kubeguardian_admission_break_glass)", new(1.0), "1 while denials only warn."),
				stat("Rules refused", "none", "max(kubeguardian_rules_refused)", new(1.0), "1 while changed rule files are refused."),
				stat("Last scan", "s", "time() - max(kubeguardian_last_scan_timestamp_seconds)", new(3600.0), "How long ago the cluster was scanned."),
			}},
			{"Posture", []Panel{
				curve("Score", "none", "0 to 100.", Query{"max(kubeguardian_score_total_points)", "total"}),
				curve("Score by level", "none", "0 to 20 each.", Query{"max by (level) (kubeguardian_score_points)", "{{level}}"}),
				curve("Verified", "percentunit", "Share of each level that could be verified.", Query{"max by (level) (kubeguardian_score_coverage_ratio)", "{{level}}"}),
				curve("Failures", "none", "Findings of the last scan that fail.", Query{`sum by (severity) (kubeguardian_findings{status="fail"})`, "{{severity}}"}),
				curve("Violations of policies", "none", "Objects in the cluster that violate a policy in force.", Query{"sum by (enforcement) (kubeguardian_audit_violations)", "{{enforcement}}"}),
				curve("Policies", "none", "In force or not.", Query{"sum by (kind, in_force) (kubeguardian_policies)", "{{kind}} {{in_force}}"}),
			}},
			{"What happens", []Panel{
				curve("Alerts", "ops", "Alerts stored, each second.", rate("kubeguardian_alerts_total", "priority")),
				curve("Loudest rules", "ops", "Rules with the most alerts.", Query{"topk(10, sum by (rule) (rate(kubeguardian_alerts_total[$__rate_interval])))", "{{rule}}"}),
				curve("Incidents", "none", "In an hour.", Query{"sum by (event) (increase(kubeguardian_incidents_total[1h]))", "{{event}}"}),
			}},
		},
	}
}

func pipeline() Dashboard {
	return Dashboard{
		Name: "kubeguardian-pipeline", Title: "KubeGuardian: pipeline", Description: "What passes through each stage of the server, how long it takes, what waits and what is lost.",
		Rows: []Row{
			{"Admission", []Panel{
				curve("Decisions", "reqps", "Requests decided.", rate("kubeguardian_admission_decisions_total", "decision")),
				curve("Time to decide", "s", "The API server waits for it.", quantiles("kubeguardian_admission_duration_seconds")...),
				curve("No verdict, or not recorded", "ops", "Both should be nothing.", rate("kubeguardian_admission_unjudged_total", "cause"), Query{"sum(rate(kubeguardian_admission_decisions_lost_total[$__rate_interval]))", "not recorded"}),
				curve("Decisions that wait", "none", "To be stored.", Query{"sum(kubeguardian_admission_decisions_queued)", "decisions"}),
				curve("Evaluations that run away", "none", "Functions that cannot be stopped after their time.", Query{"sum(kubeguardian_admission_runaway_evaluations)", "evaluations"}),
			}},
			{"Detection", []Panel{
				curve("Audit events", "ops", "Events that rules were asked about.", rate("kubeguardian_audit_events_total", "")),
				curve("Time for a batch", "s", "To match its events and to store the alerts.", quantiles("kubeguardian_audit_batch_duration_seconds")...),
				curve("Refused", "ops", "Batches, which the API server sends again, and items that are no events.", rate("kubeguardian_audit_batches_rejected_total", "cause"), Query{"sum(rate(kubeguardian_audit_events_malformed_total[$__rate_interval]))", "malformed events"}),
				curve("Delay of the audit log", "s", "From a request of our own until it was seen.", quantiles("kubeguardian_audit_delay_seconds")...),
				curve("Delay of alerts", "s", "From an event until its alert was stored.", quantiles("kubeguardian_alert_delay_seconds")...),
				curve("Repeats", "ops", "Alerts counted in one that says the same.", rate("kubeguardian_alerts_repeated_total", "priority")),
				curve("Alerts that wait", "none", "To be joined into incidents.", Query{"max(kubeguardian_alerts_unjoined)", "alerts"}),
			}},
			{"Store and scan", []Panel{
				curve("Time to store", "s", "99 of 100.", Query{"histogram_quantile(0.99, sum by (le, what) (rate(kubeguardian_store_write_duration_seconds_bucket[$__rate_interval])))", "{{what}}"}),
				curve("Failures of the store", "ops", "Audit events are refused meanwhile.", rate("kubeguardian_store_failures_total", "")),
				curve("Time of a scan", "s", "Of the whole cluster.", quantiles("kubeguardian_scan_duration_seconds")...),
				curve("Scans", "ops", "By their result.", rate("kubeguardian_scans_total", "result")),
			}},
			{"Many clusters", []Panel{
				stat("Silent clusters", "none", "count(max by (reporting) (kubeguardian_cluster_silent) == 1) or vector(0)", new(1.0), "On a hub: those of which nobody says what happens there."),
				stat("Connected to the hub", "none", "max(kubeguardian_hub_connected)", nil, "On a cluster: 1 while it is."),
				curve("Lag of clusters", "s", "On a hub: the age of the oldest alert that it does not have yet.", Query{"max by (reporting) (kubeguardian_cluster_lag_seconds)", "{{reporting}}"}),
				curve("Alerts of clusters", "ops", "On a hub: stored, each second.", rate("kubeguardian_cluster_alerts_received_total", "reporting")),
				curve("Lag behind the hub", "s", "On a cluster: the age of the oldest alert that its hub does not have yet.", Query{"max(kubeguardian_hub_lag_seconds)", "lag"}),
			}},
			{"The process", []Panel{
				curve("CPU", "short", "Cores.", Query{`sum by (instance) (rate(process_cpu_seconds_total[$__rate_interval]) * on (instance) group_left kubeguardian_build_info)`, "{{instance}}"}),
				curve("Memory", "bytes", "Resident.", Query{"process_resident_memory_bytes * on (instance) group_left kubeguardian_build_info", "{{instance}}"}),
				curve("Goroutines", "none", "", Query{"go_goroutines * on (instance) group_left kubeguardian_build_info", "{{instance}}"}),
			}},
		},
	}
}

func nodes() Dashboard {
	by := func(metric string) Query {
		return Query{"sum by (instance) (rate(" + metric + "[$__rate_interval]))", "{{instance}}"}
	}
	return Dashboard{
		Name: "kubeguardian-nodes", Title: "KubeGuardian: nodes", Description: "What agents see on their nodes, what they lose, and what they cost.",
		Rows: []Row{
			{"Does it see?", []Panel{
				stat("Agents", "none", "count(kubeguardian_agent_rules)", nil, "That report."),
				stat("Not covered", "none", "max(kubeguardian_agent_rules_not_covered)", new(1.0), "Rules that wait for events which a node does not show."),
				stat("Dropped", "percentunit", `sum(rate(kubeguardian_agent_sensor_events_total{what="dropped"}[$__rate_interval])) / sum(rate(kubeguardian_agent_sensor_events_total{what="made"}[$__rate_interval]))`, new(0.001), "Share of events that rules did not see."),
			}},
			{"Events", []Panel{
				curve("Events of the kernel", "ops", "What became of them.", rate("kubeguardian_agent_sensor_events_total", "what")),
				curve("Events that rules saw", "ops", "", by("kubeguardian_agent_events_matched_total")),
				curve("Alerts", "ops", "", by("kubeguardian_agent_alerts_total")),
			}},
			{"What is known", []Panel{
				curve("Processes", "none", "", Query{"kubeguardian_agent_processes", "{{instance}}"}),
				curve("Begin not seen", "ops", "Processes whose begin was not seen.", by("kubeguardian_agent_processes_unknown_total")),
				curve("Containers not known yet", "ops", "Events of containers that the runtime had not told of.", by("kubeguardian_agent_container_late_total")),
			}},
			{"What it costs", []Panel{
				curve("CPU", "short", "Cores.", by("kubeguardian_agent_cpu_seconds_total")),
				curve("Memory", "bytes", "Resident.", Query{"kubeguardian_agent_resident_memory_bytes", "{{instance}}"}),
			}},
		},
	}
}
