package watermill

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

func TestWhatASubscriberCantDoIsRefused(t *testing.T) {
	t.Parallel()
	able := Config{Patterns: true, Ordered: true, Ephemeral: true}
	ordered := func(topics ...string) transports.Subscription {
		return transports.Subscription{Name: "s", Topics: topics, Concurrency: 1, Ordered: true}
	}
	ephemeral := transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 1, Ephemeral: true}
	for _, c := range []struct {
		cfg  Config
		s    transports.Subscription
		want string // in the error; "" for none
	}{
		{Config{}, sub("s", "a", "b.c"), ""},
		{Config{}, sub("s", "a.*"), `pattern "a.*"`},
		{able, sub("s", "a.*"), ""},
		{able, sub("s", "a.*", "b.*"), ""},
		{able, sub("s", "a.*", "*.b"), "would come twice"},
		{able, sub("s", "a.*", "a.b", "a.b"), ""},
		{Config{}, ordered("a"), "ordered subscription"},
		{able, ordered("a"), ""},
		{able, ordered("#", "a"), ""},
		{able, ordered("a", "b"), "no order between topics"},
		{Config{}, ephemeral, "ephemeral subscription"},
		{able, ephemeral, ""},
	} {
		f := &fakeSubscriber{}
		_, err := newTransport(t, nil, f, c.cfg).Subscribe(t.Context(), c.s)
		if c.want == "" {
			if err != nil {
				t.Errorf("%+v: %v", c.s, err)
			}
			continue
		}
		if !errors.Is(err, transports.ErrUnsupported) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v; want ErrUnsupported with %q", c.s, err, c.want)
		}
		if len(f.topics()) > 0 {
			t.Errorf("%+v: Watermill's subscriber was asked all the same", c.s)
		}
	}
	_, err := newTransport(t, nil, &fakeSubscriber{}, Config{}).Subscribe(t.Context(), transports.Subscription{
		Name: "s", Topics: []string{"a.*", "b"}, Concurrency: 1, Ordered: true, Ephemeral: true,
	})
	if got := strings.Count(err.Error(), "not supported"); got != 4 {
		t.Errorf("it reports %d faults; want 4:\n%v", got, err)
	}
}

func TestSharingOfASubscriber(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cfg           Config
		first, second transports.Subscription
		refused       bool
	}{
		"unknown: two names":                  {Config{}, sub("s", "a"), sub("t", "a"), true},
		"unknown: one name":                   {Config{}, sub("s", "a"), sub("s", "a"), true},
		"unknown: other topics":               {Config{}, sub("s", "a"), sub("t", "b"), false},
		"fan-out: two names":                  {Config{Sharing: FanOut}, sub("s", "a"), sub("t", "a"), false},
		"fan-out: one name":                   {Config{Sharing: FanOut}, sub("s", "a"), sub("s", "a"), true},
		"competing: two names":                {Config{Sharing: Competing}, sub("s", "a", "b"), sub("t", "b"), true},
		"competing: overlapping patterns":     {Config{Sharing: Competing, Patterns: true}, sub("s", "a.*"), sub("t", "*.b"), true},
		"competing: patterns without overlap": {Config{Sharing: Competing, Patterns: true}, sub("s", "a.*"), sub("t", "b.#"), false},
		"competing: one name":                 {Config{Sharing: Competing}, sub("s", "a"), sub("s", "a"), false},
	} {
		tr := newTransport(t, nil, &fakeSubscriber{}, c.cfg)
		ctx, stop := context.WithCancel(t.Context())
		ch := subscribe(ctx, t, tr, c.first)
		_, err := tr.Subscribe(t.Context(), c.second)
		if errors.Is(err, transports.ErrUnsupported) != c.refused || !c.refused && err != nil {
			t.Errorf("%s: %v; want it to be refused: %t", name, err, c.refused)
		}
		stop()
		for range ch {
		}
		if c.refused { // the first has made room
			subscribe(t.Context(), t, tr, c.second)
		}
	}
}

