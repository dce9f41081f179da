// Package fact has yes and no for what may not be known.
package fact

// A Fact is a yes or no that may not be known.
type Fact int

// The facts. The zero value is not known.
const (
	Unknown Fact = iota
	No
	Yes
)

// Of returns what a boolean says.
func Of(yes bool) Fact {
	if yes {
		return Yes
	}
	return No
}

// Not returns the opposite. Of what is not known the opposite is not known.
func (f Fact) Not() Fact {
	switch f {
	case Yes:
		return No
	case No:
		return Yes
	}
	return Unknown
}

// And returns whether both hold.
func (f Fact) And(other Fact) Fact {
	switch {
	case f == No || other == No:
		return No
	case f == Yes && other == Yes:
		return Yes
	}
	return Unknown
}
