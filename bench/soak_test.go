package main

import (
	"bytes"
	"regexp"
	"testing"
	"time"

	"github.com/gotidings/tidings/internal/testserver"
)

func TestSoaks(t *testing.T) {
	t.Parallel()
	o := options{broker: testserver.RabbitMQ(t), soakEvents: 1000}
	cases := casesByName("")
	for _, s := range soaks {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			if _, ok := cases[s.reference.name]; !ok {
				t.Errorf("there is no case %s", s.reference.name)
			}
			var out bytes.Buffer
			err := s.run(t.Context(), o, func(l leg) (sample, error) {
				return sample{Events: l.events, Elapsed: time.Second, CPU: time.Second}, nil
			}, &out)
			if err != nil {
				t.Fatal(err)
			}
			last := regexp.MustCompile(`(?m)^\| +1000 \|( +[\d.]+ \|){8}$`)
			if !last.MatchString(out.String()) {
				t.Errorf("it has not come to its end:\n%s", &out)
			}
		})
	}
}
