package watermill

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

// A subscriber that has given other messages already delivers them while one backs off,
// unless the subscription is ordered.
func TestNackedMessageBacksOff(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeSubscriber{}
			tr := newTransport(t, nil, f, Config{Ordered: true})
			s := transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 1, Ordered: ordered}
			ch := subscribe(t.Context(), t, tr, s)
			var in *message.Message
			for range nacksAtOnce {
				in = f.on(t, "a").offer("1")
				(<-ch).Nack()
				synctest.Wait()
			}
			if ended(in.Nacked()) {
				t.Error("it goes back at once")
			}
			start, want := time.Now(), time.Duration(0)
			if ordered {
				want = nackDelay
			}
			f.on(t, "a").offer("2")
			(<-ch).Ack()
			if took := time.Since(start); took != want {
				t.Errorf("ordered %t: the next is delivered after %v; want %v", ordered, took, want)
			}
			<-in.Nacked()
			if took := time.Since(start); took != nackDelay {
				t.Errorf("ordered %t: it goes back after %v; want %v", ordered, took, nackDelay)
			}
		})
	}
}

func TestNackedMessagesAreCountedWithinABound(t *testing.T) {
	t.Parallel()
	c := &consumer{}
	for i := range 5 * maxNacked {
		c.countNack(strconv.Itoa(i))
	}
	if len(c.nacks) > maxNacked {
		t.Errorf("%d ids are kept; want %d at most", len(c.nacks), maxNacked)
	}
	for range nacksAtOnce - 2 {
		c.countNack("x")
	}
	c.forgetNacks("x")
	for i := range nacksAtOnce {
		if atOnce, want := c.countNack("x"), i < nacksAtOnce-1; atOnce != want {
			t.Errorf("nack %d goes back at once: %t; want %t", i+1, atOnce, want)
		}
	}
}
