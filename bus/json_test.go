package bus_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gotidings/tidings/bus"
)

// figures has a field of every kind that an event can have.
type figures struct {
	N       int            `json:"n"`
	Small   int8           `json:"small,omitempty"`
	Size    uint           `json:"size"`
	F       float64        `json:"f"`
	Text    string         `json:"text"`
	Quoted  int64          `json:"quoted,string"`
	Yes     bool           `json:"yes"`
	At      time.Time      `json:"at,omitzero"`
	Took    time.Duration  `json:"took"`
	Data    []byte         `json:"data"`
	Sum     [2]byte        `json:"sum"`
	List    []figures      `json:"list"`
	ByText  map[string]any `json:"byText"`
	ByInt   map[int]string `json:"byInt"`
	Next    *figures       `json:"next"`
	Any     any            `json:"any"`
	Raw     json.RawMessage
	Inlined inner `json:",inline"` //nolint:revive // as encoding/json does, not heeded
	Day     time.Time
	Secret  int `json:"-"`
	hidden  int
	inner
}

type inner struct {
	A, B int
}

type numbered struct {
	N json.Number `json:"n"`
	P *json.Number
	Q json.Number `json:",string"`
	L []json.Number
}

// dated has a tag that encoding/json ignores.
type dated struct {
	Day time.Time `json:"day,format:DateOnly"` //nolint:revive // the same
}

var decodedTypes = map[string]func() any{
	"figures":  func() any { return new(figures) },
	"numbered": func() any { return new(numbered) },
	"dated":    func() any { return new(dated) },
	"any":      func() any { return new(any) },
	"list":     func() any { return new([]inner) },
	"map":      func() any { return new(map[string]figures) },
	"int":      func() any { return new(int) },
	"full": func() any {
		return &figures{N: 1, List: []figures{{N: 2}}, ByText: map[string]any{"old": 1}, Next: &figures{Text: "old"}, Any: "old", hidden: 3}
	},
	"no target": func() any {
		return figures{}
	},
	"nil": func() any { return (*figures)(nil) },
}

// sameAsEncodingJSON checks that data is decoded into every type as encoding/json does.
func sameAsEncodingJSON(t *testing.T, data string) {
	t.Helper()
	for name, make := range decodedTypes {
		got, want := make(), make()
		gotErr, wantErr := bus.JSON{}.Unmarshal([]byte(data), got), json.Unmarshal([]byte(data), want)
		if diff := cmp.Diff(text(wantErr), text(gotErr)); diff != "" {
			t.Errorf("%s from %q, error (-want +got):\n%s", name, data, diff)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(figures{}, inner{})); diff != "" && wantErr == nil {
			t.Errorf("%s from %q (-want +got):\n%s", name, data, diff)
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

var decodedData = []string{
	`{}`, `null`, `1`, `"a"`, `[]`, `[{"A":1},null,{"a":2,"B":3}]`, ` {"n":1} `, ``, `{`, `{}{}`, `{"n":1,}`, `nul`,
	`{"n":3,"small":-128,"size":18446744073709551615,"f":1e3,"text":"a\u00e9\ud83d\ude00\n","quoted":"-5","yes":true}`,
	`{"at":"2026-01-02T03:04:05.6+01:00","took":5,"data":"YQ==","sum":[1,2],"Raw":{"a" : [1]},"Secret":4,"hidden":5}`,
	`{"list":[{"n":1},{"n":2,"list":[]}],"byText":{"a":null,"b":[1,{"c":2}]},"byInt":{"1":"x","-2":"y"},"next":{"n":1,"next":null}}`,
	`{"N":1,"n":2,"TEXT":"a","Text":"b","n":null}`, `{"any":{"a":1,"a":2}}`, `{"A":1,"a":2,"Inlined":{"A":3}}`,
	`{"n":1.0}`, `{"n":1e2}`, `{"n":"1"}`, `{"small":128}`, `{"size":-1}`, `{"f":1e999}`, `{"any":1e999}`, `{"yes":0}`, `{"text":1}`,
	`{"quoted":5}`, `{"quoted":null}`, `{"quoted":"null"}`, `{"quoted":" 5"}`, `{"quoted":"x"}`, `{"at":"x"}`, `{"data":"*"}`, `{"data":[1]}`,
	`{"data":"Y\nQ=="}`, `{"sum":[1]}`, `{"sum":[1,2,3]}`, `{"sum":"AQI="}`, `{"byInt":{"x":"y"}}`, `{"took":"1s"}`, `{"took":1.5}`,
	"{\"text\":\"\xff\\ud800\",\"\xff\":1}", "{\"text\":\"\x01\"}", `{"next":{"next":{"n":"x"}}}`, `{"list":{"n":1}}`,
	`{"n":3,"P":4,"Q":"5","L":[6,"7"]}`, `{"n":"3"}`, `{"n":"x"}`, `{"n":null,"P":null}`, `{"Q":5}`, `{"n":1e400}`,
	`{"day":"2026-01-02T03:04:05Z"}`, `{"day":"2026-01-02"}`,
	`{"text":"` + "\u2028<>&" + `"}`, `[1,2`, `{"a":}`, `{"a" 1}`, `{'a':1}`, "\ufeff{}", `{"n":01}`, `{"n":-}`, `{"any":[[[[[[]]]]]]}`,
}

func TestJSONUnmarshalsAsEncodingJSON(t *testing.T) {
	t.Parallel()
	for _, data := range decodedData {
		sameAsEncodingJSON(t, data)
	}
	err := bus.JSON{}.Unmarshal([]byte(`{"n":"x"}`), new(inner))
	if err != nil {
		t.Error(err)
	}
	err = bus.JSON{}.Unmarshal([]byte(`{"n":[]}`), new(figures))
	if typeError, ok := errors.AsType[*json.UnmarshalTypeError](err); !ok || typeError.Field != "n" {
		t.Errorf("error = %v (%T), want a *json.UnmarshalTypeError of n", err, err)
	}
	err = bus.JSON{}.Unmarshal([]byte(`{"n":1]`), new(figures))
	if _, ok := errors.AsType[*json.SyntaxError](err); !ok {
		t.Errorf("error = %v (%T), want a *json.SyntaxError", err, err)
	}
}

// FuzzJSONUnmarshal checks that nothing is decoded otherwise than by encoding/json.
func FuzzJSONUnmarshal(f *testing.F) {
	for _, data := range decodedData {
		f.Add(data)
	}
	f.Fuzz(sameAsEncodingJSON)
}