func TestNameOfAnEphemeralSubscriptionIsNotShared(t *testing.T) {
	t.Parallel()
	durable, ephemeral := sub("s", "a"), sub("s", "a")
	ephemeral.Ephemeral = true
	for _, c := range []struct{ first, second transports.Subscription }{{ephemeral, ephemeral}, {ephemeral, durable}, {durable, ephemeral}} {
		tr := newTransport(t, nil, &fakeSubscriber{}, Config{Sharing: Competing, Ephemeral: true})
		subscribe(t.Context(), t, tr, c.first)
		if _, err := tr.Subscribe(t.Context(), c.second); err == nil || !strings.Contains(err.Error(), "not shared") {
			t.Errorf("%+v beside %+v: %v", c.second, c.first, err)
		}
	}
}

// Who sees that the channel is closed can subscribe again.
func TestNameIsFreeWhenTheChannelIsClosed(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, nil, nil, Config{
		Subscriber: func(transports.Subscription) (message.Subscriber, error) { return &fakeSubscriber{}, nil },
		Ephemeral:  true,
	})
	ephemeral := sub("s", "a")
	ephemeral.Ephemeral = true
	ctx, stop := context.WithCancel(t.Context())
	ch := subscribe(ctx, t, tr, ephemeral)
	tr.mu.Lock() // which guards the names
	stop()
	select {
	case <-ch:
		t.Error("the channel is closed while the name is taken")
	case <-time.After(50 * time.Millisecond):
	}
	tr.mu.Unlock()
	<-ch
	subscribe(t.Context(), t, tr, ephemeral)
}

func TestUncovered(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ patterns, want []string }{
		{[]string{"a", "b", "a"}, []string{"a", "b"}},
		{[]string{"order.*", "#", "order.created"}, []string{"#"}},
		{[]string{"a.b", "a.*", "a.#"}, []string{"a.#"}},
		{[]string{"a.*", "a.#.b"}, []string{"a.*", "a.#.b"}},
		{[]string{"*", "a", "a.b"}, []string{"*", "a.b"}},
		{[]string{"#.#", "#"}, []string{"#.#"}},
		{[]string{"a.*.c", "a.b.*"}, []string{"a.*.c", "a.b.*"}},
	} {
		if got := uncovered(c.patterns); !slices.Equal(got, c.want) {
			t.Errorf("%q leaves %q; want %q", c.patterns, got, c.want)
		}
	}
}

// Whether one pattern covers another, and whether they overlap, must agree with what
// they match.
func FuzzPatterns(f *testing.F) {
	words := []string{"*", "#", "a", "b", "a.*", "#.a", "a.#", "*.a", "a.*.b", "a.#.b", "#.a.#", "*.*", "a.b", "b.a.b", "#.*"}
	for _, a := range words {
		for _, b := range words {
			f.Add(a, b)
		}
	}
	var topics []string
	for n := range 5 {
		for i := range 1 << n {
			words := make([]string, n)
			for j := range words {
				words[j] = []string{"a", "b"}[i>>j&1]
			}
			topics = append(topics, strings.Join(words, "."))
		}
	}
	topics = append(topics, "x", "x.y", "a.x", "x.a", "x.y.z")
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, pattern := range []string{a, b} {
			if transports.ValidatePattern(pattern) != nil || len(pattern) > 15 || strings.Trim(pattern, "ab*#.") != "" {
				t.Skip("not of the words of the topics above")
			}
		}
		covers := covers(strings.Split(a, "."), strings.Split(b, "."))
		both := overlap(a, b)
		if both != overlap(b, a) {
			t.Errorf("overlap of %q and %q depends on their order", a, b)
		}
		if covers && !both {
			t.Errorf("%q covers %q and does not overlap it", a, b)
		}
		for _, topic := range topics {
			inA, inB := transports.Match(a, topic), transports.Match(b, topic)
			if covers && inB && !inA {
				t.Errorf("%q covers %q, but not its topic %q", a, b, topic)
			}
			if !both && inA && inB {
				t.Errorf("%q and %q overlap in %q", a, b, topic)
			}
		}
	})
}
