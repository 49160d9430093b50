package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
)

// sample is the events of a run without -input, the same in every run.
type sample struct {
	events []bus.Raw
	faults map[string]fault // by event id
	random *rand.Rand
}

// The faults of the sample. One that is busy fails once and is tried again at once;
// one that restarts fails longer than that, so the event comes back after a delay.
// The others last until they are mended, before the redrive.
var (
	busy       = fault{attempts: 1, problem: "busy"}
	restarting = fault{attempts: 4, problem: "restarting"}

	domainRejected = fault{hopeless: true, problem: "rejects mail for example.net"}
	warehouseShut  = fault{problem: "the warehouse is shut"}
	tokenExpired   = fault{hopeless: true, problem: "the access token has expired"}
)

func (f fault) in(of string) fault {
	f.of = of
	return f
}

func newSample() *sample {
	s := &sample{
		faults: make(map[string]fault),
		random: rand.New(rand.NewPCG(2026, 1)), // always the same
	}
	s.customers()
	s.orders()
	s.documents()
	s.random.Shuffle(len(s.events), func(i, j int) { s.events[i], s.events[j] = s.events[j], s.events[i] })
	return s
}

// all gives the events as the lines of a file would be.
func (s *sample) all(yield func(line, error) bool) {
	for i, raw := range s.events {
		if !yield(line{number: i + 1, raw: raw}, nil) {
			return
		}
	}
}

// variant is how some events of a type differ from the others.
type variant[E any] struct {
	count  int            // how many events
	copies int            // how often each is published besides
	fault  fault          // what fails on it
	event  func(e *E)     // how the event differs
	raw    func(*bus.Raw) // how what is published differs
}

// fill adds count events of one type, the variants among them.
func fill[E interface {
	events.Event
	events.Keyed
}](s *sample, count int, event func(n int) E, variants ...variant[E],
) {
	for n := 1; n <= count; n++ {
		var v variant[E]
		if len(variants) > 0 {
			v = variants[0]
			if variants[0].count--; variants[0].count == 0 {
				variants = variants[1:]
			}
		}
		e := event(n)
		if v.event != nil {
			v.event(&e)
		}
		raw := s.raw(e, n)
		if v.raw != nil {
			v.raw(&raw)
		}
		if v.fault.of != "" {
			s.faults[raw.Metadata.ID] = v.fault
		}
		for range 1 + v.copies {
			s.events = append(s.events, raw)
		}
	}
}

// raw is the nth event of its type as it is published. The source is left to the run:
// each has its own, so that two runs on one broker do not take each other's events for
// copies.
func (s *sample) raw(e interface {
	events.Event
	events.Keyed
}, n int,
) bus.Raw {
	data, err := json.Marshal(e)
	if err != nil {
		panic(fmt.Sprintf("sample: %v", err)) // a fault of the sample itself
	}
	id := fmt.Sprintf("%s-%05d", e.EventType(), n)
	return bus.Raw{
		Metadata: events.Metadata{
			ID: id, Type: e.EventType(), DataContentType: "application/json",
			Time:          sampleStart.Add(time.Duration(s.random.IntN(8*60*60)) * time.Second),
			CorrelationID: id, PartitionKey: e.PartitionKey(),
		},
		Data: data,
	}
}

var sampleStart = time.Date(2026, time.January, 5, 9, 0, 0, 0, time.UTC)

var firstNames = [...]string{"Ada", "Alan", "Barbara", "Edsger", "Frances", "Grace", "Jean", "Katherine", "Ken", "Niklaus"}

