package main

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/sessiond/sessiond/internal/acctload"
)

// parseAttribute reads NUMBER=TEXT or NUMBER=0xHEX.
func parseAttribute(text string) (acctload.Attribute, error) {
	number, value, ok := strings.Cut(text, "=")
	kind, err := strconv.ParseUint(number, 10, 8)
	if !ok || err != nil {
		return acctload.Attribute{}, fmt.Errorf("--attribute %q: must be NUMBER=TEXT or NUMBER=0xHEX", text)
	}
	a := acctload.Attribute{Type: uint8(kind), Value: []byte(value)}
	if digits, ok := strings.CutPrefix(value, "0x"); ok {
		if a.Value, err = hex.DecodeString(digits); err != nil {
			return acctload.Attribute{}, fmt.Errorf("--attribute %q: %w", text, err)
		}
	}
	return a, nil
}
