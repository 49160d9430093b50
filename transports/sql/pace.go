package sql

import "time"

// aheadTime is how much of a receiver's work is claimed ahead of it, and maxAhead the
// most messages. Longer makes claims fewer; it is also how long others wait for what a
// consumer has claimed and not begun.
const (
	aheadTime = 100 * time.Millisecond
	maxAhead  = 2000
)

// pace measures how many messages a second a receiver settles.
type pace struct {
	since time.Time // of the settled ones
	n     int       // settled since
	rate  float64
}

func (p *pace) count() { p.n++ }

// ahead returns how many messages to have ready for a receiver beyond those in flight.
func (p *pace) ahead(now time.Time) int {
	const sample, memory = 5 * time.Millisecond, 200 * time.Millisecond
	if d := now.Sub(p.since); d >= sample {
		rate := float64(p.n) / d.Seconds()
		if d < memory {
			rate = (rate + p.rate) / 2
		}
		p.since, p.n, p.rate = now, 0, rate
	}
	return min(int(p.rate*aheadTime.Seconds()), maxAhead)
}
