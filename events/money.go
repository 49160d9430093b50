package events

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Bounds of an amount: those of SQL's DECIMAL(38,18), so that every amount that
// travels can be stored.
const (
	maxWholeDigits    = 20 // before the point
	maxFractionDigits = 18 // after the point, zeros at the end not counted
)

// maxMoneyText is the longest text that is read as an amount. The longest one
// that is needed has 40 characters; the rest is room for zeros that say nothing.
const maxMoneyText = 100

// Money is an exact decimal amount, never a float. Its zero value is 0. It does
// not know its currency.
//
// It is a number and not a notation: 19.90 and 19.9 are the same Money, == says
// so, and both are written in the shortest form, "19.9". To show an amount to
// people, format it for their currency.
//
// An amount that is read or written has at most 20 digits before the point and
// 18 after it, as SQL's DECIMAL(38,18). In JSON it is a string; it is read from
// a string or a number, neither of which passes through a float.
type Money struct {
	// text is the amount as String returns it, but "" for 0. There is one text
	// for an amount, which makes == work, and it can't be changed through a
	// copy, as a *big.Int could.
	text string
}

// NewMoney returns units × 10^-places: NewMoney(1990, 2) is 19.9, from cents.
func NewMoney(units int64, places uint8) Money {
	return fromDigits(fmt.Sprint(units), int(places))
}

// ParseMoney reads an amount in the syntax of a JSON number (RFC 8259, section
// 6), such as "19.90", "-5" or "1.5e3", of at most 100 characters. The error
// says what is wrong with s.
func ParseMoney(s string) (Money, error) {
	m, problem := parseMoney(s)
	if problem != "" {
		return Money{}, fmt.Errorf("money %.40q %s", s, problem)
	}
	return m, nil
}

// MustMoney is [ParseMoney] for constants: it panics when s is not an amount.
func MustMoney(s string) Money {
	m, err := ParseMoney(s)
	if err != nil {
		panic("events: " + err.Error())
	}
	return m
}

// String returns the amount in its shortest form without an exponent, such as
// "-0.05", "19.9" or "1500". [ParseMoney] reads it back.
func (m Money) String() string {
	if m.text == "" {
		return "0"
	}
	return m.text
}

// MarshalText returns what [Money.String] does; encoding/json makes a JSON
// string of it. It refuses the result of a calculation that is out of bounds,
// since no receiver would read it.
func (m Money) MarshalText() ([]byte, error) {
	if problem := m.problem(); problem != "" {
		return nil, fmt.Errorf("money %s", problem)
	}
	return []byte(m.String()), nil
}

// UnmarshalText reads what [ParseMoney] does.
func (m *Money) UnmarshalText(text []byte) error {
	parsed, err := ParseMoney(string(text))
	if err != nil {
		return err
	}
	*m = parsed
	return nil
}

// UnmarshalJSON reads an amount from a JSON string or number. As everywhere in
// encoding/json, null changes nothing. Its error is a
// [*json.UnmarshalTypeError], to which encoding/json adds the name of the field.
func (m *Money) UnmarshalJSON(data []byte) error {
	text := string(data)
	kind := "value"
	switch c := data[0]; {
	case text == "null":
		return nil
	case c == '"':
		kind = "string"
		if err := json.Unmarshal(data, &text); err != nil {
			return err
		}
	case c == '-' || c >= '0' && c <= '9':
		kind = "number"
	}
	parsed, problem := parseMoney(text)
	if problem != "" {
		return &json.UnmarshalTypeError{Value: kind + " that " + problem, Type: typeOfMoney}
	}
	*m = parsed
	return nil
}

// problem says why m can't be written, or returns "".
func (m Money) problem() string {
	whole, fraction, _ := strings.Cut(strings.TrimPrefix(m.text, "-"), ".")
	switch {
	case len(whole) > maxWholeDigits:
		return fmt.Sprintf("has more than %d digits before the point", maxWholeDigits)
	case len(fraction) > maxFractionDigits:
		return fmt.Sprintf("has more than %d digits after the point", maxFractionDigits)
	}
	return ""
}
