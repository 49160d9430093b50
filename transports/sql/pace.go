package sql

import (
	"math"
	"time"
)

// aheadTime is how much of a receiver's work is claimed ahead of it, or twice what a claim
// takes if that is more, and maxAhead the most messages. Longer makes claims fewer; it is also
// how long others wait for what a consumer has claimed and not begun.
const (
	aheadTime = 100 * time.Millisecond
	maxAhead  = 2000
)

// paceGrowth bounds what is claimed ahead by what was settled of late: a receiver that was
// quick with one message may not be quick with a thousand.
const paceGrowth = 8

const (
	paceSample = 5 * time.Millisecond
	paceMemory = 200 * time.Millisecond
)

// pace measures how many messages a second a receiver settles while it has some, and how long
// it takes to claim more. The time in which it waits for more does not count: otherwise, where
// a claim takes long, the receiver would seem slow, and the next claim would be small.
type pace struct {
	running bool          // the receiver has something
	since   time.Time     // of what is not in busy yet
	busy    time.Duration // of the settled ones
	n       int           // settled in it

	sampled time.Time
	rate    float64
	recent  float64 // settled of late

	claiming, loading time.Duration
}

func (p *pace) count() { p.n++ }

// resume notes that the receiver has something, and pause that it has nothing.
func (p *pace) resume(now time.Time) {
	if !p.running {
		p.running, p.since = true, now
	}
}

func (p *pace) pause(now time.Time) {
	if p.running {
		p.running = false
		p.busy += now.Sub(p.since)
	}
}

// ahead returns how many messages to have ready for a receiver beyond those in flight.
func (p *pace) ahead(now time.Time) int {
	p.sample(now)
	horizon := min(max(aheadTime, 2*(p.claiming+p.loading)), stockTime)
	return int(min(p.rate*horizon.Seconds(), paceGrowth*p.remembered(now), maxAhead))
}

// remembered is how many messages were settled of late.
func (p *pace) remembered(now time.Time) float64 {
	return p.recent * math.Exp2(-now.Sub(p.sampled).Seconds()/paceMemory.Seconds())
}

// sample recomputes the rate, if there is enough to compute it from.
func (p *pace) sample(now time.Time) {
	if p.running {
		p.busy += now.Sub(p.since)
		p.since = now
	}
	if p.busy < paceSample && (p.running || p.n == 0) {
		return
	}
	rate := float64(p.n) / max(p.busy, time.Microsecond).Seconds()
	if p.busy < paceMemory {
		rate = (rate + p.rate) / 2
	}
	p.recent = p.remembered(now) + float64(p.n)
	p.rate, p.busy, p.n, p.sampled = rate, 0, 0, now
}

// smooth follows what claims and loads take.
func smooth(d *time.Duration, now time.Duration) { *d = (*d + now) / 2 }
