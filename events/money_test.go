package events_test

import (
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"strings"
	"testing"

	"github.com/gotidings/tidings/events"
)

func TestParseMoney(t *testing.T) {
	t.Parallel()
	nines20, zeros17 := strings.Repeat("9", 20), strings.Repeat("0", 17)
	tests := []struct{ in, want string }{
		{"0", "0"},
		{"-0", "0"},
		{"-0.00", "0"},
		{"0e30000", "0"},
		{"19.90", "19.9"},
		{"19.9", "19.9"},
		{"100", "100"},
		{"100.00", "100"},
		{"-5", "-5"},
		{"-0.05", "-0.05"},
		{"0.1", "0.1"},
		{"1.5e3", "1500"},
		{"1.5E+3", "1500"},
		{"12345e-2", "123.45"},
		{"12345e-5", "0.12345"},
		{"1e-7", "0.0000001"}, // as JavaScript writes it
		{"0.1000000000000000055", ""},
		{"9007199254740993", "9007199254740993"}, // 2^53 + 1, which no float64 is
		{nines20 + "." + nines20[:18], nines20 + "." + nines20[:18]},
		{"1e19", "1" + strings.Repeat("0", 19)},
		{"0." + zeros17 + "1", "0." + zeros17 + "1"},
		{"1." + strings.Repeat("0", 90), "1"},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			t.Parallel()
			m, err := events.ParseMoney(tt.in)
			if tt.want == "" {
				if err == nil {
					t.Fatalf("= %s, want an error", m)
				}
				return
			}
			if err != nil || m.String() != tt.want {
				t.Errorf("= %s, %v; want %s", m, err, tt.want)
			}
			if m != events.MustMoney(tt.want) {
				t.Errorf("%s and %s are different to ==", tt.in, tt.want)
			}
		})
	}
}

func TestParseMoneyRefuses(t *testing.T) {
	t.Parallel()
	const noNumber = "is not a decimal number"
	tests := []struct{ in, problem string }{
		{"", noNumber},
		{"-", noNumber},
		{"+1", noNumber},
		{"--1", noNumber},
		{".5", noNumber},
		{"5.", noNumber},
		{"5.e1", noNumber},
		{"1.2.3", noNumber},
		{"007", noNumber},
		{" 1", noNumber},
		{"1 ", noNumber},
		{"1,000", noNumber},
		{"1_000", noNumber},
		{"0x10", noNumber},
		{"NaN", noNumber},
		{"Infinity", noNumber},
		{"€1", noNumber},
		{"١", noNumber}, // a digit to Unicode
		{"e5", noNumber},
		{"1e", noNumber},
		{"1e+", noNumber},
		{"1e-+5", noNumber},
		{"1e5.5", noNumber},
		{"1e5e5", noNumber},
		{"100000000000000000000", "has more than 20 digits before the point"},
		{"-1e20", "has more than 20 digits before the point"},
		{"0.0000000000000000001", "has more than 18 digits after the point"},
		{"1e-19", "has more than 18 digits after the point"},
		{"1e1000000000", "has an exponent that is out of range"},
		{"1e-1000000000", "has an exponent that is out of range"},
		{"1e99999999999999999999999", "has an exponent that is out of range"},
		{"1." + strings.Repeat("0", 99), "is longer than 100 characters"},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			t.Parallel()
			m, err := events.ParseMoney(tt.in)
			if err == nil {
				t.Fatalf("= %s, want an error", m)
			}
			if !strings.HasSuffix(err.Error(), " "+tt.problem) {
				t.Errorf("error = %q, want it to end in %q", err, tt.problem)
			}
			if m != (events.Money{}) {
				t.Errorf("= %s beside the error, want 0", m)
			}
		})
	}
}

func TestMustMoneyPanics(t *testing.T) {
	t.Parallel()
	defer func() {
		if got := recover(); got != `events: money "a lot" is not a decimal number` {
			t.Errorf("panic = %v", got)
		}
	}()
	events.MustMoney("a lot")
}

func TestNewMoney(t *testing.T) {
	t.Parallel()
	tests := []struct {
		units  int64
		places uint8
		want   string
	}{
		{0, 0, "0"},
		{0, 2, "0"},
		{1990, 2, "19.9"},
		{-5, 2, "-0.05"},
		{1500, 0, "1500"},
		{math.MaxInt64, 2, "92233720368547758.07"},
		{math.MinInt64, 0, "-9223372036854775808"},
	}
	for _, tt := range tests {
		t.Run(tt.want, func(t *testing.T) {
			t.Parallel()
			if got := events.NewMoney(tt.units, tt.places); got.String() != tt.want || got != events.MustMoney(tt.want) {
				t.Errorf("NewMoney(%d, %d) = %s", tt.units, tt.places, got)
			}
		})
	}
}

