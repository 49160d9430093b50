package realtime

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/gotidings/tidings/events"
)

// Close codes of a WebSocket, from the range that RFC 6455, section 7.4.2, leaves to
// applications. A stream of server-sent events ends with an event "close" that has the same.
const (
	CloseBadMessage   = 4400 // the client has sent what is no message
	CloseUnauthorized = 4401 // Authenticate has refused the request
	CloseSlow         = 4408 // more messages were waiting than Config.QueueLength
	CloseExpired      = 4419 // the principal's token has ended
	CloseInterrupted  = 4503 // the node has lost its broker; another one may have it
	CloseGoingAway    = 1001 // the node is shutting down; RFC 6455, section 7.4.1

	closeUnanswered = 1011 // a ping was not answered; nobody is there to be told
)

// subprotocol is the version of the protocol over a WebSocket.
const subprotocol = "tidings.v1"

// maxGroupBytes is the longest name of a group.
const maxGroupBytes = 200

// request is what a client sends: to join a group, or to leave one.
type request struct {
	Join  string `json:"join"`
	Leave string `json:"leave"`
	After string `json:"after"` // with join: id of the last message that was received of the group
}

var (
	errNotJSON  = errors.New("it is not a JSON object")
	errNoAction = errors.New(`it has neither "join" nor "leave", or both`)
)

// parseRequest reads a client's message. Its errors quote nothing of it. Names of groups
// are not checked.
func parseRequest(data []byte) (request, error) {
	var r request
	if !utf8.Valid(data) {
		return request{}, errNotJSON
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return request{}, errNotJSON
	}
	if (r.Join == "") == (r.Leave == "") {
		return request{}, errNoAction
	}
	return r, nil
}

// validGroup reports whether a name can be one of a group.
func validGroup(name string) bool {
	if name == "" || len(name) > maxGroupBytes || !utf8.ValidString(name) {
		return false
	}
	for _, r := range name {
		if unicode.IsControl(r) {
			return false
		}
	}
	return true
}

// Codes of the errors that leave a connection open.
const (
	errorForbidden     = "forbidden"
	errorBadGroup      = "bad_group"
	errorTooManyGroups = "too_many_groups"
)

var errorTexts = map[string]string{
	errorForbidden:     "this group does not exist, or you may not join it",
	errorBadGroup:      fmt.Sprintf("a group's name has 1 to %d bytes and no control characters", maxGroupBytes),
	errorTooManyGroups: "you are in as many groups as you may be; leave one first",
}

// answer is what a client is sent besides events.
type answer struct {
	Type    string `json:"type"` // joined, left, reset, error, close
	Group   string `json:"group,omitempty"`
	ID      string `json:"id,omitempty"`      // of joined: the position in the group's history
	Code    any    `json:"code,omitempty"`    // of error and close
	Message string `json:"message,omitempty"` // of error and close
}

// message is one thing to send to a client. Those of events are shared by all who get them.
type message struct {
	data []byte // JSON without line breaks
	id   string // with which a client comes back; may be empty
	kind string // of the answer; empty for an event

	batch []*message // instead of all that: several, in this order
}

func (a answer) message() *message {
	data, err := json.Marshal(a)
	if err != nil { // texts and numbers
		panic(err)
	}
	return &message{data: data, id: a.ID, kind: a.Type}
}

func refusal(code, group string) *message {
	if code == errorBadGroup {
		group = truncate(group)
	}
	return answer{Type: "error", Group: group, Code: code, Message: errorTexts[code]}.message()
}

// truncate shortens a name that is too long to be one.
func truncate(name string) string {
	if len(name) <= maxGroupBytes {
		return name
	}
	return name[:maxGroupBytes] + "…"
}

// eventJSON is an event as clients see it: what they need of its metadata, which leaves out
// what services tell each other, such as correlation and trace.
type eventJSON struct {
	ID      string          `json:"id"`
	Source  string          `json:"source"`
	Type    string          `json:"type"`
	Time    string          `json:"time,omitempty"`
	Subject string          `json:"subject,omitempty"`
	Data    json.RawMessage `json:"data"`
}

// encodeEvent makes the JSON of an event, which its groups share.
func encodeEvent(md events.Metadata, view any) ([]byte, error) {
	data, err := json.Marshal(view)
	if err != nil {
		return nil, err
	}
	e := eventJSON{ID: md.ID, Source: md.Source, Type: md.Type, Subject: md.Subject, Data: data}
	if !md.Time.IsZero() {
		e.Time = md.Time.UTC().Format(time.RFC3339Nano)
	}
	return json.Marshal(e)
}

// eventMessage is an event in one of its groups. It names no other group, which the
// receiver may not know of.
func eventMessage(id, group string, event []byte) *message {
	name, _ := json.Marshal(group)
	data := make([]byte, 0, len(event)+len(name)+len(id)+48)
	data = append(data, `{"type":"event","id":"`...)
	data = append(data, id...) // see position: nothing in it needs quoting
	data = append(data, `","group":`...)
	data = append(data, name...)
	data = append(data, `,"event":`...)
	data = append(data, event...)
	data = append(data, '}')
	return &message{data: data, id: id}
}
