package watermill

import (
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/google/go-cmp/cmp"

	"github.com/gotidings/tidings/transports"
)

func TestKeyOfTheCorrelationIsWatermills(t *testing.T) {
	t.Parallel()
	if watermillCorrelation != middleware.CorrelationIDMetadataKey {
		t.Errorf("Watermill calls it %q", middleware.CorrelationIDMetadataKey)
	}
}

func TestOutgoingMetadata(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cfg  Config
		id   string
		with message.Metadata
		want message.Metadata
	}{
		"correlation": {
			id:   "1",
			with: message.Metadata{"ce_type": "a", "ce_correlationid": "c"},
			want: message.Metadata{"ce_type": "a", "ce_correlationid": "c", "correlation_id": "c"},
		},
		"correlation of its own": {
			id:   "1",
			with: message.Metadata{"ce_type": "a", "ce_correlationid": "c", "correlation_id": "d"},
			want: message.Metadata{"ce_type": "a", "ce_correlationid": "c", "correlation_id": "d"},
		},
		"none": {
			id:   "1",
			with: message.Metadata{"ce_type": "a"},
			want: message.Metadata{"ce_type": "a"},
		},
		"topic that is not the type": {
			id:   "1",
			with: message.Metadata{"ce_type": "b"},
			want: message.Metadata{"ce_type": "b", "tidings_topic": "a"},
		},
		"topic of an earlier delivery": {
			id:   "1",
			with: message.Metadata{"ce_type": "a", "tidings_topic": "c"},
			want: message.Metadata{"ce_type": "a"},
		},
		"CloudEvents headers": {
			cfg:  Config{CloudEventsHeaders: true},
			id:   "1",
			with: message.Metadata{"ce_type": "a", "ce_source": "s", "ce_id": "of another"},
			want: message.Metadata{"ce_type": "a", "ce_source": "s", "ce_id": "1", "ce_specversion": "1.0"},
		},
		"CloudEvents headers of what is no event": {
			cfg:  Config{CloudEventsHeaders: true},
			id:   "1",
			with: message.Metadata{"ce_type": "a"},
			want: message.Metadata{"ce_type": "a"},
		},
		"CloudEvents headers without an id": {
			cfg:  Config{CloudEventsHeaders: true},
			with: message.Metadata{"ce_type": "a", "ce_source": "s"},
			want: message.Metadata{"ce_type": "a", "ce_source": "s"},
		},
	} {
		f := &fakePublisher{}
		tr := newTransport(t, f, nil, c.cfg)
		msg := message.NewMessage(c.id, nil)
		msg.Metadata = c.with
		if err := tr.Publish("a", msg); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, f.published[0].Metadata); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestIncomingMetadata(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		topic  string
		id     string
		with   message.Metadata
		wantID string
		want   message.Metadata
	}{
		"plain message": {
			topic: "a", id: "1", wantID: "1",
			with: message.Metadata{"correlation_id": "c", "mine": "x"},
			want: message.Metadata{"correlation_id": "c", "ce_correlationid": "c", "mine": "x", "tidings_topic": "a"},
		},
		"no metadata": {
			topic: "a", id: "1", wantID: "1",
			want: message.Metadata{"tidings_topic": "a"},
		},
		"event": {
			topic: "a", id: "1", wantID: "1",
			with: message.Metadata{"ce_type": "a", "ce_correlationid": "c", "correlation_id": "d", "tidings_topic": "b"},
			want: message.Metadata{"ce_type": "a", "ce_correlationid": "c", "correlation_id": "d"},
		},
		"event with the other headers of CloudEvents": {
			topic: "a", id: "1", wantID: "1",
			with: message.Metadata{"ce_type": "a", "ce_id": "1", "ce_specversion": "1.0"},
			want: message.Metadata{"ce_type": "a"},
		},
		"event from a producer without Watermill": {
			topic: "a", wantID: "1",
			with: message.Metadata{"ce_type": "a", "ce_id": "1", "ce_specversion": "0.3"},
			want: message.Metadata{"ce_type": "a", "ce_specversion": "0.3"},
		},
		"metadata copied from another event": { // the message is a new one
			topic: "a", id: "2", wantID: "2",
			with: message.Metadata{"ce_type": "a", "ce_id": "1"},
			want: message.Metadata{"ce_type": "a", "ce_id": "1"},
		},
		"UUID among the metadata": {
			topic: "a", wantID: "1",
			with: message.Metadata{"ce_type": "a", "ce_id": "2", "_watermill_message_uuid": "1"},
			want: message.Metadata{"ce_type": "a", "ce_id": "2"},
		},
		"by pattern": {
			topic: "a.*", id: "1", wantID: "1",
			with: message.Metadata{"ce_type": "b", "tidings_topic": "a.b"},
			want: message.Metadata{"ce_type": "b", "tidings_topic": "a.b"},
		},
	} {
		msg := message.NewMessage(c.id, []byte("payload"))
		msg.Metadata = c.with
		got := incoming(c.topic, msg)
		if got.UUID != c.wantID || string(got.Payload) != "payload" {
			t.Errorf("%s: got %q with %q; want %q", name, got.UUID, got.Payload, c.wantID)
		}
		if diff := cmp.Diff(c.want, got.Metadata); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if topic := transports.Topic(got); c.topic == "a" && topic != "a" || c.topic != "a" && topic != "a.b" {
			t.Errorf("%s: the topic is %q", name, topic)
		}
	}
}