func TestMoneyMath(t *testing.T) {
	t.Parallel()
	money := events.MustMoney
	tests := []struct {
		name      string
		got, want events.Money
	}{
		{"what floats get wrong", money("0.1").Add(money("0.2")), money("0.3")},
		{"different scales", money("19.9").Add(money("0.105")), money("20.005")},
		{"zero value", events.Money{}.Add(money("1.5")), money("1.5")},
		{"to nothing", money("1.5").Add(money("-1.5")), events.Money{}},
		{"below nothing", money("1").Add(money("-2.5")), money("-1.5")},
		{"pieces", money("19.90").Mul(3), money("59.7")},
		{"whole again", money("0.25").Mul(4), money("1")},
		{"no piece", money("19.90").Mul(0), events.Money{}},
		{"returned", money("19.90").Mul(-1), money("-19.9")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.got != tt.want {
				t.Errorf("= %s, want %s", tt.got, tt.want)
			}
		})
	}
}

func TestMoneyOutOfBoundsIsNotWritten(t *testing.T) {
	t.Parallel()
	m := events.MustMoney("99999999999999999999").Add(events.MustMoney("1"))
	if got, want := m.String(), "1"+strings.Repeat("0", 20); got != want {
		t.Errorf("sum = %s, want the exact %s", got, want)
	}
	if text, err := json.Marshal(m); err == nil {
		t.Errorf("written as %s, which no receiver reads", text)
	}
}

func TestMoneyCmpAndSign(t *testing.T) {
	t.Parallel()
	ascending := []string{"-20", "-19.95", "-19.9", "0", "0.001", "0.01", "1", "9", "10", "10.5"}
	for i, a := range ascending {
		for j, b := range ascending {
			want := min(max(i-j, -1), 1)
			if got := events.MustMoney(a).Cmp(events.MustMoney(b)); got != want {
				t.Errorf("%s.Cmp(%s) = %d, want %d", a, b, got, want)
			}
			if got := events.MustMoney(a).Equal(events.MustMoney(b)); got != (want == 0) {
				t.Errorf("%s.Equal(%s) = %t", a, b, got)
			}
		}
		if got, want := events.MustMoney(a).Sign(), min(max(i-3, -1), 1); got != want {
			t.Errorf("%s.Sign() = %d, want %d", a, got, want)
		}
	}
}

func TestMoneyJSON(t *testing.T) {
	t.Parallel()
	tests := []struct{ in, want string }{
		{`"19.90"`, `"19.9"`},
		{`19.90`, `"19.9"`},
		{`1e2`, `"100"`},
		{`"\u0031.5"`, `"1.5"`},
		{`0.30000000000000004`, `"0.30000000000000004"`}, // 17 digits, kept as they stand
		{`12345678901234567890.123456789012345678`, `"12345678901234567890.123456789012345678"`},
		{`-0.0`, `"0"`},
		{`null`, `"7"`},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			t.Parallel()
			m := events.MustMoney("7") // to show what is overwritten
			if err := json.Unmarshal([]byte(tt.in), &m); err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(m)
			if err != nil || string(text) != tt.want {
				t.Errorf("= %s, %v; want %s", text, err, tt.want)
			}
		})
	}
}

func TestMoneyJSONRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ in, value string }{
		{`""`, "string that is not a decimal number"},
		{`"1.5 EUR"`, "string that is not a decimal number"},
		{`1e1000000000`, "number that has an exponent that is out of range"},
		{`1e20`, "number that has more than 20 digits before the point"},
		{`true`, "value that is not a decimal number"},
		{`{"amount":"1"}`, "value that is not a decimal number"},
		{`["1"]`, "value that is not a decimal number"},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			t.Parallel()
			m := events.MustMoney("7")
			err := json.Unmarshal([]byte(tt.in), &m)
			typeError, ok := errors.AsType[*json.UnmarshalTypeError](err)
			if !ok {
				t.Fatalf("error = %v (%T), want a *json.UnmarshalTypeError", err, err)
			}
			if typeError.Value != tt.value {
				t.Errorf("error says %q, want %q", typeError.Value, tt.value)
			}
			if m != events.MustMoney("7") {
				t.Errorf("= %s beside the error, want it unchanged", m)
			}
		})
	}
}

