package evidence

import "time"

// The agreed ages: how long something may stay as it is before a control fails.
// They are the same for everybody, so that scores can be compared; whoever needs
// longer has exceptions, which have an owner and a reason.
const (
	day = 24 * time.Hour

	// Weaknesses that have a fix: two weeks for critical and a month for high
	// ones, as CISA's directive BOD 19-02 gives agencies for what the internet
	// reaches. Three months for medium ones in own code.
	FixCritical = 15 * day
	FixHigh     = 30 * day
	FixMedium   = 90 * day

	// ScanAge is how old the newest scan of an image may be: what is known of
	// its packages grows daily, and a week is the slowest schedule in common use.
	ScanAge = 7 * day

	// ImageAge is how old an image may be: a year without a rebuild means
	// that nobody has taken up the updates of its base.
	ImageAge = 365 * day

	// DynamicScanAge is how old the newest dynamic scan may be: one a month
	// falls between the releases of most applications.
	DynamicScanAge = 30 * day

	// BackupAge is how old the newest backup of a cluster may be: a week of work
	// is the most that is done again by hand.
	BackupAge = 7 * day

	// LogAge is how long logs are kept at least: intruders are found weeks after
	// they came.
	LogAge = 30 * day

	// LikelyExploited is the chance of an attack in the next 30 days (EPSS) from
	// which a weakness counts as attacked: more likely than not.
	LikelyExploited = 0.5
)
