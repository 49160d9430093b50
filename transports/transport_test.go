package transports_test

import (
	"strings"
	"testing"

	"github.com/gotidings/tidings/transports"
)

func TestSubscriptionReportsEveryFault(t *testing.T) {
	t.Parallel()
	valid := transports.Subscription{Name: "shop.mail", Topics: []string{"order.*", "#"}, Concurrency: 1}
	if err := valid.Validate(); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		s    transports.Subscription
		want []string
	}{
		{transports.Subscription{}, []string{"name is empty", "has no topics", "concurrency 0; it takes at least 1"}},
		{
			transports.Subscription{Name: "a\tb", Topics: []string{"", "ok", "a.b*"}, Concurrency: -1},
			[]string{`"a\tb" has a control character at byte 1`, "topic is empty", `wildcard in "b*"`, "concurrency -1"},
		},
		{transports.Subscription{Name: "\xff", Topics: []string{"a"}, Concurrency: 1}, []string{"not valid UTF-8"}},
	} {
		err := c.s.Validate()
		if err == nil {
			t.Errorf("%+v is accepted", c.s)
			continue
		}
		if got := strings.Count(err.Error(), "\n") + 1; got != len(c.want) {
			t.Errorf("%+v: %d faults; want %d:\n%v", c.s, got, len(c.want), err)
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: want %q in:\n%v", c.s, want, err)
			}
		}
	}
}