func TestMoneyText(t *testing.T) {
	t.Parallel()
	var m events.Money
	if err := m.UnmarshalText([]byte("2.50")); err != nil || m.String() != "2.5" {
		t.Errorf("UnmarshalText(2.50) = %s, %v", m, err)
	}
	if err := m.UnmarshalText([]byte("two")); err == nil || m.String() != "2.5" {
		t.Errorf("UnmarshalText(two) = %s, %v; want an error and no change", m, err)
	}
}

// FuzzMoney compares reading, writing and arithmetic with math/big.Rat, and what
// is a number with encoding/json.
func FuzzMoney(f *testing.F) {
	for _, s := range []string{
		"0", "-0", "19.90", "-5", "0.05", "1.5e3", "1e-7", "12345e-2", "007", ".5", "5.", "+1", "1e", "1e+", "", "-",
		"99999999999999999999.999999999999999999", "100000000000000000000", "0.0000000000000000001", "1e20", "0e32767",
		"1e32768", "1e1000000000", "1e-1000000000", " 1", "1 ", "1_0", "0x1p4", "NaN", "1/3", "\x00", "1\n",
	} {
		f.Add(s, int64(3))
	}
	f.Add("0.000000000000000001", int64(math.MinInt64))
	f.Add("-99999999999999999999", int64(math.MaxInt64))
	// DECIMAL(38,18): whole × 10^18 is an integer of at most 38 digits.
	scale := new(big.Rat).SetInt(pow10(18))
	limit := new(big.Rat).SetInt(pow10(20))

	f.Fuzz(func(t *testing.T, s string, quantity int64) {
		m, err := events.ParseMoney(s)
		number := json.Valid([]byte(s)) && strings.Trim(s, " \t\r\n") == s && strings.ContainsAny(s[:1], "-0123456789")
		if err != nil && (!number || len(s) > 100 || hugeExponent(s)) {
			return
		}
		if !number {
			t.Fatalf("ParseMoney(%q) = %s, which is not a JSON number", s, m)
		}
		want, ok := new(big.Rat).SetString(s)
		if !ok {
			t.Fatalf("big.Rat does not read %q", s)
		}
		inBounds := new(big.Rat).Abs(want).Cmp(limit) < 0 && new(big.Rat).Mul(want, scale).IsInt()
		if inBounds != (err == nil) {
			t.Fatalf("ParseMoney(%q) = %s, %v; in bounds: %t", s, m, err, inBounds)
		}
		if err != nil {
			return
		}
		same(t, "ParseMoney", m, want)
		if m.Sign() != want.Sign() {
			t.Errorf("%s.Sign() = %d", m, m.Sign())
		}
		product := new(big.Rat).Mul(want, new(big.Rat).SetInt64(quantity))
		same(t, "Mul", m.Mul(quantity), product)
		same(t, "Add", m.Mul(quantity).Add(m), new(big.Rat).Add(product, want))
		if got := m.Mul(quantity).Cmp(m); got != product.Cmp(want) {
			t.Errorf("%s × %d compares with it as %d", m, quantity, got)
		}
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		for _, form := range []string{string(text), s} { // as a string, and as a number
			var again events.Money
			if err := json.Unmarshal([]byte(form), &again); err != nil || again != m {
				t.Errorf("%s read as JSON = %s, %v; want %s", form, again, err, m)
			}
		}
	})
}

// same checks the value of m, and that its form is the only one of that value.
func same(t *testing.T, what string, m events.Money, want *big.Rat) {
	t.Helper()
	got, ok := new(big.Rat).SetString(m.String())
	if !ok || got.Cmp(want) != 0 {
		t.Errorf("%s = %s, want %s", what, m, want.RatString())
	}
	decimals, _ := want.FloatPrec() // the shortest decimal form has exactly these
	if form := want.FloatString(decimals); m.String() != form {
		t.Errorf("%s is written %s, want %s", what, m, form)
	}
}

// hugeExponent reports whether s has an exponent that big.Rat should be spared.
func hugeExponent(s string) bool {
	i := strings.LastIndexAny(s, "eE")
	return i >= 0 && len(strings.TrimLeft(s[i+1:], "+-0")) > 4
}

func pow10(n int64) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(n), nil) }