func (s *sample) customers() {
	name := func() string { return firstNames[s.random.IntN(len(firstNames))] }
	fill(s, 3000, func(n int) events.CustomerCreated {
		c := events.CustomerCreated{
			CustomerID: int64(n), CustomerName: name(), Email: fmt.Sprintf("customer%d@example.com", n), Type: events.CustomerTypeRegular,
		}
		if s.random.IntN(20) == 0 {
			c.Type = events.CustomerTypeVIP
		}
		return c
	},
		variant[events.CustomerCreated]{count: 60, fault: busy.in(mailServer)},
		variant[events.CustomerCreated]{count: 30, fault: restarting.in(mailServer)},
		variant[events.CustomerCreated]{count: 70, fault: domainRejected.in(mailServer), event: func(c *events.CustomerCreated) {
			c.Email = fmt.Sprintf("customer%d@example.net", c.CustomerID)
		}},
		variant[events.CustomerCreated]{count: 12, event: func(c *events.CustomerCreated) { c.Email = "nobody" }},
		variant[events.CustomerCreated]{count: 8, raw: func(r *bus.Raw) { r.Data = []byte(`{"customerId":"four","email":"four@example.com"}`) }},
		variant[events.CustomerCreated]{count: 90, copies: 1},
	)
	fill(s, 500, func(int) events.CustomerPromotedToVIP {
		return events.CustomerPromotedToVIP{
			CustomerID: 1 + s.random.Int64N(3000), CustomerName: name(), PromotedAt: sampleStart.Add(time.Duration(s.random.IntN(480)) * time.Minute),
		}
	},
		variant[events.CustomerPromotedToVIP]{count: 15, fault: busy.in(mailServer)},
		variant[events.CustomerPromotedToVIP]{count: 5, event: func(c *events.CustomerPromotedToVIP) { c.PromotedAt = time.Time{} }},
		variant[events.CustomerPromotedToVIP]{count: 10, copies: 1},
	)
}

func (s *sample) orders() {
	scarce := func(o *events.OrderCreated) { o.Items[len(o.Items)-1].ProductID = scarceProduct }
	fill(s, 4000, func(n int) events.OrderCreated {
		o := events.OrderCreated{OrderID: int64(n), CustomerID: 1 + s.random.Int64N(3000)}
		for range 1 + s.random.IntN(4) {
			item := events.OrderItem{
				ProductID: 100 + s.random.Int64N(900), Quantity: 1 + s.random.Int64N(3), UnitPrice: events.NewMoney(199+s.random.Int64N(20_000), 2),
			}
			o.Items = append(o.Items, item)
			o.TotalAmount = o.TotalAmount.Add(item.UnitPrice.Mul(item.Quantity))
		}
		return o
	},
		variant[events.OrderCreated]{count: 80, fault: busy.in(stock), event: scarce},
		variant[events.OrderCreated]{count: 40, fault: restarting.in(stock), event: scarce},
		variant[events.OrderCreated]{count: 50, fault: warehouseShut.in(stock), event: scarce},
		variant[events.OrderCreated]{count: 6, event: func(o *events.OrderCreated) { o.Items[0].Quantity = -1 }},
		variant[events.OrderCreated]{count: 9, raw: func(r *bus.Raw) {
			r.Metadata.DataContentType, r.Data = "text/csv", []byte("4711,2,19.90\n")
		}},
		variant[events.OrderCreated]{count: 120, copies: 1},
	)
}

func (s *sample) documents() {
	fill(s, 3000, func(n int) events.DocumentProcessed {
		return events.DocumentProcessed{
			DocumentID: fmt.Sprintf("doc-%d", n), UserID: fmt.Sprintf("user-%d", s.random.IntN(400)),
			ProcessingResults:    json.RawMessage(fmt.Sprintf(`{"pages":%d,"language":"en"}`, 1+s.random.IntN(40))),
			ProcessingDurationMs: s.random.Int64N(5000),
		}
	},
		variant[events.DocumentProcessed]{count: 40, fault: busy.in(pushGateway)},
		variant[events.DocumentProcessed]{count: 45, fault: tokenExpired.in(pushGateway)}, // while the analytics succeed
		variant[events.DocumentProcessed]{count: 25, fault: restarting.in(statistics)},
		variant[events.DocumentProcessed]{count: 7, event: func(d *events.DocumentProcessed) { d.ProcessingResults = json.RawMessage(`[1,2]`) }},
		variant[events.DocumentProcessed]{count: 80, copies: 1},
	)
	fill(s, 500, func(n int) events.DocumentFailed {
		return events.DocumentFailed{DocumentID: fmt.Sprintf("doc-%d", 3000+n), Error: "unsupported format", StackTrace: "parser.go:42"}
	},
		variant[events.DocumentFailed]{count: 10, fault: busy.in(pager)},
		variant[events.DocumentFailed]{count: 3, raw: func(r *bus.Raw) { r.Data = r.Data[:len(r.Data)/2] }},
		variant[events.DocumentFailed]{count: 10, copies: 2},
	)
}
