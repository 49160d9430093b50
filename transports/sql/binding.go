package sql

import (
	"context"
	"database/sql"
	"strings"

	"github.com/gotidings/tidings/transports"
)

// group is a subscription as its consumers know it: what it takes, and from where on.
type group struct {
	id       int64
	name     string
	version  int64 // of the bindings
	bindings []binding
}

// binding is a topic pattern of a group.
type binding struct {
	pattern   string
	since     int64 // takes only what has a higher id
	sinceLate int64 // and of what was late only what has a higher number there
}

// takes reports whether a message is for the group. n is its number among the late
// ones, 0 when it was not late.
func (g *group) takes(topic string, id, n int64) bool {
	for _, b := range g.bindings {
		if (n == 0 && id > b.since || n > b.sinceLate) && transports.Match(b.pattern, topic) {
			return true
		}
	}
	return false
}

func (g *group) wildcard() bool {
	for _, b := range g.bindings {
		if transports.HasWildcard(b.pattern) {
			return true
		}
	}
	return false
}

// readBindings reads what the group takes, when it is not of that version.
func (s *store) readBindings(ctx context.Context, q Tx, g *group, version int64) error {
	if g.version == version {
		return nil
	}
	g.bindings = nil
	err := s.query(ctx, q, func(rows *sql.Rows) error {
		var b binding
		err := rows.Scan(&b.pattern, &b.since, &b.sinceLate)
		g.bindings = append(g.bindings, b)
		return err
	}, `select pattern, since, since_late from {bindings} where subscription_id = ? order by pattern`, g.id)
	if err == nil {
		g.version = version
	}
	return err
}

// scanWindow is how many ids a group with wildcards looks through for a claim.
const scanWindow = 20_000

// Kinds of rows of a find.
const (
	foundFrontier = 0 // the frontier, in the same snapshot
	foundMessage  = 1
	foundElse     = 2 // a message that is left out: it is in a gap, or came out of one, and is taken from among the late ones
	foundMaxLate  = 3 // the number of the newest late arrival, in the same snapshot
)

// find is the query for the messages of g with ids above first and up to last, the first
// limit of them, and its parameters; last < 0 means up to the frontier. Left out is what
// is in a gap, or became late after the number late. That is decided for the rows that
// are found, and not while they are looked for: a planner that expects much to be left
// out would rather sort the whole rest of the log than go through it in order.
func (s *store) find(g *group, first, last, late int64, limit int) (query string, args []any) {
	var b strings.Builder
	b.WriteString("select 0 as kind, {frontier} as id union all select ")
	if gapless := s.dialect.gapless(); gapless == "" {
		b.WriteString("1")
	} else {
		b.WriteString("3, (select coalesce(max(n), 0) from {late}) union all select ")
		// Most often there is neither, which is found out once and not for each row.
		b.WriteString("case when (select count(*) from (select id from {gaps} limit 1) g) = 0 and (select coalesce(max(n), 0) from {late}) <= {param int} then 1 when " +
			gapless + " and (select count(*) from {late} l where l.id = m.id and l.n > {param int}) = 0 then 1 else 2 end")
		args = append(args, late, late)
	}
	b.WriteString(", m.id from (select t.id from (")
	if g.wildcard() {
		b.WriteString("select m.id from {messages} m where m.id > ? and m.id <= {frontier} and m.id <= ? and (")
		if last < 0 {
			last = first + scanWindow
		}
		args = append(args, first, last)
		for i, bind := range g.bindings {
			if i > 0 {
				b.WriteString(" or ")
			}
			if transports.HasWildcard(bind.pattern) {
				b.WriteString("{topic text} like ? escape '!' and m.id > ?")
				args = append(args, like(bind.pattern), bind.since)
			} else {
				b.WriteString("m.topic = ? and m.id > ?")
				args = append(args, bind.pattern, bind.since)
			}
		}
		b.WriteString(") order by m.id limit ?")
		args = append(args, limit)
	} else {
		topicRange := s.dialect.topicRange()
		if last < 0 {
			// The last parameter of a range is its end.
			i := strings.LastIndexByte(topicRange, '?')
			topicRange = topicRange[:i] + "{frontier}" + topicRange[i+1:]
		}
		for i, bind := range g.bindings {
			if i > 0 {
				b.WriteString(" union all ")
			}
			b.WriteString("select * from (" + topicRange + " order by {in topic} limit ?) p")
			rangeArgs := s.dialect.topicArgs(bind.pattern, max(first, bind.since), last)
			if last < 0 {
				rangeArgs = rangeArgs[:len(rangeArgs)-1]
			}
			args = append(append(args, rangeArgs...), limit)
		}
	}
	b.WriteString(") t order by t.id limit ?) m order by 2")
	return b.String(), append(args, limit)
}

// like is a LIKE pattern, with ! to escape, for all that a topic pattern matches, and
// for some more.
func like(pattern string) string {
	var b strings.Builder
	words := strings.Split(pattern, ".")
	dot := false // one is due before the next word
	for _, word := range words {
		switch word {
		case "#": // which may be nothing, so that the dots around it are not there
			b.WriteByte('%')
			dot = false
		default:
			if dot {
				b.WriteByte('.')
			}
			if word == "*" {
				b.WriteByte('%')
			} else {
				b.WriteString(likeEscaper.Replace(word))
			}
			dot = true
		}
	}
	return b.String()
}

var likeEscaper = strings.NewReplacer("!", "!!", "%", "!%", "_", "!_")
