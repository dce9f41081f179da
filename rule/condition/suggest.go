package condition

import "fmt"

const maxSuggested = 100 // bytes of a name that is compared with others

// DidYouMean returns a hint with the name that is most like s, or "" if none
// is alike.
func DidYouMean(s string, names []string) string {
	if len(s) > maxSuggested {
		return ""
	}
	best, least := "", len(s)/3+2
	for _, name := range names {
		if d := distance(s, name, least); d < least {
			best, least = name, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance returns the Levenshtein distance of two names, or limit if it is
// that or more.
func distance(a, b string, limit int) int {
	if max(len(a), len(b))-min(len(a), len(b)) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return min(row[len(b)], limit)
}
