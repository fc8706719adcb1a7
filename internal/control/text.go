package control

import "github.com/sessiond/sessiond/internal/rawtext"

// toText writes raw RADIUS octets as text; toOctets is the reverse.
func toText(octets string) string { return rawtext.Of(octets) }

// toTexts applies toText to each element.
func toTexts(octets []string) []string {
	var list []string
	for _, o := range octets {
		list = append(list, toText(o))
	}
	return list
}

// toOctets is the reverse of toText.
func toOctets(text string) string { return rawtext.Octets(text) }
