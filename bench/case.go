package main

import (
	"context"
	"fmt"
	"slices"
)

// reference is the peer that all others are compared with: the library as a user
// has it who sets nothing.
const reference = "tidings"

// benchCase is one way to do some work.
type benchCase struct {
	group   string // the work, such as "memory"
	variant string // its conditions as key=value, such as "publishers=8"
	peer    string // who does it; the peers of one group and variant are compared
	note    string // how far it is like for like; "" where the code alone says it

	// most is how many events a round has at most: a peer that is a hundred times slower
	// shows its rate with a hundredth of the events. 0: any number.
	most int

	needsBroker bool // a RabbitMQ server

	// prepare makes everything ready, outside the measured time. The rig has to
	// tell the ledger of each event that was handled.
	prepare func(ctx context.Context, l *ledger) (rig, error)
}

// rig is a case that is ready to be measured.
type rig struct {
	// run does the work. The measured time ends when it has returned and the
	// ledger is full.
	run func(ctx context.Context) error

	// close takes everything down, waiting for what is still under way.
	close func() error
}

func (c benchCase) name() string { return c.work() + "/" + c.peer }

// work names what the case does, whoever does it.
func (c benchCase) work() string { return c.group + "/" + c.variant }

// events returns how many events a round has of those asked for.
func (c benchCase) events(asked int) int {
	if c.most == 0 {
		return asked
	}
	return min(asked, c.most)
}

// allCases returns every case, those of one work together. broker is the URL of a
// RabbitMQ server, for those that need one.
func allCases(broker string) []benchCase {
	return slices.Concat(memoryCases(), telemetryCases(), brokerCases(broker), sqlCases(), outboxCases(broker))
}

// casesByName returns every case by its name.
func casesByName(broker string) map[string]benchCase {
	cases := make(map[string]benchCase)
	for _, c := range allCases(broker) {
		cases[c.name()] = c
	}
	return cases
}

// result is what was measured of a case, by round.
type result struct {
	benchCase
	samples []sample
}

// inRounds measures each case once a round. Within a round, cases of the same
// work follow each other; their order is reversed in every other round and rotated
// in every second, so that none always comes first or always after the same one.
func inRounds(cases []benchCase, rounds int, measure func(c benchCase, round int) (sample, error)) ([]result, error) {
	results := make([]result, len(cases))
	for i, c := range cases {
		results[i] = result{c, make([]sample, rounds)}
	}
	for round := range rounds {
		for from := 0; from < len(cases); {
			to := from + 1
			for to < len(cases) && cases[to].work() == cases[from].work() {
				to++
			}
			for _, i := range order(to-from, round) {
				r := &results[from+i]
				s, err := measure(r.benchCase, round)
				if err != nil {
					return nil, fmt.Errorf("round %d: %w", round+1, err)
				}
				r.samples[round] = s
			}
			from = to
		}
	}
	return results, nil
}

// order returns the numbers from 0 to n-1 as they are to be visited in a round.
func order(n, round int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = (i + round/2) % n
	}
	if round%2 == 1 {
		slices.Reverse(out)
	}
	return out
}
