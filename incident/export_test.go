package incident

// Remembered returns how many entities the correlator knows.
func (c *Correlator) Remembered() int { return len(c.places) }
