package frames

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"
)

// TruncatedHeader names the headers that did not fit into a frame and are shortened.
const TruncatedHeader = "tidings_truncated"

// keptWhenShort is how much is left of a string that is shortened, in bytes.
const keptWhenShort = 256

// field is a header: its name, with its length before it, and its value with its type.
type field struct{ name, value []byte }

func (f field) size() int { return len(f.name) + len(f.value) }

// rewrite returns a content header with the same properties and headers, which takes at most
// limit bytes. What the client can't read becomes text, and the longest headers are shortened
// until the rest fits.
func rewrite(payload []byte, limit int) []byte {
	from, to, ok := tableOf(payload)
	if !ok {
		return payload
	}
	fields := fieldsOf(payload[from:to])
	size := len(payload) - (to - from)
	for i := range fields {
		f := &fields[i]
		if container := f.value[0] == 'A' || f.value[0] == 'F'; container && !elements(f.value[5:], f.value[0] == 'F', 1) {
			f.value = textField(jsonOf(f.value))
		}
		size += f.size()
	}
	fields = shorten(fields, limit-size)
	table := make([]byte, 0, limit)
	for _, f := range fields {
		table = append(append(table, f.name...), f.value...)
	}
	out := append(make([]byte, 0, limit), payload[:from-4]...)
	out = binary.BigEndian.AppendUint32(out, uint32(len(table))) //nolint:gosec // at most limit
	return slices.Concat(out, table, payload[to:])
}

// fieldsOf returns the headers of a table, as far as they are whole.
func fieldsOf(table []byte) (fields []field) {
	for len(table) > 0 {
		value := skipName(table)
		if value == nil {
			break
		}
		name := table[:len(table)-len(value)]
		size := fieldSize(value)
		if size == 0 {
			break
		}
		fields = append(fields, field{name, value[:size]})
		table = value[size:]
	}
	return fields
}

// shorten takes from the longest headers until room is not negative and there are few
// enough, and adds one that names them.
func shorten(fields []field, room int) []field {
	if room >= 0 && len(fields) <= maxElements {
		return fields
	}
	room -= 1 + len(TruncatedHeader) + 5 + 4*keptWhenShort
	var names []string
	byLength := make([]int, len(fields))
	for i := range byLength {
		byLength[i] = i
	}
	slices.SortStableFunc(byLength, func(a, b int) int { return len(fields[b].value) - len(fields[a].value) })
	drop := make(map[int]bool)
	for _, i := range byLength {
		few := len(fields)-len(drop) < maxElements
		if room >= 0 && few {
			break
		}
		f := &fields[i]
		names = append(names, string(f.name[1:]))
		if short := 5 + keptWhenShort; few && f.value[0] == 'S' && len(f.value) > short {
			room += len(f.value) - short
			f.value = textField(string(f.value[5:short]))
			continue
		}
		room += f.size()
		drop[i] = true
	}
	kept := make([]field, 0, len(fields)+1)
	for i, f := range fields {
		if !drop[i] {
			kept = append(kept, f)
		}
	}
	list := strings.Join(names, " ")
	name := append([]byte{byte(len(TruncatedHeader))}, TruncatedHeader...)
	return append(kept, field{name, textField(list[:min(len(list), 4*keptWhenShort)])})
}

func textField(text string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{'S'}, uint32(len(text))) //nolint:gosec // at most maxRewritten
	return append(b, text...)
}

// jsonOf writes a value, whose sizes are right, as JSON. A text that is no UTF-8 loses what
// is not, and a number that JSON has no notation for is a string.
func jsonOf(value []byte) string {
	var out bytes.Buffer
	writeJSON(&out, value)
	return out.String()
}

// writeJSON writes one value. What is malformed is null: a broker that has read the headers
// does not send it.
func writeJSON(out *bytes.Buffer, b []byte) {
	switch body := b[1:]; b[0] {
	case 'A':
		writeList(out, body[4:])
	case 'F':
		writeTable(out, body[4:])
	case 'S', 'x':
		writeString(out, string(body[4:]))
	case 't':
		out.WriteString(strconv.FormatBool(body[0] != 0))
	case 'b':
		out.WriteString(strconv.Itoa(int(int8(body[0]))))
	case 'B':
		out.WriteString(strconv.Itoa(int(body[0])))
	case 's':
		out.WriteString(strconv.Itoa(int(int16(binary.BigEndian.Uint16(body))))) //nolint:gosec // its two halves
	case 'u':
		out.WriteString(strconv.Itoa(int(binary.BigEndian.Uint16(body))))
	case 'I':
		out.WriteString(strconv.Itoa(int(int32(binary.BigEndian.Uint32(body))))) //nolint:gosec // its two halves
	case 'i':
		out.WriteString(strconv.FormatUint(uint64(binary.BigEndian.Uint32(body)), 10))
	case 'l':
		out.WriteString(strconv.FormatInt(int64(binary.BigEndian.Uint64(body)), 10)) //nolint:gosec // its two halves
	case 'f':
		writeFloat(out, float64(math.Float32frombits(binary.BigEndian.Uint32(body))), 32)
	case 'd':
		writeFloat(out, math.Float64frombits(binary.BigEndian.Uint64(body)), 64)
	case 'D':
		value := big.NewInt(int64(int32(binary.BigEndian.Uint32(body[1:])))) //nolint:gosec // its two halves
		scale := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(body[0])), nil)
		writeString(out, new(big.Rat).SetFrac(value, scale).FloatString(int(body[0])))
	case 'T':
		at := time.Unix(int64(binary.BigEndian.Uint64(body)), 0) //nolint:gosec // its two halves
		writeString(out, at.UTC().Format(time.RFC3339))
	default:
		out.WriteString("null")
	}
}

func writeList(out *bytes.Buffer, b []byte) {
	out.WriteByte('[')
	for first := true; ; first = false {
		size := fieldSize(b)
		if size == 0 {
			break
		}
		if !first {
			out.WriteByte(',')
		}
		writeJSON(out, b[:size])
		b = b[size:]
	}
	out.WriteByte(']')
}

func writeTable(out *bytes.Buffer, b []byte) {
	out.WriteByte('{')
	for i, f := range fieldsOf(b) {
		if i > 0 {
			out.WriteByte(',')
		}
		writeString(out, string(f.name[1:]))
		out.WriteByte(':')
		writeJSON(out, f.value)
	}
	out.WriteByte('}')
}

func writeString(out *bytes.Buffer, s string) {
	text, _ := json.Marshal(s) // a string can always be
	out.Write(text)
}

func writeFloat(out *bytes.Buffer, v float64, bits int) {
	text := strconv.FormatFloat(v, 'g', -1, bits)
	if math.IsNaN(v) || math.IsInf(v, 0) {
		text = strconv.Quote(text)
	}
	out.WriteString(text)
}
