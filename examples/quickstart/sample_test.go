package main

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
)

// takers are the subscriptions of a type and who fails in each.
var takers = map[string][]string{
	"customer.created":         {mailServer},
	"customer.promoted_to_vip": {mailServer},
	"order.created":            {stock},
	"document.processed":       {pushGateway, statistics},
	"document.failed":          {pager},
}

// countSample counts what must become of a sample, from its events and its plan, and
// nothing that the program does.
func countSample(t *testing.T, s *sample) summary {
	t.Helper()
	var sum summary
	type delivery struct{ id, of string }
	handled := make(map[delivery]bool)
	for _, raw := range s.events {
		sum.published++
		f := s.faults[raw.Metadata.ID]
		for _, of := range takers[raw.Metadata.Type] {
			d := delivery{raw.Metadata.ID, of}
			failing := f.of == of
			switch {
			case !decodes(t, raw):
				sum.poisoned++
				continue
			case handled[d]:
				sum.deduplicated++
				continue
			}
			handled[d] = true
			sum.handled++ // what is poisoned by a fault is mended and redriven
			if failing && !f.hopeless {
				sum.retried++
			}
		}
	}
	return sum
}

func decodes(t *testing.T, raw bus.Raw) bool {
	t.Helper()
	if raw.Metadata.DataContentType != "application/json" {
		return false
	}
	event, ok := map[string]any{
		"customer.created":         &events.CustomerCreated{},
		"customer.promoted_to_vip": &events.CustomerPromotedToVIP{},
		"order.created":            &events.OrderCreated{},
		"document.processed":       &events.DocumentProcessed{},
		"document.failed":          &events.DocumentFailed{},
	}[raw.Metadata.Type]
	if !ok {
		t.Fatalf("the sample has an event of type %q", raw.Metadata.Type)
	}
	return json.Unmarshal(raw.Data, event) == nil && event.(events.Validator).Validate() == nil
}

func TestSampleCounts(t *testing.T) {
	t.Parallel()
	s := newSample()
	types := make(map[string]int)
	copies := make(map[string]int)
	for _, raw := range s.events {
		types[raw.Metadata.Type]++
		copies[raw.Metadata.ID]++
	}
	if len(copies) < 10_000 {
		t.Errorf("the sample has %d events, want 10,000 at least", len(copies))
	}
	if len(types) != 5 {
		t.Errorf("the sample has %d types, want 5: %v", len(types), types)
	}
	sum := countSample(t, s)
	if sum.retried == 0 || sum.deduplicated == 0 || sum.poisoned == 0 || sum.malformed+sum.unhandled+sum.lost != 0 {
		t.Errorf("the sample would make %v", sum)
	}
	kinds := make(map[string]int)
	for id, f := range s.faults {
		switch {
		case f.attempts > retry.Attempts:
			kinds["redelivered"]++
		case f.attempts > 0:
			kinds["retried in place"]++
		case f.hopeless:
			kinds["poisoned at once"]++
		default:
			kinds["poisoned after all attempts"]++
		}
		if copies[id] != 1 {
			t.Errorf("%s fails and has copies: what is retried would depend on which comes first", id)
		}
	}
	if len(kinds) != 4 {
		t.Errorf("kinds of faults: %v, want 4", kinds)
	}
}

func TestSampleIsTheSameEveryTime(t *testing.T) {
	t.Parallel()
	a, b := newSample(), newSample()
	if !reflect.DeepEqual(a.events, b.events) || !reflect.DeepEqual(a.faults, b.faults) {
		t.Error("two samples differ")
	}
}

// What the transports check must not be what makes a sample event fail.
func TestSampleMetadata(t *testing.T) {
	t.Parallel()
	for _, raw := range newSample().events {
		md := raw.Metadata
		md.Source = "quickstart"
		if err := md.Validate(); err != nil {
			t.Errorf("%s: %v", md.ID, err)
		}
		if md.PartitionKey == "" || md.Time.IsZero() || md.CorrelationID == "" {
			t.Errorf("%s has no key, time or correlation id: %+v", md.ID, md)
		}
	}
}
