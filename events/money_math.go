package events

import (
	"math/big"
	"reflect"
	"strconv"
	"strings"
)

var typeOfMoney = reflect.TypeFor[Money]()

// Add returns m + n. Calculations are exact and never overflow; a result that
// is out of bounds can't be written.
func (m Money) Add(n Money) Money {
	a, b, scale := align(m, n)
	return fromDigits(a.Add(a, b).String(), scale)
}

// Mul returns m × quantity: the price of several pieces.
func (m Money) Mul(quantity int64) Money {
	digits, scale := m.digits()
	return fromDigits(digits.Mul(digits, big.NewInt(quantity)).String(), scale)
}

// Cmp returns -1, 0 or +1 as m is less than, equal to or greater than n.
func (m Money) Cmp(n Money) int {
	a, b, _ := align(m, n)
	return a.Cmp(b)
}

// Equal reports whether m and n are the same amount, as == does. It is here for
// libraries that look for it, such as go-cmp.
func (m Money) Equal(n Money) bool { return m == n }

// Sign returns -1, 0 or +1 as m is negative, zero or positive.
func (m Money) Sign() int {
	switch {
	case m.text == "":
		return 0
	case m.text[0] == '-':
		return -1
	}
	return 1
}

// digits returns m as digits × 10^-scale.
func (m Money) digits() (digits *big.Int, scale int) {
	whole, fraction, _ := strings.Cut(m.String(), ".")
	digits, _ = new(big.Int).SetString(whole+fraction, 10) // the text is canonical, so it is a number
	return digits, len(fraction)
}

// align returns m and n as a × 10^-scale and b × 10^-scale.
func align(m, n Money) (a, b *big.Int, scale int) {
	a, scaleA := m.digits()
	b, scaleB := n.digits()
	scale = max(scaleA, scaleB)
	return shift(a, scale-scaleA), shift(b, scale-scaleB), scale
}

// shift returns x × 10^n.
func shift(x *big.Int, n int) *big.Int {
	return x.Mul(x, new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil))
}

const noNumber = "is not a decimal number"

// parseMoney reads s, and says what is wrong with it if anything is.
func parseMoney(s string) (m Money, problem string) {
	if len(s) > maxMoneyText {
		return Money{}, "is longer than " + strconv.Itoa(maxMoneyText) + " characters"
	}
	mantissa, exponent, problem := cutExponent(s)
	if problem != "" {
		return Money{}, problem
	}
	unsigned, negative := strings.CutPrefix(mantissa, "-")
	whole, fraction, hasPoint := strings.Cut(unsigned, ".")
	if !isDigits(whole) || len(whole) > 1 && whole[0] == '0' || hasPoint && !isDigits(fraction) {
		return Money{}, noNumber
	}
	digits := whole + fraction
	if negative {
		digits = "-" + digits
	}
	m = fromDigits(digits, len(fraction)-exponent)
	if problem = m.problem(); problem != "" {
		return Money{}, problem
	}
	return m, ""
}

// cutExponent splits the exponent, 0 when there is none, off a number.
func cutExponent(s string) (mantissa string, exponent int, problem string) {
	i := strings.IndexAny(s, "eE")
	if i < 0 {
		return s, 0, ""
	}
	power := s[i+1:]
	magnitude := power
	if power != "" && (power[0] == '+' || power[0] == '-') {
		magnitude = power[1:]
	}
	if !isDigits(magnitude) {
		return "", 0, noNumber
	}
	// 16 bits are more than an amount in bounds can need, and few enough for
	// fromDigits to write the zeros out: 1e1000000000 is a dozen bytes of input
	// but a gigabyte of zeros.
	n, err := strconv.ParseInt(power, 10, 16)
	if err != nil {
		return "", 0, "has an exponent that is out of range"
	}
	return s[:i], int(n), ""
}

// fromDigits returns digits × 10^-scale in the one form that an amount has. The
// digits may begin with a minus sign and with zeros.
func fromDigits(digits string, scale int) Money {
	digits, negative := strings.CutPrefix(digits, "-")
	digits = strings.TrimLeft(digits, "0")
	if digits == "" {
		return Money{} // also for -0
	}
	significant := strings.TrimRight(digits, "0")
	scale -= len(digits) - len(significant)
	digits = significant

	var text string
	switch {
	case scale <= 0:
		text = digits + strings.Repeat("0", -scale)
	case scale < len(digits):
		text = digits[:len(digits)-scale] + "." + digits[len(digits)-scale:]
	default:
		text = "0." + strings.Repeat("0", scale-len(digits)) + digits
	}
	if negative {
		text = "-" + text
	}
	return Money{text: text}
}

func isDigits(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}
